"""`load_data`: a data set by name, as fixed splits of frames."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neuroconv.core.arguments import Seed, Size, checked
from neuroconv.core.checks import check_choice, pair
from neuroconv.data.augment import Augment
from neuroconv.data.cache import with_cache
from neuroconv.data.encoding import Encoding
from neuroconv.data.frames import Frames
from neuroconv.data.sources import SOURCES, read_folder
from neuroconv.data.spoken import spoken_digits
from neuroconv.data.stills import ImageFiles, Stills, hold_out

DATASETS = (*SOURCES, "spoken_digits", "folder")


@dataclass(frozen=True)
class DataSplits:
    """A data set ready for training.

    A model is selected on `val`, and tested on `test` once. `class_names` are in the labels' order,
    `image_shape` is (C, H, W), and `time_steps` is 1 with encoding "none".
    """

    name: str
    train: Frames
    val: Frames
    test: Frames
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    time_steps: int


@checked
def load_data(
    name: str,
    *,
    root: str | Path | None = None,
    classes: Sequence[str] | None = None,
    image_size: Size | tuple[Size, Size] | None = None,
    encoding: Encoding = "repeat",
    time_steps: Size = 5,
    augment: Augment = "none",
    permute: bool = False,
    held_out: str | None = None,
    train_limit: Size | None = None,
    cache: bool | Literal["auto"] = "auto",
    seed: Seed = 0,
) -> DataSplits:
    """Loads a data set, in fixed splits stratified by class, as frames.

    - `digits`: scikit-learn's 1,797 handwritten digits, 8 x 8: 1,257 train, 180 val, 360 test.
    - `mnist`: 55,000 train, 5,000 val, the official 10,000 test. The four IDX files, plain or .gz,
      are expected in ROOT/MNIST/raw, ROOT/MNIST, ROOT/mnist or ROOT.
    - `fashion_mnist`: Fashion-MNIST, as `mnist`, in ROOT/FashionMNIST/raw, ROOT/FashionMNIST,
      ROOT/fashion_mnist, ROOT/fashion or ROOT. Its files have MNIST's names: images of the other
      set are an error.
    - `cifar10`: 45,000 train, 5,000 val, the official 10,000 test.
    - `imagenette`: ten classes of ImageNet, 10 % of train as val, the official val as test; of the
      size (160, 320 or full) that is on the disk, else 160 pixels.
    - `spoken_digits`: the Free Spoken Digit Dataset, 3,000 recordings by 6 speakers, as log-mel
      spectrograms of 40 bands x 32 columns; one speaker is the test set, see
      `neuroconv.data.spoken.spoken_digits`. With encoding "columns" and 32 time steps a frame is
      20 ms of sound, (1, 40, 1).
    - `folder`: ROOT/{train,val[,test]}/CLASS/*.jpg, in any format of torchvision's ImageFolder,
      decoded by `stills.read_image`. Without `test`, `val` is the test set and 10 % of train are
      held out for validation. Hidden files and folders are skipped; a warning counts them.

    MNIST, Fashion-MNIST, CIFAR-10 and Imagenette are downloaded to ROOT if they are missing.

    Args:
        root: data folder; default: the environment variable NEUROCONV_DATA, else "data".
        classes: names of the classes to keep, in the labels' order: class folders for `folder`, all
            of them, sorted, by default. The split is that of the whole set.
        image_size: pixels, a side or (H, W); images are scaled to cover it and the centre is cut
            out. Default: 64 for image files, else the native size.
        encoding, time_steps: see `encode`.
        permute: whether all images have their pixels exchanged by one fixed permutation, before the
            encoding: what is left of a picture without its neighbourhoods.
        held_out: the speaker of the test set, for `spoken_digits`: a name, or "seed" (default) for
            number `seed` of the sorted names, counted around.
        augment: of training images, see `Frames`.
        train_limit: number of training images to keep, stratified, always the same ones.
        cache: whether images are decoded once and kept in memory as bytes, at `image_size` or, for
            "resized_crop_flip", in their own sizes. "auto" keeps training, validation and test
            images, in this order, as far as they fit into a quarter of the free memory.
        seed: of frames and augmentation; the splits do not depend on it, but for held_out = "seed".

    Raises:
        DataError: data missing, unreadable or inconsistent.
        ValueError: an unknown name or a number out of range.
    """
    check_choice("data.name", name, DATASETS)
    if held_out is not None and name != "spoken_digits":
        raise ValueError(f"held_out={held_out!r}: only the data set 'spoken_digits' has speakers")
    size = None if image_size is None else pair(image_size)
    folder = Path(root or os.environ.get("NEUROCONV_DATA") or "data").expanduser()
    read = _read_once if _KEEPS.get() else _read
    parts, class_names, size = read(
        name, folder, None if classes is None else tuple(classes), size, train_limit, cache,
        augment == "resized_crop_flip", held_out, seed if name == "spoken_digits" else 0,
    )  # fmt: skip
    train_frames, val_frames, test_frames = (
        Frames(
            part, encoding, time_steps, image_size=size, seed=seed, training=training,
            augment=augment if training else "none", permute=permute,
        )
        for part, training in zip(parts, (True, False, False), strict=True)
    )  # fmt: skip
    return DataSplits(
        name, train_frames, val_frames, test_frames, train_frames.image_shape, class_names,
        1 if encoding == "none" else time_steps,
    )  # fmt: skip


def _read(
    name: str, folder: Path, classes: tuple[str, ...] | None, size: tuple[int, int] | None,
    train_limit: int | None, cache: bool | str, full_size: bool, held_out: str | None, seed: int,
) -> tuple[Sequence[Any], tuple[str, ...], tuple[int, int] | None]:  # fmt: skip
    """Returns training, validation and test images, the names of classes, and the images' size."""
    if name == "folder":
        train, val, test, class_names = read_folder(folder, classes)
    elif name == "spoken_digits":
        train, val, test, class_names = spoken_digits(folder, held_out or "seed", seed)
    else:
        train, val, test, class_names = SOURCES[name](folder)
        if classes is not None:
            train, val, test = (_of_classes(x, class_names, classes) for x in (train, val, test))
            class_names = tuple(classes)
    if size is None and isinstance(train, ImageFiles):
        size = 64, 64
    if train_limit is not None:
        train = _limited(train, train_limit, len(class_names))
    return with_cache([train, val, test], size, cache, full_size), class_names, size


# Inside `data_kept` the images of the last call stay in memory for the next one.
_read_once = lru_cache(maxsize=1)(_read)
_KEEPS = ContextVar("_KEEPS", default=False)


@contextmanager
def data_kept() -> Iterator[None]:
    """Lets `load_data` inside the context keep the images that it last read or decoded, for calls
    that differ in frames, augmentation and seed alone."""
    token = _KEEPS.set(True)
    try:
        yield
    finally:
        _KEEPS.reset(token)
        _read_once.cache_clear()


def _of_classes(stills: Stills, names: Sequence[str], classes: Sequence[str]) -> Stills:
    """Keeps the images of some classes, whose labels are their positions in `classes`."""
    if len(classes) < 2 or len({*classes}) < len(classes):
        raise ValueError(f"classes={list(classes)}, expected two or more names, each once")
    for name in classes:
        check_choice("data.classes", name, names)
    labels = np.array([classes.index(n) if n in classes else -1 for n in names])[stills.targets]
    kept = stills.subset(np.flatnonzero(labels >= 0))
    kept.targets = labels[labels >= 0]
    return kept


def _limited(stills: Stills, limit: int, classes: int) -> Stills:
    if limit == len(stills):
        return stills
    if not classes <= limit < len(stills):
        raise ValueError(
            f"train_limit={limit}, expected {classes} (one image for each class) to {len(stills)} "
            "(all)"
        )
    return hold_out(stills, limit)[1]
