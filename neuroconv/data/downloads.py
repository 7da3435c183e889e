"""MNIST, CIFAR-10 and Imagenette by torchvision, which downloads what is absent."""

import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from neuroconv.data.errors import DataError
from neuroconv.data.folder import read_folder
from neuroconv.data.stills import ImageTensors, StillSplits, hold_out

_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_IMAGENETTE_FOLDERS = {
    "160px": "imagenette2-160",
    "320px": "imagenette2-320",
    "full": "imagenette2",
}
_Loaded = TypeVar("_Loaded")


def mnist(root: Path) -> StillSplits:
    from torchvision import datasets  # slow to import

    folder = _unpacked_mnist(root)
    if folder is None:
        expected = (
            f"MNIST/raw, or in it or its subfolder mnist {', '.join(_MNIST_FILES)}, .gz or not"
        )
        _download("MNIST", lambda: datasets.MNIST(root, download=True), root, expected)
        folder = root
    try:
        parts = [datasets.MNIST(folder, train=train) for train in (True, False)]
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise DataError(
            f"MNIST in {root}: a file is broken ({error!r}); delete it and get it again"
        ) from error
    for part in parts:
        _check_mnist(part.data, part.targets, root)
    full, test = (ImageTensors(part.data.unsqueeze(1), part.targets.numpy()) for part in parts)
    train, val = hold_out(full, 5_000)
    return StillSplits(train, val, test, tuple(map(str, range(10))))


def cifar10(root: Path) -> StillSplits:
    from torchvision import datasets  # slow to import

    parts = _download(
        "CIFAR-10",
        lambda: [datasets.CIFAR10(root, train=train, download=True) for train in (True, False)],
        root,
        "the folder cifar-10-batches-py, its checksums right",
    )
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
    part = _download(
        "Imagenette",
        lambda: datasets.Imagenette(root, "train", size=size, download=True),
        root,
        f"one of the folders {', '.join(_IMAGENETTE_FOLDERS.values())}",
    )
    splits = read_folder(root / _IMAGENETTE_FOLDERS[size], part.wnids)
    names = tuple(words[0] for words in part.classes)  # instead of WordNet's numbers
    return StillSplits(splits.train, splits.val, splits.test, names)


def _download(name: str, load: Callable[[], _Loaded], root: Path, expected: str) -> _Loaded:
    """Call torchvision, which loads what is there and downloads what is not."""
    try:
        return load()
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"no {name} in {root}: name the folder that holds it with --data.root DIR, or in the "
            f"environment variable NEUROCONV_DATA.\nExpected there: {expected}.\nIt is not on this "
            f"machine, and downloading it failed: {reason}"
        ) from error


def _check_mnist(images: Tensor, labels: Tensor, root: Path) -> None:
    """What torchvision leaves unchecked."""
    if images.shape[1:] != (28, 28):
        problem = f"images of {tuple(images.shape[1:])} pixels, expected (28, 28)"
    elif len(images) != len(labels):
        problem = f"{len(images)} images with {len(labels)} labels, expected as many"
    elif not set(labels.unique().tolist()) <= set(range(10)):
        problem = f"labels up to {labels.max()}, expected 0..9"
    else:
        return
    raise DataError(f"MNIST in {root}: {problem}; delete the files and get them again")


def _unpacked_mnist(root: Path) -> Path | None:
    """A folder with MNIST/raw in it made of the IDX files in or below root, None without them."""
    if all((root / "MNIST" / "raw" / name).is_file() for name in _MNIST_FILES):
        return root
    for folder in (root, root / "mnist", root / "MNIST" / "raw"):
        pairs = [(folder / name, folder / f"{name}.gz") for name in _MNIST_FILES]
        files = [next((path for path in pair if path.is_file()), None) for pair in pairs]
        present = [path for path in files if path]
        if len(present) == len(_MNIST_FILES):
            return _unpack(present)
    return None


def _unpack(files: Sequence[Path]) -> Path:
    # Named by what is in it, so that neither another source nor a changed file meets an old copy.
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    cache = Path(os.environ.get("NEUROCONV_CACHE") or "~/.cache/neuroconv").expanduser()
    target = cache / f"mnist-{hashlib.sha256(repr(stats).encode()).hexdigest()[:16]}"
    if target.is_dir():
        return target
    from torchvision.datasets.utils import extract_archive  # slow to import

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            raw = Path(scratch, "whole", "MNIST", "raw")
            raw.mkdir(parents=True)
            for path in files:
                if path.suffix == ".gz":
                    extract_archive(path, raw)
                else:
                    shutil.copyfile(path, raw / path.name)
            try:
                Path(scratch, "whole").rename(target)  # appears whole or not at all
            except OSError:
                if not target.is_dir():  # else another process was faster
                    raise
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"cannot unpack MNIST from {files[0].parent} to {cache} ({error}): get the files again "
            "if one is broken, or set NEUROCONV_CACHE to a folder that can be written"
        ) from error
    return target
