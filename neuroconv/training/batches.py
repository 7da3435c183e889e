"""From a map-style data set to checked batches on a device."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


def length(data: Dataset[Any], role: str) -> int:
    """Length of a map-style data set; TypeError or ValueError if it is not one, or is empty."""
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(
            f"{role} is a {type(data).__name__}: expected a map-style data set of (input, label), "
            "with __len__ and __getitem__"
        )
    if len(data) == 0:
        raise ValueError(f"{role} is empty: expected at least one (input, label)")
    return len(data)


def epoch_batches(
    data: Dataset[Any], size: int, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Start an epoch: seed torch from (seed, epoch) alone and return its full batches of indices.

    What remains beside the full batches is left for another epoch's order; data smaller than a
    batch is one batch.
    """
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
    set_epoch = getattr(data, "set_epoch", None)
    if set_epoch is not None:
        set_epoch(epoch)
    order = torch.randperm(size)
    full = order[: max(1, size // batch_size) * batch_size]
    return [batch.tolist() for batch in full.split(batch_size)]


def load(
    data: Dataset[Any], batches: Sequence[list[int]], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The given batches as inputs on the device and labels (still on the CPU, to be checked)."""
    loader: DataLoader[Any] = DataLoader(
        data, batch_sampler=batches, num_workers=workers, pin_memory=device.type == "cuda"
    )
    for batch in loader:
        if len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
            raise TypeError("data[i] must be (input tensor, integer label)")
        inputs, labels = batch
        yield inputs.to(device, non_blocking=True), labels


def classify(
    model: nn.Module, inputs: Tensor, labels: Tensor, device: torch.device, precision: str
) -> tuple[Tensor, Tensor]:
    """Logits (B, classes) in float32 or float64, and the labels (B,) on the device, both checked.

    Raises:
        ValueError: for logits of another shape, and for labels that name none of them.
    """
    half = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        logits: Tensor = model(inputs)
    if logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(
            f"the model maps inputs {tuple(inputs.shape)} to {tuple(logits.shape)}: "
            f"expected logits ({len(labels)}, classes)"
        )
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}, {labels.dtype}: expected one integer per input"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(
            f"label {low if low < 0 else high}: the model has {logits.shape[1]} logits, expected "
            f"labels 0 to {logits.shape[1] - 1}: build it for more classes, or renumber the labels"
        )
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return exact, labels.long().to(device, non_blocking=True)
