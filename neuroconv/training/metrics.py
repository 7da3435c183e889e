"""Loss, accuracy and speed of an epoch: read from the device at intervals, and shown."""

import math
import time
from typing import Any, NamedTuple

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from neuroconv.core.text import Terminal, printable
from neuroconv.training.distributed import Ranks
from neuroconv.training.evaluation import to_numbers


class TrainingBar(Progress):
    """A bar on a terminal, one line per epoch elsewhere; `done` steps were taken before."""

    def __init__(self, title: str, *, epochs: int, steps: int, done: int, shown: bool) -> None:
        console = Terminal(stderr=True, quiet=not shown)
        super().__init__(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}"), TimeRemainingColumn(), TextColumn("left"),
            console=console, disable=not (shown and console.is_terminal), transient=True,
        )  # fmt: skip
        self._title, self._epochs = title, epochs
        self._task = self.add_task(printable(title), total=steps, completed=done, numbers="")

    def step(self, epoch: int, loss: float, accuracy: float, rate: float, steps: int = 1) -> None:
        """Advances the bar and shows the epoch's loss, accuracy and images per second so far."""
        progress = f"epoch {epoch}/{self._epochs}"
        numbers = f"{progress}  loss {loss:.3f}  {accuracy:.1%}  {rate:,.0f} images/s"
        self.update(self._task, advance=steps, numbers=numbers)

    def epoch(self, record: dict[str, Any]) -> None:
        """Prints a finished epoch's line, from its line of metrics.jsonl."""
        left = (self._epochs - record["epoch"]) * record["seconds"]
        self._print(
            f"{self._title}  epoch {record['epoch']}/{self._epochs}"
            f"  loss {record['train_loss']:.3f}  accuracy {record['train_accuracy']:.1%}"
            f"  validation {record['val_loss']:.3f} {record['val_accuracy']:.1%}"
            f"  {record['images_per_second']:,.0f} images/s  {left:,.0f} s left"
        )
        shares = [
            f"{path or 'neurons'} {activity['active_share']:.0%}"
            for path, activity in record.get("activity", {}).items()
            if "active_share" in activity
        ]
        if shares:
            self._print(f"    active: {', '.join(shares)}")

    def _print(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)


class Part(NamedTuple):
    """A part of a step's images, with their mean loss and the number of correct answers."""

    loss: Tensor
    images: int
    correct: Tensor
    indices: list[int]  # in the training data


class Problem(NamedTuple):
    """A step (from 1) whose loss or gradient is not finite, and the images of its batch."""

    step: int
    text: str
    indices: list[int]


class EpochMetrics:
    """Loss, correct answers and images of an epoch (from 1), shown by the bar.

    `sums` are those of a part of the epoch that was trained before, as the method returns them.
    """

    def __init__(
        self, epoch: int, interval: int, bar: TrainingBar, ranks: Ranks,
        sums: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.epoch, self.bar, self.ranks = epoch, bar, ranks
        self.interval = interval
        self.pending: list[tuple[int, float, list[Part], Tensor]] = []
        self.loss, self.correct, self.images, self.learning_rate = 0.0, 0, 0, 0.0
        self.seconds = 0.0
        vars(self).update(sums or {})
        self.start = time.perf_counter() - self.seconds

    def add(
        self, number: int, learning_rate: float, parts: list[Part], norm: Tensor
    ) -> Problem | None:
        """Adds a step with the norm of its gradient; reads the pending steps at intervals."""
        self.pending.append((number, learning_rate, parts, norm))
        return self.read() if len(self.pending) == self.interval else None

    def read(self) -> Problem | None:
        """Reads the pending steps; returns the first whose loss or norm is not finite."""
        steps, self.pending = self.pending, []
        all_parts = [part for _, _, parts, _ in steps for part in parts]
        losses = iter(to_numbers([part.loss for part in all_parts]))
        norms = to_numbers([norm for *_, norm in steps])
        for (number, rate, parts, _), norm in zip(steps, norms, strict=True):
            loss = sum(next(losses) * part.images for part in parts)
            images = sum(part.images for part in parts)
            if not math.isfinite(loss + norm):
                text = (
                    f"loss {loss / images:.4g}, gradient norm {norm:.4g}, learning rate {rate:.3g}"
                )
                return Problem(number, text, [i for part in parts for i in part.indices])
            self.loss += loss
            self.images += images
            self.learning_rate = rate
        self.correct += sum(to_numbers([part.correct for part in all_parts]))
        self.seconds = time.perf_counter() - self.start
        if steps:
            self.bar.step(
                self.epoch, self.loss / self.images, self.correct / self.images,
                self.images * self.ranks.size / self.seconds, len(steps),
            )  # fmt: skip
        return None

    def sums(self) -> dict[str, Any]:
        """Returns the sums over the steps that were read, of this process."""
        keys = ("loss", "correct", "images", "learning_rate", "seconds")
        return {key: getattr(self, key) for key in keys}

    def record(self) -> dict[str, float]:
        """Returns the epoch's line of metrics.jsonl, of all processes, without validation."""
        loss, correct, images = self.ranks.total(self.loss, self.correct, self.images)
        seconds = self.ranks.gather(self.seconds)[0]
        return {
            "epoch": self.epoch, "train_loss": loss / images, "train_accuracy": correct / images,
            "learning_rate": self.learning_rate, "images_per_second": images / seconds,
            "seconds": seconds,
        }  # fmt: skip
