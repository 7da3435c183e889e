"""Still images (C, H, W), uint8 or float, with labels, in memory or on disk; their splits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from neuroconv.data.errors import DataError


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """A data set whose labels (N,) are known without reading an image."""

    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


class ImageTensors(LabelledImages):
    """Images in one tensor (N, C, H, W)."""

    def __init__(self, images: Tensor, targets: NDArray[np.int64]) -> None:
        self.images, self.targets = images, targets

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.targets[index])

    def gather(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns images (B, C, H, W) and labels (B,)."""
        rows = torch.tensor(indices)
        return self.images[rows], torch.from_numpy(self.targets)[rows]

    def whole(self, at_once: int) -> Tensor | None:
        """Returns all images (N, C, H, W); see `FittedStills.whole`."""
        return self.images

    def subset(self, indices: NDArray[np.int64]) -> "ImageTensors":
        return ImageTensors(self.images[indices], self.targets[indices])


class ImageFiles(LabelledImages):
    """Image files, decoded to RGB uint8 (3, H, W) on access; DataError if one is broken."""

    def __init__(self, paths: Sequence[str | Path], targets: NDArray[np.int64]) -> None:
        self.paths, self.targets = list(paths), targets

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


def hold_out(stills: Stills, count: int) -> tuple[Stills, Stills]:
    """Splits off `count` images, stratified by class, the same in all runs: (rest, held out)."""
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
