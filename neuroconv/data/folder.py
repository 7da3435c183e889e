"""Image folders: ROOT/{train,val[,test]}/CLASS/*.jpg."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuroconv.data.errors import DataError, check_choice
from neuroconv.data.stills import ImageFiles, StillSplits, hold_out


def read_folder(root: Path, classes: Sequence[str] | None = None) -> StillSplits:
    """Lists an image folder, see `load_data`; `classes` picks class folders and orders the labels.

    Raises:
        DataError: a missing folder, a class without images, folders that disagree.
        ValueError: an unknown or repeated class.
    """
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
        return StillSplits(stills["train"], stills["val"], stills["test"], tuple(names))
    train, val = hold_out(stills["train"], max(round(len(stills["train"]) / 10), len(names)))
    return StillSplits(train, val, stills["val"], tuple(names))


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
