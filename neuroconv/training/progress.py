"""The progress of a training run: a bar on a terminal, one line an epoch anywhere else."""

from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from neuroconv.training.activity import active_shares


class TrainingBar:
    """Epoch, loss, accuracy, images per second and time left, on standard error.

    Args:
        done: steps of a resumed run that were taken before.
        shown: False for silence.
    """

    def __init__(self, title: str, *, epochs: int, steps: int, done: int, shown: bool) -> None:
        self._console = Console(stderr=True, quiet=not shown, highlight=False)
        self._title, self._epochs = title, epochs
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}"), TimeRemainingColumn(), TextColumn("left"),
        )  # fmt: skip
        silent = not (shown and self._console.is_terminal)
        self._progress = Progress(*columns, console=self._console, disable=silent, transient=True)
        self._task = self._progress.add_task(title, total=steps, completed=done, numbers="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, epoch: int, loss: float, accuracy: float, rate: float, steps: int = 1) -> None:
        """Advances the bar, by the epoch's loss and accuracy so far and its images per second."""
        numbers = (
            f"epoch {epoch}/{self._epochs}  loss {loss:.3f}  {accuracy:.1%}  {rate:,.0f} images/s"
        )
        self._progress.update(self._task, advance=steps, numbers=numbers)

    def epoch(self, record: dict[str, Any]) -> None:
        """Prints a finished epoch's line, from its line of metrics.jsonl."""
        left = (self._epochs - record["epoch"]) * record["seconds"]
        self._console.print(
            f"{self._title}  epoch {record['epoch']}/{self._epochs}"
            f"  loss {record['train_loss']:.3f}  accuracy {record['train_accuracy']:.1%}"
            f"  validation {record['val_loss']:.3f} {record['val_accuracy']:.1%}"
            f"  {record['images_per_second']:,.0f} images/s  {left:,.0f} s left",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        active = active_shares(record.get("activity", {}))
        if active:
            self._console.print(f"    {active}", markup=False, soft_wrap=True)
