"""Data sets as still images: digits, MNIST and its like, CIFAR-10, Imagenette, image folders."""

import gzip
import itertools
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from neuroconv.core.checks import check_choice
from neuroconv.data.errors import DataError, warn_once
from neuroconv.data.stills import ImageFiles, ImageTensors, Stills, hold_out

StillSplits = tuple[Stills, Stills, Stills, tuple[str, ...]]  # train, val, test, class names
_DIGIT_NAMES = tuple("0123456789")
# Images and labels, of training and of test.
_IDX_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip

# Sets in such files: the name in torchvision; the folders to look in, torchvision's first; the
# classes; and the sums of pixels and labels, in any order, of training and of test.
_IDX_SETS = {
    "mnist": (
        "MNIST", ("MNIST/raw", "MNIST", "mnist", "."), _DIGIT_NAMES,
        [(1_567_298_545, 267_236), (264_923_200, 44_434)],
    ),
    "fashion_mnist": (
        "FashionMNIST", ("FashionMNIST/raw", "FashionMNIST", "fashion_mnist", "fashion", "."),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
         "Ankle boot"),
        [(3_431_114_169, 270_000), (573_469_082, 45_000)],
    ),
}  # fmt: skip
_LEFT_BY_SYSTEMS = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found")
_IMAGENETTE_FOLDERS = {
    "160px": "imagenette2-160", "320px": "imagenette2-320", "full": "imagenette2"
}  # fmt: skip


def digits(root: Path) -> StillSplits:
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16  # intensities are 0..16
    rest, test = hold_out(ImageTensors(images, bunch.target.astype(np.int64)), 360)
    return *hold_out(rest, 180), test, _DIGIT_NAMES


def mnist_like(name: str, root: Path) -> StillSplits:
    """Reads "mnist" or "fashion_mnist", whose files have the same names."""
    title, folders, class_names, official = _IDX_SETS[name]
    found = (_find_idx(root / folder) for folder in folders)
    files = next((paths for paths in found if len(paths) == len(_IDX_FILES)), None)
    if files is None:
        from torchvision import datasets  # slow to import

        present = [str(path) for folder in folders for path in _find_idx(root / folder)]
        places = f"in {', '.join(folders[:-1])} or DIR itself; present are {present}"
        expected = f"{', '.join(_IDX_FILES)}, .gz or not, {places}"
        with _downloading(title, root, expected):
            getattr(datasets, title)(root, download=True)
        files = _find_idx(root / folders[0])
    full, test = _read_idx_pair(title, *files[:2]), _read_idx_pair(title, *files[2:])
    sums = [(int(part.images.sum()), int(part.targets.sum())) for part in (full, test)]
    for other, (_, _, _, others) in _IDX_SETS.items():
        if other != name and {pixels for pixels, _ in sums} & {pixels for pixels, _ in others}:
            raise DataError(
                f"{files[0].parent} has images of {other}, expected {name}: give --data.name "
                f"{other}, or put {name} into {root / folders[0]}"
            )
    if sums != official:
        warn_once(
            f"{files[0].parent}: used as {name}, though the sums of its pixels and labels, {sums}, "
            f"are not the official ones, {official}"
        )
    return *hold_out(full, 5_000), test, class_names


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
    """Lists an image folder; `classes` chooses class folders and orders the labels.

    Hidden files and folders, what file managers leave behind, files without an image's ending,
    folders beside the parts, and those that links lead to again are skipped; a warning counts them.
    """
    lister = _Lister()
    parts = ["train", "val"] + (["test"] if (root / "test").is_dir() else [])
    available = {part: lister.class_folders(root / part) for part in parts}
    names = available["train"] if classes is None else list(classes)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"{root}: classes={names}, expected two or more names, each once")
    for name in names:
        check_choice(f"class of {root / 'train'}", name, available["train"])
    for part in parts:
        extra = sorted(set(available[part]) - set(names))
        if classes is None and extra:
            raise DataError(
                f"{root / part} has the classes {extra}, which {root / 'train'} has not: make the "
                "folders agree, or choose with --data.classes"
            )
    stills = {part: lister.image_files(root / part, names) for part in parts}
    for folder in root.glob("*/"):
        lister.uses(folder.name, folder.name in parts)
    if lister.skipped:
        warn_once(f"{root}: {lister}")
    if "test" in parts:
        return stills["train"], stills["val"], stills["test"], tuple(names)
    count = max(round(len(stills["train"]) / 10), len(names))
    return *hold_out(stills["train"], count), stills["val"], tuple(names)


class _Lister:
    """Lists classes and images; as a string, it says what it skipped."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        self._paths: dict[str, str] = {}  # to each real folder, the first

    def class_folders(self, part: Path) -> list[str]:
        expected = "expected ROOT/{train,val}/CLASS/*.jpg; give ROOT with --data.root ROOT"
        if not part.is_dir():
            raise DataError(f"{part} is not a folder: {expected}")
        names = sorted(path.name for path in part.iterdir() if self.uses(path.name, path.is_dir()))
        if not names:
            raise DataError(f"{part} has no class folders: {expected}")
        return names

    def image_files(self, part: Path, names: Sequence[str]) -> ImageFiles:
        """Lists the images of classes, whose labels are their positions in `names`."""
        images = {name: self._images(part / name) for name in sorted(names)}
        if empty := [name for name in names if not images[name]]:
            raise DataError(
                f"{part} has no images of the classes {empty} ({self}): put some there, or leave "
                "the classes out with --data.classes"
            )
        labels = np.repeat([names.index(name) for name in images], list(map(len, images.values())))
        return ImageFiles([path for paths in images.values() for path in paths], labels)

    def _images(self, folder: Path) -> list[str]:
        """Lists the images in a folder and below; each real folder is listed once."""
        from torchvision.datasets.folder import IMG_EXTENSIONS  # slow to import

        images: list[tuple[str, str]] = []
        walk = os.walk(folder, onerror=lambda e: self.skipped.update([str(e)]), followlinks=True)
        for parent, folders, files in walk:
            if self._paths.setdefault(os.path.realpath(parent), parent) != parent:
                self.skipped["folders linked again"] += 1
                folders.clear()
                continue
            folders[:] = [name for name in sorted(folders) if self.uses(name)]
            for name in files:
                if self.uses(name, name.lower().endswith(IMG_EXTENSIONS)):
                    images.append((parent, name))
        return [os.path.join(*image) for image in sorted(images)]

    def uses(self, name: str, expected: bool = True) -> bool:
        """Returns whether an entry of a folder is used, and counts it if not."""
        hidden = name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS
        if hidden or not expected:
            suffix = Path(name).suffix.lower()
            kind = f"*{suffix}" if suffix and not hidden else name
            self.skipped["._*" if name.startswith("._") else kind] += 1
        return expected and not hidden

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.skipped.most_common(12))
        return f"skipped {self.skipped.total()} files and folders: {kinds or 'none'}"


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


def _find_idx(folder: Path) -> list[Path]:
    """Finds IDX files: packed or not, with a dot for a dash, or each in a folder of its name."""
    files: list[Path] = []
    for name in (name.replace("-idx", "[-.]idx") for name in _IDX_FILES):
        forms = (name, f"{name}.gz", f"{name}/{name}")
        paths = (path for form in forms for path in sorted(folder.glob(form)) if path.is_file())
        files += itertools.islice(paths, 1)
    return files


def _read_idx_pair(title: str, image_file: Path, label_file: Path) -> ImageTensors:
    """Reads images (N, 1, 28, 28) uint8 and labels (N,); files must belong together."""
    images, labels = _read_idx(image_file, 3), _read_idx(label_file, 1)
    if images.shape[1:] != (28, 28):
        problem = f"images of {images.shape[1:]} pixels, expected (28, 28)"
    elif len(images) != len(labels) or not len(images):
        problem = f"{len(images)} images with {len(labels)} labels, expected as many"
    elif labels.max() > 9:
        problem = f"labels up to {labels.max()}, expected 0..9"
    else:
        return ImageTensors(torch.from_numpy(images).unsqueeze(1), labels.astype(np.int64))
    raise DataError(
        f"{title} in {image_file.parent}: {problem}; delete the files and get them again"
    )


def _read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Reads bytes in IDX: two zeros, 8 (the type), number of axes, sizes (big-endian int32)."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":  # some browsers unpack what they save as .gz
            content = gzip.decompress(content)
        if content[:4] != bytes((0, 0, 8, axes)):
            raise ValueError(f"begins with {content[:4]!r}, expected bytes in {axes} axes")
        shape = np.frombuffer(content, ">u4", axes, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"{path}: a broken IDX file ({error}); delete it and get it again"
        ) from error


SOURCES: dict[str, Callable[[Path], StillSplits]] = {
    "digits": digits, **{name: partial(mnist_like, name) for name in _IDX_SETS},
    "cifar10": cifar10, "imagenette": imagenette,
}  # fmt: skip
