"""A cache of still images, decoded on first access into memory that forked workers share.

Shape legend: N images, B batch, C channels, H height, W width.
"""

import copy
import math
import mmap
import multiprocessing
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuroconv.data.augment import fit
from neuroconv.data.errors import DataError
from neuroconv.data.stills import ImageFiles, ImageTensors, LabelledImages, Stills, open_image

SHARE = 4  # "auto" fills at most a quarter of the free memory
_HEADERS = 64  # files whose headers give the mean size of a decoded image
_CGROUPS = (  # folder, limit, use, files in the page cache, in version 2 and 1
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class _Cache(LabelledImages):
    def __init__(self, stills: Stills) -> None:
        self.stills, self.targets = stills, stills.targets

    def __reduce__(self) -> tuple[object, ...]:  # memory is not pickled
        return copy.copy, (self.stills,)


class FittedStills(_Cache):
    """Stills that `fit` brings to one size (H, W), in their dtype."""

    def __init__(self, stills: Stills, size: tuple[int, int]) -> None:
        super().__init__(stills)
        self._size = size
        first = stills[0][0]
        self._images = shared_tensor((len(stills), first.shape[0], *size), first.dtype)
        self._cached = shared_tensor((len(stills),), torch.bool)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.gather([index])
        return images[0], int(labels[0])

    def gather(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns images (B, C, H, W) and labels (B,)."""
        rows = torch.tensor(indices)
        for index in rows[~self._cached[rows]].tolist():
            self._images[index] = fit(self.stills[index][0], self._size)
            self._cached[index] = True  # last, for another process may be reading
        return self._images[rows], torch.from_numpy(self.targets)[rows]

    def whole(self, at_once: int) -> Tensor | None:
        """Returns all images (N, C, H, W), None if more than `at_once` are not decoded yet."""
        missing = (~self._cached).nonzero().flatten().tolist()
        if len(missing) > at_once:
            return None
        if missing:
            self.gather(missing)
        return self._images


class DecodedFiles(_Cache):
    """Image files in their own sizes; those beyond `capacity` bytes are decoded at each access."""

    def __init__(self, files: ImageFiles, capacity: int) -> None:
        super().__init__(files)
        self._bytes = shared_tensor((capacity,), torch.uint8)
        self._used = shared_tensor((1,), torch.int64)
        # Offset, height and width of each image; height 0: not decoded yet.
        self._spans = shared_tensor((len(files), 3), torch.int64)
        self._lock = multiprocessing.Lock()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        start, height, width = self._spans[index].tolist()
        if height:
            image = self._bytes[start : start + 3 * height * width].view(3, height, width)
        else:
            image = self._decode(index)
        return image, int(self.targets[index])

    def _decode(self, index: int) -> Tensor:
        image, _ = self.stills[index]
        with self._lock:
            start = int(self._used)
            if start + image.numel() > len(self._bytes):
                return image
            self._used += image.numel()
        self._bytes[start : start + image.numel()] = image.flatten()
        self._spans[index, 0], self._spans[index, 2] = start, image.shape[2]
        self._spans[index, 1] = image.shape[1]  # last, for another process may be reading
        return image


def with_cache(
    splits: Sequence[Stills], size: tuple[int, int] | None, cache: bool | str, full_size: bool
) -> list[Stills | FittedStills | DecodedFiles]:
    """Gives splits a cache, train first; `full_size` keeps training images in their own sizes."""
    free = free_memory() // SHARE if cache == "auto" else math.inf
    result: list[Stills | FittedStills | DecodedFiles] = list(splits)
    for number, stills in enumerate(splits):
        full = full_size and number == 0
        in_memory = isinstance(stills, ImageTensors) and (full or stills.images.shape[-2:] == size)
        if cache is False or size is None or in_memory:
            continue
        files = stills if full and isinstance(stills, ImageFiles) else None
        if files:
            needed = _decoded_bytes(files, len(files) if cache is True else _HEADERS)
        else:
            image = stills[0][0]
            needed = len(stills) * len(image) * math.prod(size) * image.element_size()
        if needed <= free:  # else a later split may be small enough
            free -= needed
            result[number] = DecodedFiles(files, needed) if files else FittedStills(stills, size)
    return result


def _decoded_bytes(files: ImageFiles, headers: int) -> int:
    """Estimates the size of all decoded files from evenly chosen headers."""
    sizes = []
    for index in np.unique(np.linspace(0, len(files) - 1, headers).round().astype(int)):
        # A broken file is an error when it is read.
        with suppress(DataError), open_image(files.paths[index]) as file:
            sizes.append(3 * file.width * file.height)
    return math.ceil(sum(sizes) / max(len(sizes), 1) * len(files)) or 1


def shared_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Returns zeros that processes forked later share, allocated page by page when written.

    Unlike torch's shared tensors they need no room in /dev/shm, of which containers have little.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        memory = mmap.mmap(-1, max(size, 1))
    except (OSError, OverflowError, ValueError) as error:
        raise DataError(
            f"no memory for {size / 2**30:.1f} GiB of decoded images ({error}): say cache = false"
        ) from error
    return torch.frombuffer(memory, dtype=torch.uint8, count=size).view(dtype).view(shape)


def free_memory(root: Path = Path("/")) -> int:
    """Returns the bytes available without swapping, within the limit of a container."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line[:13] == "MemAvailable:")
    except (OSError, StopIteration):  # not Linux: half of the built-in memory
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    for group, limit, used, idle in _CGROUPS:
        folder = root / "sys/fs/cgroup" / group
        try:
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            # Files in the page cache count as used, but make way.
            in_use = int((folder / used).read_text()) - int(stat.get(idle, 0))
            free = min(free, max(0, int((folder / limit).read_text()) - in_use))
        except (OSError, ValueError):  # the other version of cgroups, or "max": no limit
            continue
    return free
