"""What an epoch's steps add up to, read from the device now and then."""

import math
import time
from typing import NamedTuple

import torch
from torch import Tensor

from neuroconv.training.distributed import Ranks
from neuroconv.training.evaluation import listed
from neuroconv.training.progress import TrainingBar

# On CUDA the host runs ahead of the device: to read a number at each step would stop it there.
_STEPS_BETWEEN_LOOKS = 32


class _Step(NamedTuple):
    number: int
    learning_rate: float
    losses: list[Tensor]
    images: list[int]  # of each part
    right: list[Tensor]
    norm: Tensor


class Tally:
    """Loss, right answers and speed of an epoch, and the watch that its numbers are finite.

    Args:
        epoch: its number, from 1.
        device: where the numbers are; on the CPU every step is looked at.
        bar: shows them.
        ranks: the processes that train.
    """

    def __init__(self, epoch: int, device: torch.device, bar: TrainingBar, ranks: Ranks) -> None:
        self.epoch, self.bar, self.ranks = epoch, bar, ranks
        self.every = _STEPS_BETWEEN_LOOKS if device.type == "cuda" else 1
        self.waiting: list[_Step] = []
        self.loss, self.right, self.images, self.rate = 0.0, 0, 0, 0.0
        self.start = time.perf_counter()
        self.seconds = 0.0

    def add(
        self,
        number: int,
        learning_rate: float,
        parts: list[tuple[Tensor, int, Tensor]],
        norm: Tensor,
    ) -> None:
        """Take a step: of its parts the mean loss, the images and the right answers.

        Raises:
            FloatingPointError: a number of this step, or of one of the last few, is not finite.
        """
        losses, images, right = map(list, zip(*parts, strict=True))
        self.waiting.append(_Step(number, learning_rate, losses, images, right, norm))
        if len(self.waiting) == self.every:
            self.look()

    def look(self) -> None:
        """Read the steps that wait; FloatingPointError if one of them is not finite."""
        steps, self.waiting = self.waiting, []
        losses = iter(listed([loss for step in steps for loss in step.losses]))
        norms = listed([step.norm for step in steps])
        for step, norm in zip(steps, norms, strict=True):
            loss = sum(next(losses) * images for images in step.images)
            images = sum(step.images)
            if not math.isfinite(loss + norm):
                raise FloatingPointError(
                    f"epoch {self.epoch}, step {step.number}: loss {loss / images:.4g}, gradient "
                    f"norm {norm:.4g} at learning rate {step.learning_rate:.3g}: lower the "
                    "learning rate, lengthen the warm-up, or look for inputs that are not finite"
                )
            self.loss, self.images, self.rate = (
                self.loss + loss,
                self.images + images,
                step.learning_rate,
            )
        self.right += sum(listed([right for step in steps for right in step.right]))
        self.seconds = time.perf_counter() - self.start
        if steps:
            self.bar.step(
                self.epoch, self.loss / self.images, self.right / self.images,
                self.images * self.ranks.size / self.seconds, len(steps),
            )  # fmt: skip

    def record(self) -> dict[str, float]:
        """The epoch's line of metrics.jsonl, of all processes, without validation."""
        self.look()
        loss, right, images = self.ranks.total(self.loss, self.right, self.images)
        seconds = self.ranks.gather(self.seconds)[0]
        return {
            "epoch": self.epoch,
            "train_loss": loss / images,
            "train_accuracy": right / images,
            "learning_rate": self.rate,
            "images_per_second": images / seconds,
            "seconds": seconds,
        }
