"""Data sets as still images: digits, MNIST, CIFAR-10, Imagenette and image folders."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from neuroconv.core.checks import check_choice
from neuroconv.data.errors import DataError
from neuroconv.data.stills import ImageFiles, ImageTensors, Stills, hold_out

StillSplits = tuple[Stills, Stills, Stills, tuple[str, ...]]  # train, val, test, class names
_DIGIT_NAMES = tuple("0123456789")
# Images and labels, of training and of test.
_MNIST_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
_IMAGENETTE_FOLDERS = {
    "160px": "imagenette2-160", "320px": "imagenette2-320", "full": "imagenette2"
}  # fmt: skip


def digits(root: Path) -> StillSplits:
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16  # intensities are 0..16
    rest, test = hold_out(ImageTensors(images, bunch.target.astype(np.int64)), 360)
    return *hold_out(rest, 180), test, _DIGIT_NAMES


def mnist(root: Path) -> StillSplits:
    folders = (root / "MNIST" / "raw", root, root / "mnist")
    complete = [f for f in folders if all(_find(f, name).is_file() for name in _MNIST_FILES)]
    if not complete:
        from torchvision import datasets  # slow to import

        names = ", ".join(_MNIST_FILES)
        with _downloading(
            "MNIST", root, f"MNIST/raw, or in it or its subfolder mnist {names}, .gz or not"
        ):
            datasets.MNIST(root, download=True)
    files = [_find((complete or folders)[0], name) for name in _MNIST_FILES]
    full, test = _read_mnist(*files[:2]), _read_mnist(*files[2:])
    return *hold_out(full, 5_000), test, _DIGIT_NAMES


def cifar10(root: Path) -> StillSplits:
    from torchvision import datasets  # slow to import

    with _downloading("CIFAR-10", root, "the folder cifar-10-batches-py, its checksums right"):
        parts = [datasets.CIFAR10(root, train, download=True) for train in (True, False)]
    full, test = (
        ImageTensors(torch.from_numpy(part.data).permute(0, 3, 1, 2), np.array(part.targets))
        for part in parts
    )
    return *hold_out(full, 5_000), test, tuple(parts[0].classes)


def imagenette(root: Path) -> StillSplits:
    from torchvision import datasets  # slow to import

    on_disk = (size for size, name in _IMAGENETTE_FOLDERS.items() if (root / name).is_dir())
    size = next(on_disk, "160px")
    expected = f"one of the folders {', '.join(_IMAGENETTE_FOLDERS.values())}"
    with _downloading("Imagenette", root, expected):
        part = datasets.Imagenette(root, "train", size, download=True)
    train, val, test, _ = read_folder(root / _IMAGENETTE_FOLDERS[size], part.wnids)
    return train, val, test, tuple(words[0] for words in part.classes)  # not WordNet's numbers


def read_folder(root: Path, classes: Sequence[str] | None = None) -> StillSplits:
    """Lists an image folder; `classes` chooses class folders and orders the labels."""
    parts = ["train", "val"] + (["test"] if (root / "test").is_dir() else [])
    available = {part: _class_folders(root, part) for part in parts}
    names = available["train"] if classes is None else list(classes)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"classes={names}, expected one or more names, each once")
    for name in names:
        check_choice(f"class of {root / 'train'}", name, available["train"])
    for part in parts:
        extra = sorted(set(available[part]) - set(names))
        if classes is None and extra:
            raise DataError(
                f"{root / part} has the classes {extra}, which {root / 'train'} has not: make the "
                "folders agree, or choose with --data.classes"
            )
    stills = {part: _image_files(root / part, names) for part in parts}
    if "test" in parts:
        return stills["train"], stills["val"], stills["test"], tuple(names)
    count = max(round(len(stills["train"]) / 10), len(names))
    return *hold_out(stills["train"], count), stills["val"], tuple(names)


def _class_folders(root: Path, part: str) -> list[str]:
    folder = root / part
    expected = "expected ROOT/{train,val}/CLASS/*.jpg; give ROOT with --data.root ROOT"
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: {expected}")
    paths = sorted(path for path in folder.iterdir() if path.is_dir())
    names = [path.name for path in paths if not path.name.startswith(".")]
    if not names:
        raise DataError(f"{folder} has no class folders: {expected}")
    return names


def _image_files(folder: Path, names: Sequence[str]) -> ImageFiles:
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset  # slow to import

    labels = {name: label for label, name in enumerate(names)}
    try:
        samples = make_dataset(folder, labels, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:  # a class without images
        raise DataError(f"{folder}: {error}. Put images there, or leave the class out") from error
    return ImageFiles([path for path, _ in samples], np.array([label for _, label in samples]))


@contextmanager
def _downloading(name: str, root: Path, expected: str) -> Iterator[None]:
    """Explains why torchvision, which downloads missing files, failed."""
    try:
        yield
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
    """Reads bytes in IDX: two zeros, 8 (the type), number of axes, sizes (big-endian int32)."""
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
