"""`load_data`: a data set by name, as fixed splits of frames."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuroconv.data.augment import AUGMENTS
from neuroconv.data.cache import with_cache
from neuroconv.data.downloads import cifar10, imagenette, mnist
from neuroconv.data.encoding import ENCODINGS
from neuroconv.data.errors import check_choice
from neuroconv.data.folder import read_folder
from neuroconv.data.frames import Frames
from neuroconv.data.stills import ImageFiles, ImageTensors, Stills, StillSplits, hold_out

DATASETS = ("digits", "mnist", "cifar10", "imagenette", "folder")


@dataclass(frozen=True)
class DataSplits:
    """A data set ready for training.

    Attributes:
        name: as given to `load_data`.
        train, val, test: an item is (float32 (C, T, H, W), int label), with encoding "none"
            (float32 (C, H, W), int label).
        image_shape: (C, H, W).
        class_names: in the labels' order.
        time_steps: frames per sample; 1 with encoding "none".
    """

    name: str
    train: Frames
    val: Frames
    test: Frames
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    time_steps: int


def load_data(
    name: str,
    *,
    root: str | Path | None = None,
    classes: Sequence[str] | None = None,
    image_size: int | Sequence[int] | None = None,
    encoding: str = "repeat",
    time_steps: int = 5,
    augment: str = "none",
    train_limit: int | None = None,
    cache: bool | str = "auto",
    seed: int = 0,
) -> DataSplits:
    """Loads a data set and turns its images into frames.

    The splits are stratified by class and always the same: a model is selected on `val`, which is
    held out of the training data, and meets `test` once.

    - `digits`: scikit-learn's 1,797 handwritten digits, 8 x 8, which need no files: 1,257 train,
      180 val, 360 test.
    - `mnist`: 55,000 train, 5,000 val, the official 10,000 test. The four IDX files, plain or .gz,
      are looked for in ROOT/MNIST/raw, where torchvision puts them, in ROOT and in ROOT/mnist.
    - `cifar10`: 45,000 train, 5,000 val, the official 10,000 test.
    - `imagenette`: ten classes of ImageNet, 10 % of train as val, the official val as test; at
      whichever of its three sizes is there, else 160 pixels.
    - `folder`: ROOT/{train,val[,test]}/CLASS/*.jpg, in any format that torchvision's ImageFolder
      takes. Without a folder `test`, the folder `val` is the test set and 10 % of train are held
      out as the validation split, because selection must never see the test set.

    MNIST, CIFAR-10 and Imagenette are downloaded to ROOT if they are not there.

    Args:
        root: data folder; default: environment variable NEUROCONV_DATA, else "data".
        classes: for `folder`, the class folders to keep; their order is the labels'. Default: all
            of them, sorted.
        image_size: pixels, a side or (H, W); images are scaled to cover it and the centre is cut
            out. Default: 64 for image files, else the native size.
        encoding, time_steps: see `encode`.
        augment: of training images: "none", "flip", "crop_flip" or "resized_crop_flip", see
            `Frames`.
        train_limit: number of training images to keep, stratified, always the same ones.
        cache: whether images are decoded and fitted to `image_size` once, when they are first
            read, and kept in memory as bytes; processes forked later share them. The frames are
            the same either way. "auto" keeps training, validation and test images, in this order,
            as far as they fit into a quarter of the free memory. "resized_crop_flip" needs the
            whole training images: they are kept in their own sizes, which "auto" estimates from
            64 files.
        seed: of frames and augmentation. Splits do not depend on it.

    Raises:
        DataError: data missing, unreadable or inconsistent.
        ValueError: an unknown name (the nearest are listed) or a number out of range.
    """
    check_choice("data set", name, DATASETS)
    check_choice("encoding", encoding, ENCODINGS)
    check_choice("augment", augment, AUGMENTS)
    if cache not in (True, False, "auto"):
        raise ValueError(f'cache={cache!r}, expected "auto", True or False')
    if classes is not None and name != "folder":
        raise ValueError(f"classes={list(classes)}: only the data set 'folder' takes classes")
    folder = Path(root or os.environ.get("NEUROCONV_DATA") or "data").expanduser()
    if name == "folder":
        stills = read_folder(folder, classes)
    else:
        sources = {"digits": _digits, "mnist": mnist, "cifar10": cifar10, "imagenette": imagenette}
        stills = sources[name](folder)
    if image_size is None and isinstance(stills.train, ImageFiles):
        image_size = 64
    size = None if image_size is None else _sides(image_size)
    train_stills = stills.train if train_limit is None else _limited(stills, train_limit)
    full_size = [augment == "resized_crop_flip", False, False]
    parts = with_cache([train_stills, stills.val, stills.test], size, cache, full_size)
    train, val, test = (
        Frames(
            part, encoding, time_steps, image_size=size, seed=seed, training=training,
            augment=augment if training else "none",
        )
        for part, training in zip(parts, (True, False, False), strict=True)
    )  # fmt: skip
    steps = 1 if encoding == "none" else time_steps
    return DataSplits(name, train, val, test, train.image_shape, stills.class_names, steps)


def _digits(root: Path) -> StillSplits:
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16  # intensities are 0..16
    rest, test = hold_out(ImageTensors(images, bunch.target.astype(np.int64)), 360)
    train, val = hold_out(rest, 180)
    return StillSplits(train, val, test, tuple(map(str, range(10))))


def _limited(stills: StillSplits, limit: int) -> Stills:
    least, most = len(stills.class_names), len(stills.train)
    if limit == most:
        return stills.train
    if not least <= limit < most:
        raise ValueError(
            f"train_limit={limit}, expected {least} (one image for each class) to {most} (all)"
        )
    return hold_out(stills.train, limit)[1]


def _sides(image_size: int | Sequence[int]) -> tuple[int, int]:
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"image_size={image_size!r}, expected pixels: a side or (height, width)")
    return sides[0], sides[1]
