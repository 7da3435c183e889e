"""The training loop and its optimiser, for any nn.Module and map-style data set.

Every epoch draws random numbers that are a function of (seed, epoch) alone, and ends with a
checkpoint, so that an interrupted run continues as if it had not been: on the CPU, to the bit.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from neuroconv.training.activity import ActivityMonitor
from neuroconv.training.batches import check_length, classify, derived_seed, epoch_batches, load
from neuroconv.training.checkpoint import save_weights
from neuroconv.training.config import TrainConfig
from neuroconv.training.device import float32_arithmetic
from neuroconv.training.distributed import Ranks, check_device, data_parallel, split
from neuroconv.training.evaluation import Score, evaluate_model, in_memory_format, place
from neuroconv.training.metrics import EpochMetrics, Part, TrainingBar
from neuroconv.training.state import BEST, LAST, METRICS, State, write_lines
from neuroconv.training.sync_norm import synchronised_norms

# Devices with one kernel for a whole AdamW step: three to seven times as fast on the CPU too.
_FUSED = ("cpu", "cuda")


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training run; the model itself holds the best weights, in eval mode.

    Attributes:
        history: the lines of metrics.jsonl, one per epoch. `seconds` are those of training steps
            and their data; `activity`, of a model with neurons, is that on the validation images.
        best_epoch: the epoch of highest validation accuracy (among equals, of lower loss), from 1.
        val, test: scores of its weights; `test` is None without test data.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    val: Score
    test: Score | None
    steps: int


def train(
    model: nn.Module,
    train_data: Dataset[Any],
    val_data: Dataset[Any],
    *,
    test_data: Dataset[Any] | None = None,
    seed: int = 0,
    workers: int = 0,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    **settings: Any,
) -> TrainResult:
    """Trains a model, selects its best epoch on validation data, and tests that once.

    All processes of a torch.distributed group must call this with the same arguments.

    Args:
        model: maps a batch of inputs to logits (B, classes). Trained in place.
        train_data, val_data, test_data: map-style; `data[i]` is (input, integer label). If the
            training data has `set_epoch(epoch)`, it is called before each epoch, from 0.
        seed: of the order of the images and of the model's draws (dropout). The caller's random
            numbers are left as they were.
        run_dir: folder for metrics, checkpoint and weights; None writes nothing.
        resume: continue from the folder's checkpoint, if it has one.
        progress: show a bar, or one line per epoch where there is no terminal.
        **settings: fields of `TrainConfig`; by default 10 epochs at a learning rate of 3e-3. An
            epoch is the full batches of a permutation; data smaller than a batch is one batch.

    Raises:
        ValueError: a setting out of range, empty data, labels that do not fit the logits.
        FloatingPointError: the loss or the gradient is no longer finite.
    """
    config = TrainConfig(**{"epochs": 10, "learning_rate": 3e-3, **settings, "seeds": (seed,)})
    images = check_length(train_data, "train_data")
    for data, role in ((val_data, "val_data"), (test_data, "test_data")):
        if data is not None:
            check_length(data, role)
    ranks = Ranks.current()
    device = check_device(config, images, ranks)
    place(model, device, config.channels_last)
    total_steps = config.epochs * max(1, images // config.batch_size)
    last_step = min(total_steps, config.max_steps or total_steps)
    state = State(model, make_optimizer(model, config), config, total_steps, ranks)
    folder = None if run_dir is None else Path(run_dir)
    if folder is not None:
        state.open(folder, resume)
    bar = TrainingBar(
        folder.name if folder else type(model).__name__,
        epochs=config.epochs, steps=last_step, done=state.step, shown=progress and ranks.leads,
    )  # fmt: skip
    try:
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            float32_arithmetic(config.precision, device),
            synchronised_norms(model, ranks, device),
            bar,
        ):
            # The compiled model has the tensors of the plain one, which stays as it is.
            compiled: Any = torch.compile(model) if config.compile else None
            learner = data_parallel(model if compiled is None else compiled, ranks)

            def score(data: Dataset[Any]) -> tuple[Score, dict[str, dict[str, float]]]:
                # Always monitored: torch.compile would reuse a graph without the hooks.
                with ActivityMonitor(model) as monitor:
                    result = evaluate_model(
                        model, data, **config.evaluation(), workers=workers, monitor=monitor,
                        runner=compiled, ranks=ranks,
                    )  # fmt: skip
                monitor.merge(ranks)
                return result, monitor.summary()

            while state.step < last_step:
                epoch = len(state.history)
                batches = epoch_batches(train_data, images, config.batch_size, seed, epoch)
                if ranks.size > 1:
                    torch.manual_seed(derived_seed(seed, epoch, ranks.rank))  # of dropout
                parts = [
                    ranks.share(part)
                    for batch in batches[: last_step - state.step]
                    for part in split(batch, config.accumulate)
                ]
                metrics = EpochMetrics(epoch + 1, device, bar, ranks)
                stream = load(train_data, parts, workers, device, (seed, epoch))
                _train_epoch(state, learner, min(images, config.batch_size), stream, metrics)
                state.finish_epoch(metrics.record(), *score(val_data))
                if folder is not None:
                    ranks.first(lambda: state.save(folder))
                bar.epoch(state.history[-1])
            if folder is not None:
                ranks.first(lambda: save_weights(model, folder / LAST))
            model.load_state_dict(state.best_weights)
            test = None if test_data is None else score(test_data)[0]
    except KeyboardInterrupt:
        remedy = f"; continue with: neuroconv resume {folder}" if folder else ""
        done = len(state.history)
        raise KeyboardInterrupt(
            f"interrupted with {done} epoch{'' if done == 1 else 's'} finished{remedy}"
        ) from None
    model.eval()
    if folder is not None:
        final = {} if test is None else {f"test_{k}": v for k, v in asdict(test).items()}
        lines = [*state.history, {"best_epoch": state.best_epoch, **final}]
        ranks.first(lambda: save_weights(model, folder / BEST))
        ranks.first(lambda: write_lines(folder / METRICS, lines))
    return TrainResult(state.history, state.best_epoch, state.best, test, state.step)


def _train_epoch(
    state: State, learner: nn.Module, step_images: int, stream: Iterator[Any], metrics: EpochMetrics
) -> None:
    """Takes the steps of one epoch, `accumulate` parts of the stream each."""
    settings, device = state.settings, next(state.model.parameters()).device
    state.model.train()
    parts: list[Part] = []  # of the present step
    for inputs, labels in stream:
        if not parts:
            rate = learning_rate_at(
                state.step, state.total_steps, settings.learning_rate, settings.warmup
            )
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            state.optimizer.zero_grad()
        # Processes exchange gradients after a step's last part.
        waits: AbstractContextManager[None] = nullcontext()
        if len(parts) + 1 < settings.accumulate and isinstance(learner, DistributedDataParallel):
            waits = learner.no_sync()
        with waits:
            inputs = in_memory_format(inputs, settings.channels_last)
            logits, labels = classify(learner, inputs, labels, device, settings.precision)
            loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
            # Parts add up to the mean over the step, and the gradients of processes are averaged.
            share = len(labels) * state.ranks.size / step_images
            (loss if share == 1 else loss * share).backward()
        parts.append(Part(loss.detach(), len(labels), (logits.argmax(1) == labels).sum()))
        if len(parts) == settings.accumulate:
            norm = nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
            metrics.add(state.step + 1, rate, parts, norm)
            state.optimizer.step()
            state.step += 1
            parts = []


def learning_rate_at(step: int, total_steps: int, peak: float, warmup: float) -> float:
    """Returns a step's learning rate: a linear rise to the peak, then half a cosine to zero."""
    rising = round(warmup * total_steps)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (1 + math.cos(math.pi * (step - rising) / (total_steps - rising))) / 2


def make_optimizer(model: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """Returns AdamW or SGD; weight decay spares parameters of one axis, norms and most biases."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, momentum = settings.learning_rate, settings.momentum
    if settings.optimizer == "adamw":
        fused = all(p.device.type in _FUSED and p.is_floating_point() for p in parameters)
        return torch.optim.AdamW(groups, lr=rate, fused=fused)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)
