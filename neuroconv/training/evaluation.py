"""The score of a model on a data set."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from neuroconv.training.activity import ActivityMonitor
from neuroconv.training.batches import classify, length, load
from neuroconv.training.device import choose_device, float32_arithmetic
from neuroconv.training.distributed import Ranks


@dataclass(frozen=True)
class Score:
    """Mean cross entropy and share of right answers over a data set."""

    loss: float
    accuracy: float
    images: int


def evaluate_model(
    model: nn.Module,
    data: Dataset[Any],
    *,
    batch_size: int = 128,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    channels_last: bool = False,
    monitor: ActivityMonitor | None = None,
    runner: nn.Module | None = None,
    ranks: Ranks | None = None,
) -> Score:
    """Score a model on a whole data set; the model is left in eval mode.

    Args:
        model, data: as for `train`.
        batch_size, device, precision, workers, channels_last: as in `TrainConfig`.
        monitor: is told each batch's logits and labels, for what climbing fibres would carry.
        runner: the model as torch.compile runs it.
        ranks: the processes that share the work; all of them must call this.
    """
    place, ranks = choose_device(device), ranks or Ranks()
    indices = torch.arange(length(data, "data")).split(batch_size)
    shares = [share for batch in indices if (share := ranks.share(batch.tolist()))]
    model.to(place).eval()
    losses: list[Tensor] = []
    right: list[Tensor] = []
    images = 0
    with torch.inference_mode(), float32_arithmetic(precision, place):
        for inputs, labels in load(data, shares, workers, place):
            # Only one shape is compiled, and not before the monitor's sums have their shapes.
            ready = runner is not None and losses and len(inputs) == len(shares[0])
            logits, labels = classify(
                runner if runner is not None and ready else model,
                in_memory_format(inputs, channels_last),
                labels, place, precision,
            )  # fmt: skip
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
            right.append((logits.argmax(1) == labels).sum())
            images += len(labels)
            if monitor is not None:
                monitor.errors(logits, labels)
    own = (sum(listed(losses)), sum(listed(right)), images)
    loss, answers, seen = ranks.total(*own)
    return Score(loss / seen, answers / seen, int(seen))


def in_memory_format(inputs: Tensor, channels_last: bool) -> Tensor:
    """Images (B, C, H, W) with their channels last in memory, if that is asked for."""
    if channels_last and inputs.dim() == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs


def listed(numbers: list[Tensor]) -> list[Any]:
    """The numbers of scalar tensors. The device is waited for once, not for each."""
    return torch.stack(numbers).tolist() if numbers else []
