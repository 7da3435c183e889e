"""Still images (C, H, W), uint8 or float, with labels, in memory or on disk; their splits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from neuroconv.data.errors import DataError

_BITS, _WHITE_IS_ZERO = 258, 262  # TIFF's tags: bits of a sample; 0 if white is 0


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
    """Image files, decoded to RGB uint8 (3, H, W) on access as `read_image` does."""

    def __init__(self, paths: Sequence[str | Path], targets: NDArray[np.int64]) -> None:
        self.paths, self.targets = list(paths), targets

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return read_image(self.paths[index]), int(self.targets[index])

    def subset(self, indices: NDArray[np.int64]) -> "ImageFiles":
        return ImageFiles([self.paths[i] for i in indices], self.targets[indices])


Stills = ImageTensors | ImageFiles


def read_image(path: str | Path) -> Tensor:
    """Decodes an image file, the first frame if it has several, to RGB uint8 (3, H, W).

    It is turned upright as its EXIF orientation says, and transparency shows white behind it. Grey
    of 16 bits is divided by 257; floats, which must lie in 0..1, are multiplied by 255.

    Raises:
        DataError: the file is unreadable, broken or too large, or what is white in it is unknown.
    """
    with open_image(path) as file:
        tiles = getattr(file, "tile", None)
        raw = tiles[0][3] if tiles else ""
        file.load()
        if raw in ("L;2", "L;4") and "transparency" in file.info:  # which PIL does not scale
            file.info["transparency"] *= 255 // (2 ** int(raw[2:]) - 1)
        with suppress(Exception):  # an unreadable EXIF block does not spoil the picture
            ImageOps.exif_transpose(file, in_place=True)
        image = _grey(file) if file.mode[0] in "IF" else file
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """Opens an image file, of which only the header is read; any error is a DataError."""
    try:
        # A stream: PIL maps some files with a path into memory, and scrambles turned TIFFs then.
        with open(path, "rb") as stream, Image.open(stream) as file:
            yield file
    except Exception as error:  # PIL raises many kinds on broken files
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{path}: cannot be read as an image ({reason}); replace it or remove it"
        ) from error


def _grey(file: Image.Image) -> Image.Image:
    """Scales grey of more than 8 bits to 0..255."""
    tags = getattr(file, "tag_v2", {})  # of a TIFF
    if file.mode == "I" and tags:
        raise ValueError("signed or 32-bit integers, expected 8 or 16 bits, or floats in 0..1")
    white = 1 if file.mode == "F" else 2 ** tags.get(_BITS, (16,))[0] - 1
    values = np.asarray(file)
    if not (values.min() >= 0 and values.max() <= white):
        raise ValueError(f"pixels of {values.min()} to {values.max()}, expected 0 to {white}")
    shares = 1 - values / white if tags.get(_WHITE_IS_ZERO) == 0 else values / white
    grey = (shares * 255).round().astype(np.uint8)
    grey[values == file.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)


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
