"""The training loop and its optimiser, for any nn.Module and map-style data set.

Every epoch draws random numbers that are a function of (seed, epoch) alone, and checkpoints hold
the generators within one, so that an interrupted run continues as if it had not been: on the CPU,
to the bit.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroconv.core.version import __version__
from neuroconv.data.fingerprint import fingerprint
from neuroconv.training.batches import Data, check_length, loader_options
from neuroconv.training.config import ConfigError, TrainConfig
from neuroconv.training.device import float32_arithmetic
from neuroconv.training.distributed import Ranks, check_device, is_sharded
from neuroconv.training.evaluation import Score, place
from neuroconv.training.lock import locked
from neuroconv.training.memory import OutOfMemory, fit_memory
from neuroconv.training.optimizer import make_optimizer
from neuroconv.training.rules import make_learning_rule
from neuroconv.training.sharding import local_names, shard
from neuroconv.training.state import State
from neuroconv.training.sync_norm import synchronised_norms
from neuroconv.training.task import Measure, Task
from neuroconv.training.tensorboard import tensorboard
from neuroconv.training.trainer import Callback, Trainer


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training run; the model itself holds the best weights, in eval mode.

    Attributes:
        history: the lines of metrics.jsonl, one per epoch. `seconds` are those of training steps
            and their data; `activity`, of a model with neurons, is that on the validation images.
        best_epoch: the epoch of highest validation accuracy (among equals, or without accuracies,
            of lowest loss), from 1.
        val, test: scores of its weights; `test` is None without test data.
        changes: differences in spite of which it was resumed, one line each.
        accumulate: the number of parts in which each step's images were run.
        data_sha256: with a run_dir, the fingerprints of "train_data" and the other data sets.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    val: Score
    test: Score | None
    steps: int
    changes: list[str]
    accumulate: int
    data_sha256: dict[str, str]


def train(
    model: nn.Module,
    train_data: Data,
    val_data: Data,
    *,
    test_data: Data | None = None,
    loss: Measure | None = None,
    metrics: Mapping[str, Measure] | None = None,
    callback: Callback | None = None,
    seed: int = 0,
    workers: int = 0,
    run_dir: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    described: Mapping[str, Any] | None = None,
    progress: bool = True,
    **settings: Any,
) -> TrainResult:
    """Trains a model, selects its best epoch on validation data, and tests that once.

    All processes of a torch.distributed group must call this with the same arguments. SIGINT,
    SIGTERM and SIGUSR1 end the run at its next step, with its state saved.

    Args:
        model: called with a batch of inputs; returns logits (B, classes), or what loss= expects.
            Trained in place. Its method `training_loss(logits, labels)`, if it has one, takes the
            place of the cross entropy in training.
        train_data, val_data, test_data: map-style; `data[i]` is (inputs, targets): for a
            classification a tensor and an integer, else these or nested. If the training data has
            `set_epoch(epoch)`, it is called before each epoch, from 0. A DataLoader stands for its
            data set, batch size, `collate_fn` and workers; the order is drawn from the seed, and
            validation and test are over whole data sets.
        loss, metrics: of another task than classification, or beside it; see `Task`.
        callback: called with an epoch's record, a line of metrics.jsonl, after its checkpoint was
            written, in the first process alone. An exception in it ends the run.
        seed: of the order of the images and of the model's draws (dropout). The caller's random
            numbers are left as they were.
        run_dir: folder for metrics, checkpoints and weights; None writes nothing.
        resume: continue from the newest sound checkpoint in the folder, if there is one.
        force: resume in spite of other settings, data, version or number of processes.
        described: what else decides the result, by name, such as arguments of the model: a resumed
            run must have the same, as it must have the settings, the data and the version.
        progress: show a bar, or one line per epoch where there is no terminal.
        **settings: fields of `TrainConfig`; by default 10 epochs at a learning rate of 3e-3. An
            epoch is the full batches of a permutation; data smaller than a batch is one batch.

    Raises:
        ValueError, TypeError: a setting out of range, empty data, labels that do not fit the
            logits, a loss or metric that returns something else than expected.
        RunFailed: the loss, the gradient or a score is not finite.
        RunError: another process writes to the folder.
        CheckpointError: the checkpoints are damaged, or of another run.
        WriteError: the disk is full or read-only; the checkpoint before is intact.
        Interrupted: a signal came; the state is saved.
    """
    batch_size, workers = loader_options(train_data, settings.get("batch_size"), workers)
    settings |= {} if batch_size is None else {"batch_size": batch_size}
    config = TrainConfig(**{"epochs": 10, "learning_rate": 3e-3, **settings, "seeds": (seed,)})
    own_loss = getattr(model, "training_loss", None) if loss is None else None
    task = Task(loss, metrics or {}, config.label_smoothing, own_loss)
    if config.tensorboard and run_dir is None:
        raise ConfigError("tensorboard = true: expected a run_dir, the parent of its files")
    callbacks = [callback] if callback else []
    data = {"train_data": train_data, "val_data": val_data}
    data |= {"test_data": test_data} if test_data is not None and config.test else {}
    images, *_ = [check_length(part, role) for role, part in data.items()]
    ranks = Ranks.current()
    device = check_device(config, images, ranks)
    split = config.split != "none"
    if local_names(model) and not split:
        raise ValueError('the neurons of the model are split over processes: pass split="neurons"')
    if config.spread and not (is_sharded(model) or local_names(model)):
        shard(model, split=config.split, device=config.device)
    place(model, device, config.channels_last)
    rule = make_learning_rule(model, config.rule, config.seeds[0])
    other_loss = task.loss or (task.training_loss if rule and rule.name != "perceptron" else None)
    if rule and (other_loss or ranks.size > 1):
        raise ConfigError(
            f"[train] rule = {rule.name!r} with {ranks.size} processes and the loss "
            f"{getattr(other_loss, '__qualname__', other_loss)}: expected one process, and a "
            'classification by cross entropy, whose error the rule has; or rule = "backprop"'
        )
    state = State(
        model, make_optimizer(model, config), ranks, device, Ranks() if split else ranks,
        config.spread, keep=config.keep,
    )  # fmt: skip
    sums: dict[str, str] = {}
    with ExitStack() as stack:
        if run_dir is not None:
            state.folder = folder = Path(run_dir)
            ranks.first(lambda: stack.enter_context(locked(folder)))
            sums = {role: fingerprint(part) for role, part in data.items()}
            deciding = {
                **(described or {}), **config.decisive(), **task.described(),
                **{f"SHA-256 of {role}": sha256 for role, sha256 in sums.items()},
                "frozen": [name for name, p in model.named_parameters() if not p.requires_grad],
                "version of neuroconv": __version__, "number of processes": ranks.size,
            }  # fmt: skip
            # As strict JSON has it: tuples as lists, clip = inf as a word.
            state.described = json.loads(json.dumps(deciding), parse_constant=str)
            state.open(resume, force)
            if config.tensorboard and ranks.leads:
                callbacks.insert(0, stack.enter_context(tensorboard(folder, state.history)))
        on_cuda = [device] if device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices=on_cuda))
        stack.enter_context(float32_arithmetic(config.precision, device))
        least = state.accumulate
        while True:
            fitted = config
            if config.accumulate == "auto":  # before norms wait for other processes
                parts = fit_memory(state, config, task, train_data, images, least)
                fitted = replace(config, accumulate=parts)
                state.save()
            try:
                with synchronised_norms(model, state.readers, device):
                    test = Trainer(
                        state, fitted, task, data, images, seed, workers, progress, callbacks,
                        rule,
                    ).run()  # fmt: skip
                break
            except OutOfMemory:
                # Of several processes the others wait for the gradients of this one.
                if config.accumulate != "auto" or ranks.size > 1 or state.folder is None:
                    raise
            state.open(resume=True, force=True)
            least = 2 * state.accumulate
    return TrainResult(
        state.history, state.best_epoch, state.best, test, state.step, state.changes, fitted.parts,
        sums,
    )  # fmt: skip
