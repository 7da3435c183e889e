"""Checked batches of a map-style data set, on a device."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from neuroconv.data import DataError, Frames

_Item = TypeVar("_Item")
Batch = tuple[Tensor, Tensor]  # inputs and labels


def check_length(data: Dataset[Any], role: str) -> int:
    """Returns the length of a map-style data set; an error if it is another kind, or empty."""
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(
            f"{role} is a {type(data).__name__}: expected a map-style data set of (input, label), "
            "with __len__ and __getitem__"
        )
    if len(data) == 0:
        raise ValueError(f"{role} is empty: expected at least one (input, label)")
    return len(data)


def derived_seed(*words: int) -> int:
    """Returns a seed that is a function of integers, such as a run's seed and an epoch."""
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def epoch_batches(
    data: Dataset[Any], size: int, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Seeds torch from (seed, epoch) alone and returns the epoch's full batches of indices.

    The remainder is left out; data smaller than a batch is one batch.
    """
    torch.manual_seed(derived_seed(seed, epoch))
    if hasattr(data, "set_epoch"):
        data.set_epoch(epoch)
    order = torch.randperm(size)
    full = order[: max(1, size // batch_size) * batch_size]
    return [batch.tolist() for batch in full.split(batch_size)]


def load(
    data: Dataset[Any], batches: Sequence[list[int]], workers: int, device: torch.device
) -> Iterator[Batch]:
    """Yields batches as inputs on the device and labels (still on the CPU, to be checked).

    `Frames` are encoded on the device, a batch at a time. Images that lie on the device are
    gathered there; others are prepared by the workers or, for CUDA, by a thread one batch ahead.
    """
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": device.type == "cuda"}
    if isinstance(data, Frames):
        yield from _load_frames(data, batches, options, device)
        return
    for batch in DataLoader(data, batch_sampler=batches, **options):
        if len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
            raise TypeError("data[i] must be (input tensor, integer label)")
        inputs, labels = batch
        yield inputs.to(device, non_blocking=True), labels


def _load_frames(
    frames: Frames, batches: Sequence[list[int]], options: dict[str, Any], device: torch.device
) -> Iterator[Batch]:
    # A cache may lack what an epoch leaves out beside its full batches.
    at_once = len(batches[0]) if batches else 0
    on_cpu: Iterable[Batch | DataError]
    if options["num_workers"] and frames.resident("cpu", at_once) is None:
        on_cpu = DataLoader(_Images(frames), batch_size=None, sampler=batches, **options)
    else:
        # What a DataLoader draws: dropout must not depend on how the data are loaded.
        torch.empty((), dtype=torch.int64).random_()
        if device.type == "cpu" or not frames.threadsafe or frames.resident(device) is not None:
            yield from (frames.batch(batch, device) for batch in batches)
            return
        on_cpu = _in_thread(frames.images, batches)
    for prepared, batch in zip(on_cpu, batches, strict=True):
        if isinstance(prepared, DataError):
            raise prepared
        images, labels = prepared
        images = images.pin_memory() if device.type == "cuda" else images
        yield frames.encode(images.to(device, non_blocking=True), batch), labels


class _Images(Dataset[Batch | DataError]):
    """Batches of images that are not encoded yet, as workers prepare them.

    A DataError is returned: raised, a DataLoader would wrap its message in a worker's traceback.
    """

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    def __getitem__(self, batch: list[int]) -> Batch | DataError:
        try:
            return self.frames.images(batch)
        except DataError as error:
            return error


def _in_thread(
    prepare: Callable[[list[int]], _Item], batches: Sequence[list[int]]
) -> Iterator[_Item]:
    """Yields prepare(batch) for each batch, prepared while the batch before is in use."""
    with ThreadPoolExecutor(1) as thread:
        futures: Iterable[Any] = (thread.submit(prepare, batch) for batch in batches)
        for future, _ in pairwise(chain(futures, (None,))):
            yield future.result()


def classify(
    model: nn.Module, inputs: Tensor, labels: Tensor, device: torch.device, precision: str
) -> Batch:
    """Returns logits (B, classes), float32 or float64, and labels (B,) on the device, checked."""
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
