"""MNIST, CIFAR-10 and Imagenette; torchvision downloads what is absent."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from neuroconv.data.errors import DataError
from neuroconv.data.folder import read_folder
from neuroconv.data.stills import ImageTensors, StillSplits, hold_out

# Images and labels, of training and of test.
_MNIST_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
_IMAGENETTE_FOLDERS = {
    "160px": "imagenette2-160", "320px": "imagenette2-320", "full": "imagenette2"
}  # fmt: skip
_Loaded = TypeVar("_Loaded")


def mnist(root: Path) -> StillSplits:
    folders = (root / "MNIST" / "raw", root, root / "mnist")
    complete = [f for f in folders if all(_find(f, name).is_file() for name in _MNIST_FILES)]
    if not complete:
        from torchvision import datasets  # slow to import

        names = ", ".join(_MNIST_FILES)
        expected = f"MNIST/raw, or in it or its subfolder mnist {names}, .gz or not"
        _download("MNIST", lambda: datasets.MNIST(root, download=True), root, expected)
    files = [_find((complete or folders)[0], name) for name in _MNIST_FILES]
    full, test = _read_mnist(*files[:2]), _read_mnist(*files[2:])
    train, val = hold_out(full, 5_000)
    return StillSplits(train, val, test, tuple(map(str, range(10))))


def cifar10(root: Path) -> StillSplits:
    from torchvision import datasets  # slow to import

    expected = "the folder cifar-10-batches-py, its checksums right"

    def load() -> list[Any]:
        return [datasets.CIFAR10(root, train, download=True) for train in (True, False)]

    parts = _download("CIFAR-10", load, root, expected)
    full, test = (
        ImageTensors(torch.from_numpy(part.data).permute(0, 3, 1, 2), np.array(part.targets))
        for part in parts
    )
    train, val = hold_out(full, 5_000)
    return StillSplits(train, val, test, tuple(parts[0].classes))


def imagenette(root: Path) -> StillSplits:
    from torchvision import datasets  # slow to import

    on_disk = (size for size, name in _IMAGENETTE_FOLDERS.items() if (root / name).is_dir())
    size = next(on_disk, "160px")
    expected = f"one of the folders {', '.join(_IMAGENETTE_FOLDERS.values())}"
    part = _download(
        "Imagenette",
        lambda: datasets.Imagenette(root, "train", size, download=True),
        root,
        expected,
    )
    splits = read_folder(root / _IMAGENETTE_FOLDERS[size], part.wnids)
    names = tuple(words[0] for words in part.classes)  # instead of WordNet's numbers
    return StillSplits(splits.train, splits.val, splits.test, names)


def _download(name: str, load: Callable[[], _Loaded], root: Path, expected: str) -> _Loaded:
    """Calls torchvision, which loads what is there and downloads what is not."""
    try:
        return load()
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"no {name} in {root}: name the folder that holds it with --data.root DIR, or in the "
            f"environment variable NEUROCONV_DATA.\nExpected there: {expected}.\nIt is not on this "
            f"machine, and downloading it failed: {reason}"
        ) from error


def _find(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _read_mnist(image_file: Path, label_file: Path) -> ImageTensors:
    """Reads images (N, 1, 28, 28) uint8 and labels (N,); files must belong together."""
    images, labels = _read_idx(image_file), _read_idx(label_file)
    if images.shape[1:] != (28, 28):
        problem = f"images of {images.shape[1:]} pixels, expected (28, 28)"
    elif labels.shape != images.shape[:1]:
        problem = f"{len(images)} images with {len(labels)} labels, expected as many"
    elif labels.max() > 9:
        problem = f"labels up to {labels.max()}, expected 0..9"
    else:
        return ImageTensors(torch.from_numpy(images).unsqueeze(1), labels.astype(np.int64))
    raise DataError(f"MNIST in {image_file.parent}: {problem}; delete the files and get them again")


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an array of bytes in MNIST's format IDX, gzipped or not.

    The header is two zeros, the type (8: unsigned byte), the number of axes, and each axis's size
    as a big-endian 32-bit integer.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        axes = content[3]
        if content[:3] != b"\0\0\x08":
            raise ValueError(f"begins with {content[:3]!r}")
        shape = np.frombuffer(content, ">i4", axes, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise DataError(
            f"{path}: a broken MNIST file ({error}); delete it and get it again"
        ) from error
