"""Stills decoded and fitted once, and kept in memory.

An image is decoded when it is first read, and kept for all processes: data-loader workers that
are forked write into the same memory as the process that started them. A cache that is pickled, as
for workers that are not forked, is its stills alone, which are decoded at each access.

Shape legend: N images, C channels, H height, W width.
"""

import math
import multiprocessing
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from neuroconv.data.augment import Fit
from neuroconv.data.memory import free_memory, shared_tensor
from neuroconv.data.stills import ImageFiles, ImageTensors, Stills

SHARE = 4  # "auto" fills at most a quarter of the free memory
_HEADERS = 64  # files whose headers give the mean size of a decoded image


class _Cache(Dataset[tuple[Tensor, int]]):
    def __init__(self, stills: Stills) -> None:
        self.stills, self.targets = stills, stills.targets

    def __len__(self) -> int:
        return len(self.targets)

    def __reduce__(self) -> tuple[object, ...]:
        return _identity, (self.stills,)


class FittedStills(_Cache):
    """Stills brought to one size (H, W), each once: (image (C, H, W), int label).

    `Fit` brings them to that size; the dtype of the images is kept.
    """

    def __init__(self, stills: Stills, size: tuple[int, int]) -> None:
        super().__init__(stills)
        self._fit = Fit(size)
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
            self._images[index] = self._fit(self.stills[index][0])
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
    """Image files decoded once and kept in their own sizes: (uint8 (3, h, w), int label).

    For augmentation that begins with the whole image. Images beyond `capacity`, in bytes, are
    decoded at each access.
    """

    def __init__(self, files: ImageFiles, capacity: int) -> None:
        super().__init__(files)
        self._bytes = shared_tensor((capacity,), torch.uint8)
        self._used = shared_tensor((1,), torch.int64)
        # Offset, height and width of each image; height 0: not decoded yet.
        self._spans = shared_tensor((len(files), 3), torch.int64)
        self._lock = multiprocessing.Lock()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        start, height, width = self._spans[index].tolist()
        if not height:
            return self._decode(index), int(self.targets[index])
        image = self._bytes[start : start + 3 * height * width].view(3, height, width)
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
    parts: Sequence[Stills],
    size: tuple[int, int] | None,
    cache: bool | str,
    full_size: Sequence[bool],
) -> list[Stills | FittedStills | DecodedFiles]:
    """Gives parts of a data set a cache where `load_data`'s `cache` says so, in their order.

    Args:
        size: (H, W) to which images are fitted; None leaves tensors as they are.
        full_size: whether a part's augmentation begins with the image in its full size.
    """
    free = free_memory() // SHARE if cache == "auto" else math.inf
    result: list[Stills | FittedStills | DecodedFiles] = list(parts)
    for number, (part, full) in enumerate(zip(parts, full_size, strict=True)):
        in_memory = isinstance(part, ImageTensors) and (full or part.images.shape[-2:] == size)
        if cache is False or size is None or in_memory:
            continue
        whole = part if full and isinstance(part, ImageFiles) else None
        if whole:
            needed = _decoded_bytes(whole, len(part) if cache is True else _HEADERS)
        else:
            image = part[0][0]
            needed = len(part) * len(image) * math.prod(size) * image.element_size()
        if needed <= free:  # else a later part may be small enough
            free -= needed
            result[number] = DecodedFiles(whole, needed) if whole else FittedStills(part, size)
    return result


def _decoded_bytes(files: ImageFiles, headers: int) -> int:
    """Estimates the size of all decoded files from evenly chosen headers."""
    sizes = []
    for index in np.unique(np.linspace(0, len(files) - 1, headers).round().astype(int)):
        try:
            with Image.open(files.paths[index]) as file:
                sizes.append(3 * file.width * file.height)
        except (OSError, SyntaxError, ValueError):  # a broken file is an error when it is read
            continue
    return math.ceil(sum(sizes) / max(len(sizes), 1) * len(files)) or 1


def _identity(stills: Stills) -> Stills:
    return stills
