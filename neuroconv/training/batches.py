"""From a map-style data set to checked batches on a device."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from neuroconv.data import Frames

_Made = TypeVar("_Made")


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
    """The given batches as inputs on the device and labels (still on the CPU, to be checked).

    Batches of `Frames` are made whole and encoded on the device. Images that lie there are gathered
    there, by no worker; images in memory that the device has no room for, and images that are
    decoded, are prepared by the workers or, without them, by a thread, one batch ahead. On the CPU
    there is no thread: the cores have enough to do.
    """
    if isinstance(data, Frames):
        yield from _load_frames(data, batches, workers, device)
        return
    loader: DataLoader[Any] = DataLoader(
        data, batch_sampler=batches, num_workers=workers, pin_memory=device.type == "cuda"
    )
    for batch in loader:
        if len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
            raise TypeError("data[i] must be (input tensor, integer label)")
        inputs, labels = batch
        yield inputs.to(device, non_blocking=True), labels


def _load_frames(
    frames: Frames, batches: Sequence[list[int]], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    # An epoch leaves out what remains beside its full batches: a cache may lack that much.
    at_once = len(batches[0]) if batches else 0
    in_memory = frames.resident("cpu", at_once) is not None
    host: Iterator[tuple[Tensor, Tensor]]
    if workers and not in_memory:
        pin = device.type == "cuda"
        host = iter(
            DataLoader(
                _Images(frames), batch_sampler=batches, num_workers=workers, pin_memory=pin,
                collate_fn=_as_it_is,
            )
        )  # fmt: skip
    else:
        # What a DataLoader draws: dropout must not depend on how the data are loaded.
        torch.empty((), dtype=torch.int64).random_()
        if frames.resident(device) is not None:
            yield from (frames.batch(batch, device) for batch in batches)
            return
        host = map(frames.images, batches)
        if device.type != "cpu" and frames.threadsafe:
            host = _one_ahead(frames.images, batches)
    for (images, labels), batch in zip(_copied(host, device), batches, strict=True):
        yield frames.encode(images, batch), labels


class _Images(Dataset[Any]):
    """What a worker makes: the images of a batch, not yet encoded, and their labels."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.frames.images(indices)


def _as_it_is(batch: _Made) -> _Made:
    return batch


def _one_ahead(make: Callable[[list[int]], _Made], batches: Sequence[list[int]]) -> Iterator[_Made]:
    """make(batch) for each batch, in a thread which makes one while its forerunner is in use."""
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[_Made]] = deque()
        for batch in batches:
            waiting.append(thread.submit(make, batch))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        if waiting:
            yield waiting.popleft().result()


def _copied(
    host: Iterator[tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images on the device; on CUDA from pinned memory, while the batch before is in use."""
    if device.type != "cuda":
        yield from ((images.to(device), labels) for images, labels in host)
        return
    stream = torch.cuda.Stream(device)
    waiting: deque[tuple[Tensor, Tensor, torch.cuda.Event]] = deque()

    def ready() -> tuple[Tensor, Tensor]:
        copy, labels, done = waiting.popleft()
        current = torch.cuda.current_stream(device)
        current.wait_event(done)
        copy.record_stream(current)  # its memory was taken on the other stream
        return copy, labels

    for images, labels in host:
        with torch.cuda.stream(stream):
            copy = images.pin_memory().to(device, non_blocking=True)
            waiting.append((copy, labels, stream.record_event()))
        if len(waiting) > 1:
            yield ready()
    while waiting:
        yield ready()


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
