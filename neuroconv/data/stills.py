"""Still images with labels, in memory or on disk, and the split of a held-out part.

Both kinds give (image, label): uint8 or float (C, H, W), and int.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from neuroconv.data.errors import DataError


class ImageTensors(Dataset[tuple[Tensor, int]]):
    """Images in one tensor (N, C, H, W), labels in an integer array (N,)."""

    def __init__(self, images: Tensor, targets: NDArray[np.int64]) -> None:
        self.images = images
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.targets[index])

    def gather(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns images (B, C, H, W) and labels (B,)."""
        rows = torch.tensor(indices)
        return self.images[rows], torch.from_numpy(self.targets)[rows]

    def whole(self, at_once: int) -> Tensor | None:
        """Returns all images (N, C, H, W)."""
        return self.images

    def subset(self, indices: NDArray[np.int64]) -> "ImageTensors":
        return ImageTensors(self.images[indices], self.targets[indices])


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Image files with labels, decoded to RGB uint8 (3, H, W) on access.

    Raises:
        DataError: on access, an image that cannot be decoded; the message names the file.
    """

    def __init__(self, paths: Sequence[str | Path], targets: NDArray[np.int64]) -> None:
        self.paths = list(paths)
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.paths[index]
        try:
            with Image.open(path) as file:
                image = np.array(file.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # what PIL raises on broken files
            raise DataError(
                f"{path}: not a whole image ({error}); replace it or remove it"
            ) from error
        return torch.from_numpy(image).permute(2, 0, 1), int(self.targets[index])

    def subset(self, indices: NDArray[np.int64]) -> "ImageFiles":
        return ImageFiles([self.paths[i] for i in indices], self.targets[indices])


Stills = ImageTensors | ImageFiles


@dataclass(frozen=True)
class StillSplits:
    train: Stills
    val: Stills
    test: Stills
    class_names: tuple[str, ...]


def hold_out(stills: Stills, count: int) -> tuple[Stills, Stills]:
    """Splits off `count` images, stratified by class: (the rest, those held out).

    The choice depends on the labels and the count only, never on a run's seed, so that all runs
    are selected and tested on the same images.
    """
    from sklearn.model_selection import train_test_split  # slow to import

    try:
        rest, held_out = train_test_split(
            np.arange(len(stills)), test_size=count, stratify=stills.targets, random_state=0
        )
    except ValueError as error:
        classes = len(np.unique(stills.targets))
        raise DataError(
            f"cannot hold out {count} of {len(stills)} images in {classes} classes with at least "
            f"one of each class on either side ({error}); more images are needed"
        ) from error
    # Sorted, so that files are read in the order in which they lie on the disk.
    return stills.subset(np.sort(rest)), stills.subset(np.sort(held_out))
