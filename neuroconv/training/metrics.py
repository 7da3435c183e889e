"""Loss, accuracy and speed of an epoch, read from the device now and then."""

import math
import time
from typing import NamedTuple

import torch
from torch import Tensor

from neuroconv.training.distributed import Ranks
from neuroconv.training.evaluation import to_numbers
from neuroconv.training.progress import TrainingBar

# On CUDA the host runs ahead of the device: to read a number at each step would stop it there.
_READ_INTERVAL = {"cuda": 32}  # steps; elsewhere every step is read


class Part(NamedTuple):
    """A part of a step's images: their mean loss, their number, and the right answers."""

    loss: Tensor
    images: int
    correct: Tensor


class EpochMetrics:
    """Sums over the steps of an epoch (from 1), shown by the bar, and the watch on their numbers.

    Losses and norms of gradients have to be finite.
    """

    def __init__(self, epoch: int, device: torch.device, bar: TrainingBar, ranks: Ranks) -> None:
        self.epoch, self.bar, self.ranks = epoch, bar, ranks
        self.interval = _READ_INTERVAL.get(device.type, 1)
        self.pending: list[tuple[int, float, list[Part], Tensor]] = []
        self.loss, self.correct, self.images, self.learning_rate = 0.0, 0, 0, 0.0
        self.start = time.perf_counter()
        self.seconds = 0.0

    def add(self, number: int, learning_rate: float, parts: list[Part], norm: Tensor) -> None:
        """Adds a step with the norm of its gradient.

        Raises:
            FloatingPointError: a number of this step, or of one of the last few, is not finite.
        """
        self.pending.append((number, learning_rate, parts, norm))
        if len(self.pending) == self.interval:
            self.read()

    def read(self) -> None:
        """Reads the pending steps; FloatingPointError if a number of theirs is not finite."""
        steps, self.pending = self.pending, []
        all_parts = [part for _, _, parts, _ in steps for part in parts]
        losses = iter(to_numbers([part.loss for part in all_parts]))
        norms = to_numbers([norm for *_, norm in steps])
        for (number, rate, parts, _), norm in zip(steps, norms, strict=True):
            loss = sum(next(losses) * part.images for part in parts)
            images = sum(part.images for part in parts)
            if not math.isfinite(loss + norm):
                raise FloatingPointError(
                    f"epoch {self.epoch}, step {number}: loss {loss / images:.4g}, gradient "
                    f"norm {norm:.4g} at learning rate {rate:.3g}: lower the "
                    "learning rate, lengthen the warm-up, or look for inputs that are not finite"
                )
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

    def record(self) -> dict[str, float]:
        """Returns the epoch's line of metrics.jsonl, of all processes, without validation."""
        self.read()
        loss, correct, images = self.ranks.total(self.loss, self.correct, self.images)
        seconds = self.ranks.gather(self.seconds)[0]
        return {
            "epoch": self.epoch,
            "train_loss": loss / images,
            "train_accuracy": correct / images,
            "learning_rate": self.learning_rate,
            "images_per_second": images / seconds,
            "seconds": seconds,
        }
