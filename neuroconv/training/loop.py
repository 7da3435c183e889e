"""The training loop, for any nn.Module and any map-style data set of (input, label).

Every epoch starts from random numbers that are a function of (seed, epoch) alone and ends with a
checkpoint, so that a run that was killed continues as if it had not been: on the CPU, to the bit.
"""

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from neuroconv.training.activity import ActivityMonitor
from neuroconv.training.batches import classify, epoch_batches, length, load
from neuroconv.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    save_weights,
    write_text,
)
from neuroconv.training.config import ConfigError, TrainConfig
from neuroconv.training.progress import TrainingBar

CHECKPOINT, METRICS, BEST, LAST = (
    "checkpoint.pt",
    "metrics.jsonl",
    "best.safetensors",
    "last.safetensors",
)


@dataclass(frozen=True)
class Score:
    """Mean cross entropy and share of right answers over a data set."""

    loss: float
    accuracy: float
    images: int


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
    optimizer: Literal["adamw", "sgd"] = "adamw",
    weight_decay: float = 1e-2,
    momentum: float = 0.9,
    warmup: float = 0.15,
    clip: float = 1.0,
    label_smoothing: float = 0.0,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    max_steps: int | None = None,
    seed: int = 0,
    workers: int = 0,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainResult:
    """Train a model, select its best epoch on validation data, and meet the test data once.

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
        epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, optimizer=optimizer,
        weight_decay=weight_decay, momentum=momentum, warmup=warmup, clip=clip,
        label_smoothing=label_smoothing, precision=precision, device=device, max_steps=max_steps,
        seeds=(seed,),
    )  # fmt: skip
    size = length(train_data, "train_data")
    length(val_data, "val_data")
    if test_data is not None:
        length(test_data, "test_data")
    place = choose_device(device)
    updater = make_optimizer(model.to(place), settings)
    total_steps = epochs * max(1, size // batch_size)
    last_step = min(total_steps, max_steps or total_steps)
    state = _State(model, updater, settings, total_steps)
    folder = None if run_dir is None else Path(run_dir)
    if folder is not None:
        state.open(folder, resume)

    def score(data: Dataset[Any], monitor: ActivityMonitor | None = None) -> Score:
        return evaluate_model(
            model, data, batch_size=batch_size, device=device, precision=precision,
            workers=workers, monitor=monitor,
        )  # fmt: skip

    title = folder.name if folder else type(model).__name__
    bar = TrainingBar(title, epochs=epochs, steps=last_step, done=state.step, shown=progress)
    try:
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), bar:
            while state.step < last_step:
                epoch = len(state.history)
                batches = epoch_batches(train_data, size, batch_size, seed, epoch)
                batches = batches[: last_step - state.step]
                record = _train_epoch(state, load(train_data, batches, workers, place), bar)
                with ActivityMonitor(model) as monitor:
                    val = score(val_data, monitor)
                state.finish_epoch(record, val, monitor.summary())
                if folder is not None:
                    state.save(folder)
                bar.epoch(state.history[-1])
            if folder is not None:
                save_weights(model, folder / LAST)
            model.load_state_dict(state.best_weights)
            test = None if test_data is None else score(test_data)
    except KeyboardInterrupt:
        way_on = f"; continue with: neuroconv resume {folder}" if folder else ""
        done = len(state.history)
        raise KeyboardInterrupt(
            f"interrupted with {done} epoch{'' if done == 1 else 's'} finished{way_on}"
        ) from None
    model.eval()
    if folder is not None:
        save_weights(model, folder / BEST)
        final = {} if test is None else {f"test_{k}": v for k, v in asdict(test).items()}
        write_lines(folder / METRICS, [*state.history, {"best_epoch": state.best_epoch, **final}])
    return TrainResult(state.history, state.best_epoch, state.best, test, state.step)


def _train_epoch(
    state: "_State", batches: Iterator[tuple[Tensor, Tensor]], bar: TrainingBar
) -> dict[str, Any]:
    """One epoch of steps; returns its record, without validation."""
    model, settings, place = state.model, state.settings, next(state.model.parameters()).device
    epoch = len(state.history) + 1
    model.train()
    start, loss_sum, right, images = time.perf_counter(), 0.0, 0, 0
    for inputs, labels in batches:
        rate = learning_rate_at(
            state.step, state.total_steps, settings.learning_rate, settings.warmup
        )
        for group in state.updater.param_groups:
            group["lr"] = rate
        logits, labels = classify(model, inputs, labels, place, settings.precision)
        loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        state.updater.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip).item()
        if not math.isfinite(loss.item() + norm):
            raise FloatingPointError(
                f"epoch {epoch}, step {state.step + 1}: loss {loss.item():.4g}, gradient norm "
                f"{norm:.4g} at learning rate {rate:.3g}: lower the learning rate, lengthen the "
                "warm-up, or look for inputs that are not finite"
            )
        state.updater.step()
        state.step += 1
        images += len(labels)
        loss_sum += loss.item() * len(labels)
        right += int((logits.argmax(1) == labels).sum())
        seconds = time.perf_counter() - start
        bar.step(epoch, loss_sum / images, right / images, images / seconds)
    return {
        "epoch": epoch,
        "train_loss": loss_sum / images,
        "train_accuracy": right / images,
        "learning_rate": rate,
        "images_per_second": images / seconds,
        "seconds": seconds,
    }


def evaluate_model(
    model: nn.Module,
    data: Dataset[Any],
    *,
    batch_size: int = 128,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    monitor: ActivityMonitor | None = None,
) -> Score:
    """Score a model on a whole data set; the model is left in eval mode.

    A monitor is told each batch's logits and labels, for what the climbing fibres would carry.
    """
    place = choose_device(device)
    indices = torch.arange(length(data, "data")).split(batch_size)
    model.to(place).eval()
    loss, right, images = 0.0, 0, 0
    with torch.inference_mode():
        for inputs, labels in load(data, [batch.tolist() for batch in indices], workers, place):
            logits, labels = classify(model, inputs, labels, place, precision)
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            if monitor is not None:
                monitor.errors(logits, labels)
            right += int((logits.argmax(1) == labels).sum())
            images += len(labels)
    return Score(loss / images, right / images, images)


def learning_rate_at(step: int, total_steps: int, peak: float, warmup: float) -> float:
    """A step's learning rate: a linear rise to the peak, then half a cosine to zero."""
    rising = round(warmup * total_steps)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (1 + math.cos(math.pi * (step - rising) / (total_steps - rising))) / 2


def make_optimizer(model: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over the trainable parameters; those of one axis (norms, most biases) do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)  # a device that torch knows may still be absent
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f'device = {name!r}: {reason}; expected "auto", "cpu" or "cuda"'
        ) from None
    return device


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """Write records as JSON lines, in one step."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


@dataclass
class _State:
    """Everything that changes during a run, and its way to and from the checkpoint."""

    model: nn.Module
    updater: torch.optim.Optimizer
    settings: TrainConfig
    total_steps: int
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best: Score = Score(math.inf, -1.0, 0)
    best_weights: dict[str, Any] = field(default_factory=dict)

    def finish_epoch(
        self, record: dict[str, Any], val: Score, activity: dict[str, dict[str, float]]
    ) -> None:
        """Add an epoch to the history, and keep its weights if they are the best so far."""
        scores = {"val_loss": val.loss, "val_accuracy": val.accuracy}
        self.history.append({**record, **scores, **({"activity": activity} if activity else {})})
        if (val.accuracy, -val.loss) > (self.best.accuracy, -self.best.loss):
            self.best, self.best_epoch = val, record["epoch"]
            self.best_weights = copy.deepcopy(self.model.state_dict())

    def save(self, folder: Path) -> None:
        """One atomic checkpoint; metrics.jsonl follows it and can always be written again."""
        save_checkpoint(folder / CHECKPOINT, {
            "settings": _identity(self.settings), "step": self.step, "history": self.history,
            "model": self.model.state_dict(), "optimizer": self.updater.state_dict(),
            "best": asdict(self.best), "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        })  # fmt: skip
        write_lines(folder / METRICS, self.history)

    def open(self, folder: Path, resume: bool) -> None:
        """Make the run folder or, to resume, take the state of its checkpoint if it has one."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / CHECKPOINT
        if not path.exists():
            return
        if not resume:
            raise ValueError(f"{path} exists: pass resume=True to continue it, or another run_dir")
        saved = load_checkpoint(path)
        for key, value in _identity(self.settings).items():
            if saved["settings"].get(key) != value:
                raise CheckpointError(
                    f"{path} was made with {key} = {saved['settings'].get(key)!r}, not {value!r}: "
                    "resume with the same settings"
                )
        try:
            self.model.load_state_dict(saved["model"])
            self.updater.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} belongs to another model: {error}") from error
        self.step, self.history = saved["step"], saved["history"]
        self.best, self.best_epoch = Score(**saved["best"]), saved["best_epoch"]
        self.best_weights = saved["best_weights"]


def _identity(settings: TrainConfig) -> dict[str, Any]:
    """The settings that decide the weights, as a checkpoint holds them."""
    kept = {
        key: value for key, value in asdict(settings).items() if key not in ("output", "device")
    }
    return {**kept, "seeds": list(settings.seeds)}
