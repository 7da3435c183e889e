"""Folders of small photographs of noise, in the layout of the data set "folder"."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_photographs(root: Path, train: int, val: int) -> None:
    """Writes ROOT/{train,val}/{a,b}/*.jpg, no two of a class and part of one size."""
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                noise = generator.integers(0, 256, (20 + i, 44 - i, 3), dtype=np.uint8)
                Image.fromarray(noise).save(root / part / name / f"{i:02}.jpg")
