"""The training loop, for any nn.Module and any map-style data set of (input, label).

Every epoch starts from random numbers that are a function of (seed, epoch) alone and ends with a
checkpoint, so that a run that was killed continues as if it had not been: on the CPU, to the bit.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from neuroconv.training.activity import ActivityMonitor
from neuroconv.training.batches import classify, epoch_batches, length, load
from neuroconv.training.checkpoint import save_weights
from neuroconv.training.compiling import check_compiler, compiled
from neuroconv.training.config import TrainConfig
from neuroconv.training.device import arithmetic_of, choose_device, float32_arithmetic
from neuroconv.training.distributed import Ranks, check_own_device, data_parallel
from neuroconv.training.evaluation import Score, evaluate_model, in_memory_format
from neuroconv.training.optimizer import learning_rate_at, make_optimizer
from neuroconv.training.progress import TrainingBar
from neuroconv.training.state import BEST, LAST, METRICS, State, write_lines
from neuroconv.training.sync_norm import synchronised_norms
from neuroconv.training.tally import Tally


@dataclass(frozen=True)
class TrainResult:
    """What a training run leaves; the model itself holds the best weights, in eval mode.

    Attributes:
        history: one record per epoch, the lines of metrics.jsonl. `seconds` is the time of the
            epoch's training steps with their data, without validation. `activity` holds, by
            population, the firing rates and the sparsity that the validation images met, see
            `ActivityMonitor`; a model without neurons has none.
        best_epoch: the epoch of highest validation accuracy (of equals, of lower loss), from 1.
        val: its validation score.
        test: its test score; None without test data.
        steps: optimiser steps taken.
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
    epochs: int = 10,
    learning_rate: float = 3e-3,
    batch_size: int = 128,
    accumulate: int = 1,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    weight_decay: float = 1e-2,
    momentum: float = 0.9,
    warmup: float = 0.15,
    clip: float = 1.0,
    label_smoothing: float = 0.0,
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto",
    compile: bool = False,
    channels_last: bool = False,
    device: str = "auto",
    max_steps: int | None = None,
    seed: int = 0,
    workers: int = 0,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainResult:
    """Train a model, select its best epoch on validation data, and meet the test data once.

    Where torch.distributed has a process group, its processes train together: all call this with
    the same arguments and have the same result, and rank 0 alone shows and writes.

    Args:
        model: maps a batch of inputs to logits (B, classes). Trained in place.
        train_data, val_data, test_data: map-style; `data[i]` is (input, integer label). If the
            training data has `set_epoch(epoch)`, it is called before each epoch, from 0.
        epochs ... max_steps: as in `TrainConfig`. An epoch is the full batches of a permutation;
            data smaller than a batch is one batch.
        seed: of the order of the images and of the model's own draws (dropout). The caller's
            random numbers are left as they were.
        workers: processes that load data.
        run_dir: folder for metrics.jsonl, the checkpoint and the weights (best.safetensors,
            last.safetensors); None writes nothing.
        resume: continue from the folder's checkpoint, or from the start if it has none.
        progress: show a bar, or one line an epoch where there is no terminal.

    Raises:
        ValueError: for a setting out of range, empty data, labels that do not fit the logits.
        FloatingPointError: when the loss or the gradient is no longer finite.
    """
    settings = TrainConfig(
        epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, accumulate=accumulate,
        optimizer=optimizer, weight_decay=weight_decay, momentum=momentum, warmup=warmup, clip=clip,
        label_smoothing=label_smoothing, precision=precision, compile=compile,
        channels_last=channels_last, device=device, max_steps=max_steps, seeds=(seed,),
    )  # fmt: skip
    size = length(train_data, "train_data")
    length(val_data, "val_data")
    if test_data is not None:
        length(test_data, "test_data")
    ranks, place = Ranks.current(), check_place(settings, size)
    model.to(place)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    total_steps = epochs * max(1, size // batch_size)
    last_step = min(total_steps, max_steps or total_steps)
    updater = make_optimizer(model, settings)
    state = State(model, updater, settings, total_steps, ranks)
    folder = None if run_dir is None else Path(run_dir)
    if folder is not None:
        state.open(folder, resume)

    title = folder.name if folder else type(model).__name__
    shown = progress and ranks.leads
    bar = TrainingBar(title, epochs=epochs, steps=last_step, done=state.step, shown=shown)
    try:
        with (
            torch.random.fork_rng(devices=[place] if place.type == "cuda" else []),
            float32_arithmetic(precision, place),
            synchronised_norms(model, ranks, place),
            bar,
        ):
            runner = compiled(model) if compile else None
            learner = data_parallel(model if runner is None else runner, ranks)

            def score(data: Dataset[Any]) -> tuple[Score, dict[str, dict[str, float]]]:
                # Always watched: torch.compile would run what it made without the hooks.
                with ActivityMonitor(model) as monitor:
                    result = evaluate_model(
                        model, data, batch_size=batch_size // accumulate, device=device,
                        precision=precision, workers=workers, channels_last=channels_last,
                        monitor=monitor, runner=runner, ranks=ranks,
                    )  # fmt: skip
                monitor.join(ranks)
                return result, monitor.summary()

            while state.step < last_step:
                epoch = len(state.history)
                batches = epoch_batches(train_data, size, batch_size, seed, epoch)
                if ranks.size > 1:
                    torch.manual_seed(_seed_of_draws(seed, epoch, ranks.rank))
                parts = [
                    ranks.share(part)
                    for batch in batches[: last_step - state.step]
                    for part in _parts(batch, accumulate)
                ]
                tally = Tally(epoch + 1, place, bar, ranks)
                stream = load(train_data, parts, workers, place)
                record = _train_epoch(state, learner, min(size, batch_size), stream, tally)
                state.finish_epoch(record, *score(val_data))
                if folder is not None:
                    state.save(folder)
                bar.epoch(state.history[-1])
            if folder is not None:
                ranks.first(lambda: save_weights(model, folder / LAST))
            model.load_state_dict(state.best_weights)
            test = None if test_data is None else score(test_data)[0]
    except KeyboardInterrupt:
        way_on = f"; continue with: neuroconv resume {folder}" if folder else ""
        done = len(state.history)
        raise KeyboardInterrupt(
            f"interrupted with {done} epoch{'' if done == 1 else 's'} finished{way_on}"
        ) from None
    model.eval()
    if folder is not None:
        final = {} if test is None else {f"test_{k}": v for k, v in asdict(test).items()}
        lines = [*state.history, {"best_epoch": state.best_epoch, **final}]
        ranks.first(lambda: save_weights(model, folder / BEST))
        ranks.first(lambda: write_lines(folder / METRICS, lines))
    return TrainResult(state.history, state.best_epoch, state.best, test, state.step)


def check_place(settings: TrainConfig, images: int) -> torch.device:
    """The device of a training on so many images, where all that its settings ask for can be had.

    Raises:
        ConfigError: a device, an arithmetic or a compiler that is not there, or processes that do
            not divide a batch.
    """
    place = choose_device(settings.device)
    Ranks.current().check_shares(images, settings.batch_size, settings.accumulate)
    check_own_device(place)
    arithmetic_of(settings.precision, place)
    if settings.compile:
        check_compiler(place)
    return place


def _train_epoch(
    state: State,
    learner: nn.Module,
    images: int,
    parts: Iterator[tuple[Tensor, Tensor]],
    tally: Tally,
) -> dict[str, Any]:
    """One epoch of steps of so many images; returns its record, without validation."""
    settings, place = state.settings, next(state.model.parameters()).device
    state.model.train()
    taken: list[tuple[Tensor, int, Tensor]] = []  # the parts of a step: loss, images, right answers
    for inputs, labels in parts:
        if not taken:
            rate = learning_rate_at(
                state.step, state.total_steps, settings.learning_rate, settings.warmup
            )
            for group in state.updater.param_groups:
                group["lr"] = rate
            state.updater.zero_grad()
        with _exchange(learner, at_once=len(taken) + 1 == settings.accumulate):
            inputs = in_memory_format(inputs, settings.channels_last)
            logits, labels = classify(learner, inputs, labels, place, settings.precision)
            loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
            # Parts add up to the mean over the step, and the gradients of processes are averaged.
            share = len(labels) * state.ranks.size / images
            (loss if share == 1 else loss * share).backward()
        taken.append((loss.detach(), len(labels), (logits.argmax(1) == labels).sum()))
        if len(taken) < settings.accumulate:
            continue
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
        tally.add(state.step + 1, rate, taken, norm)
        state.updater.step()
        state.step += 1
        taken = []
    return tally.record()


def _exchange(learner: nn.Module, at_once: bool) -> contextlib.AbstractContextManager[None]:
    """Gradients of several processes are exchanged after a step's last part, and not before."""
    if isinstance(learner, nn.parallel.DistributedDataParallel) and not at_once:
        return learner.no_sync()
    return contextlib.nullcontext()


def _parts(batch: list[int], count: int) -> list[list[int]]:
    """A batch in so many parts, in order; they differ by one image at most."""
    bounds = [len(batch) * part // count for part in range(count + 1)]
    return [batch[start:stop] for start, stop in pairwise(bounds)]


def _seed_of_draws(seed: int, epoch: int, rank: int) -> int:
    """Seeds what a model draws in one of several processes: no two draw the same."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])
