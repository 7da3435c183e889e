"""Loss, accuracy and speed of an epoch: read from the device at intervals, and shown."""

import math
import time
from collections.abc import Iterable
from itertools import starmap
from operator import mul
from typing import Any, NamedTuple

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from neuroconv.core.text import Terminal, printable
from neuroconv.training.distributed import Ranks
from neuroconv.training.evaluation import to_numbers


class TrainingBar(Progress):
    """Bars of the run, of which `done` steps were taken before, and of a phase of its epoch on a
    terminal; elsewhere a line per epoch."""

    def __init__(self, title: str, *, epochs: int, steps: int, done: int, shown: bool) -> None:
        console = Terminal(stderr=True, quiet=not shown)
        super().__init__(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}"), TimeRemainingColumn(), TextColumn("left"),
            console=console, disable=not (shown and console.is_terminal), transient=True,
        )  # fmt: skip
        self._title, self._epochs = title, epochs
        self._run = self.add_task(printable(title), total=steps, completed=done, numbers="")
        self._phase = self.add_task("", visible=False, numbers="")

    def show(self, phase: str, done: int, total: int) -> None:
        """Shows how many steps or batches of a phase, such as "validation", are done."""
        if self.tasks[self._phase].description != phase:
            self.reset(self._phase, description=phase, numbers="", visible=True)
        self.update(self._phase, completed=done, total=total)

    def step(self, epoch: int, means: dict[str, float], rate: float, steps: int = 1) -> None:
        """Advances both bars and shows the epoch's means and images per second so far."""
        numbers = f"{_text(means)}  {rate:,.0f} images/s"
        self.update(self._run, advance=steps, numbers=f"epoch {epoch}/{self._epochs}")
        self.update(self._phase, advance=steps, numbers=numbers)

    def epoch(self, record: dict[str, Any]) -> None:
        """Prints a finished epoch's line, from its line of metrics.jsonl."""
        left = (self._epochs - record["epoch"]) * record["seconds"]
        train, val = (
            {key.removeprefix(split): record[key] for key in record if key.startswith(split)}
            for split in ("train_", "val_")
        )
        self._print(
            f"{self._title}  epoch {record['epoch']}/{self._epochs}  {_text(train)}"
            f"  validation {' '.join(starmap(_number, val.items()))}"
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


def _text(means: dict[str, float]) -> str:
    return "  ".join(f"{name} {_number(name, mean)}" for name, mean in means.items())


def _number(name: str, mean: float) -> str:
    if name == "accuracy":
        return f"{mean:.1%}"
    return f"{mean:.3f}" if abs(mean) > 1e-3 else f"{mean:.3g}"


class Problem(NamedTuple):
    """A step (from 1) whose loss or gradient is not finite, and the images of its batch."""

    step: int
    text: str
    indices: list[int]


class EpochMetrics:
    """Sums of the loss and of a task's measures over an epoch (from 1), shown by the bar.

    `sums` are those of a part of the epoch that was trained before, as the method returns them.
    """

    def __init__(
        self, epoch: int, measures: Iterable[str], interval: int, bar: TrainingBar, ranks: Ranks,
        sums: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.epoch, self.bar, self.ranks = epoch, bar, ranks
        self.interval = interval
        self.pending: list[tuple[int, float, Tensor, list[int], list[int]]] = []
        self.images, self.learning_rate, self.seconds = 0, 0.0, 0.0
        vars(self).update(sums or {})
        before = sums["totals"] if sums else {}
        self.totals = {name: before.get(name, 0.0) for name in ("loss", *measures)}
        self.start = time.perf_counter() - self.seconds

    def add(
        self, number: int, rate: float, numbers: Tensor, images: list[int], indices: list[int]
    ) -> Problem | None:
        """Adds what a `Step` returned at a learning rate; reads the pending steps at intervals."""
        self.pending.append((number, rate, numbers, images, indices))
        return self.read() if len(self.pending) == self.interval else None

    def read(self) -> Problem | None:
        """Reads the pending steps; returns the first whose loss or norm is not finite."""
        steps, self.pending = self.pending, []
        rows = to_numbers([numbers for _, _, numbers, _, _ in steps])
        for (number, rate, _, images, indices), (*numbers, norm) in zip(steps, rows, strict=True):
            losses, *sums = [numbers[i :: len(self.totals)] for i in range(len(self.totals))]
            loss = sum(map(mul, losses, images))
            if not math.isfinite(loss + norm):
                mean = loss / sum(images)
                text = f"loss {mean:.4g}, gradient norm {norm:.4g}, learning rate {rate:.3g}"
                return Problem(number, text, indices)
            for name, total in zip(self.totals, (loss, *map(sum, sums)), strict=True):
                self.totals[name] += total
            self.images += sum(images)
            self.learning_rate = rate
        self.seconds = time.perf_counter() - self.start
        if steps:
            means = {name: total / self.images for name, total in self.totals.items()}
            rate = self.images * self.ranks.size / self.seconds
            self.bar.step(self.epoch, means, rate, len(steps))
        return None

    def sums(self) -> dict[str, Any]:
        """Returns the sums over the steps that were read, of this process."""
        keys = ("totals", "images", "learning_rate", "seconds")
        return {key: getattr(self, key) for key in keys}

    def record(self) -> dict[str, float]:
        """Returns the epoch's line of metrics.jsonl, of all processes, without validation."""
        *totals, images = self.ranks.total(*self.totals.values(), self.images)
        means = {f"train_{k}": total / images for k, total in zip(self.totals, totals, strict=True)}
        seconds = self.ranks.gather(self.seconds)[0]
        return {
            "epoch": self.epoch, **means, "learning_rate": self.learning_rate,
            "images_per_second": images / seconds, "seconds": seconds,
        }  # fmt: skip
