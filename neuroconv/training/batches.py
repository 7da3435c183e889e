"""Checked batches of a map-style data set, on a device."""

import pickle
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import chain, pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from neuroconv.data import Frames
from neuroconv.data.items import fetch

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
    data: Dataset[Any],
    batches: Sequence[list[int]],
    workers: int,
    device: torch.device,
    seed: tuple[int, int] = (0, 0),
) -> Iterator[Batch]:
    """Returns an iterator of batches: inputs on the device, labels on the CPU, to be checked.

    `Frames` are encoded on the device, a batch at a time. Images that lie on the device are
    gathered there; others are prepared by the workers or, for CUDA, by a thread one batch ahead.

    Random draws of a data set are a function of (seed, epoch, index): see `data.items.fetch`. Of
    torch's default generator the call draws one number, and reading the batches draws none.

    Args:
        seed: (seed, epoch). The default is for evaluation, which always sees the same items.
            `Frames` have a seed and an epoch of their own.
    """
    torch.empty((), dtype=torch.int64).random_()  # what DataLoader drew: dropout depends on it
    if isinstance(data, Frames):
        return _load_frames(data, batches, workers, device)
    return _load_items(partial(_batch, data, seed), batches, workers, device)


def _load_items(
    prepare: Callable[[list[int]], Batch],
    batches: Sequence[list[int]],
    workers: int,
    device: torch.device,
) -> Iterator[Batch]:
    in_process = (prepare(batch) for batch in batches)
    prepared = _by_workers(prepare, batches, workers, device) if workers else in_process
    with closing(prepared):
        for inputs, labels in prepared:
            yield _to(device, inputs), labels


def _batch(data: Dataset[Any], seed: tuple[int, int], indices: list[int]) -> Batch:
    batch = fetch(data, indices, *seed, collate=default_collate)
    if len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise TypeError("data[i] must be (input tensor, integer label)")
    return batch[0], batch[1]


def _load_frames(
    frames: Frames, batches: Sequence[list[int]], workers: int, device: torch.device
) -> Iterator[Batch]:
    # A cache may lack what an epoch leaves out beside its full batches.
    at_once = len(batches[0]) if batches else 0
    if workers and frames.resident("cpu", at_once) is None:
        prepared = _by_workers(frames.images, batches, workers, device)
    elif device.type == "cpu" or not frames.threadsafe or frames.resident(device) is not None:
        yield from (frames.batch(batch, device) for batch in batches)
        return
    else:
        prepared = _in_thread(frames.images, batches)
    with closing(prepared):
        for (images, labels), batch in zip(prepared, batches, strict=True):
            yield frames.encode(_to(device, images), batch), labels


def _to(device: torch.device, inputs: Tensor) -> Tensor:
    pinned = inputs.pin_memory() if device.type == "cuda" else inputs
    return pinned.to(device, non_blocking=True)


def _by_workers(
    prepare: Callable[[list[int]], Batch],
    batches: Sequence[list[int]],
    workers: int,
    device: torch.device,
) -> Generator[Batch]:
    """Yields prepare(batch) for each batch, prepared by worker processes."""
    loader = DataLoader(
        _Prepared(prepare), batch_size=None, sampler=batches, num_workers=workers,
        pin_memory=device.type == "cuda", collate_fn=_unchanged, generator=torch.Generator(),
    )  # fmt: skip
    for prepared in loader:
        if isinstance(prepared, Exception):
            raise prepared
        yield prepared


class _Prepared(Dataset[Any]):
    """A data set of batches, as workers prepare them.

    An error is returned: raised, a DataLoader would wrap its message in a worker's traceback.
    """

    def __init__(self, prepare: Callable[[list[int]], Batch]) -> None:
        self.prepare = prepare

    def __getitem__(self, batch: list[int]) -> Batch | Exception:
        try:
            return self.prepare(batch)
        except Exception as error:
            error.add_note(f"in a data worker:\n{traceback.format_exc()}")
            with suppress(Exception):
                return pickle.loads(pickle.dumps(error))
            raise  # what cannot be sent, the DataLoader describes


def _unchanged(batch: Any) -> Any:
    return batch


def _in_thread(
    prepare: Callable[[list[int]], _Item], batches: Sequence[list[int]]
) -> Generator[_Item]:
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
