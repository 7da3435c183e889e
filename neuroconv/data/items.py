"""Items of a map-style data set, with random numbers that belong to the item."""

# ruff: noqa: NPY002 - data sets draw from numpy's legacy generator
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset, TensorDataset

from neuroconv.data.encoding import sample_seeds


def fetch(
    data: Any, indices: Sequence[int], seed: int, epoch: int,
    collate: Callable[[list[Any]], Any] = list,
) -> Any:  # fmt: skip
    """Returns collate(items), whose random draws are a function of (seed, epoch, index).

    torch's default CPU generator, numpy's np.random and Python's random are seeded for each item
    and restored in the end. A data set with `__getitems__` reads a batch at once: its draws, like
    those of `collate`, are a function of (seed, epoch, the batch's indices).

    An error of the data set keeps its type, and has a note that names the index.
    """
    # Another hash than that of frames, which may have the same seed.
    words = np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(1, np.uint64)
    seeds = sample_seeds(int(words[0]), epoch, indices).tolist()
    reader = data
    while isinstance(reader, Subset):  # whose __getitems__ may only call __getitem__
        reader = reader.dataset
    draws = type(reader) not in (TensorDataset, list)
    index: Any = list(indices)
    with _restored_generators():
        _seed(seeds[0])
        try:
            if hasattr(reader, "__getitems__"):
                items = data.__getitems__(index)
            else:
                items = []
                for index, item_seed in zip(indices, seeds, strict=True):
                    if draws:
                        _seed(item_seed)
                    items.append(data[index])
        except Exception as error:
            error.add_note(f"while reading item {index} of the {type(data).__name__}")
            raise
        return collate(items)


@contextmanager
def _restored_generators() -> Iterator[None]:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _seed(bits: int) -> None:
    """Seeds three Mersenne twisters from 64 bits, each in its own way."""
    torch.default_generator.manual_seed(bits & 0xFFFFFFFF)  # not the GPUs', which models draw from
    np.random.seed(bits >> 32)
    random.seed(bits)
