"""What the children of the fault suite do: real runs on the digits, as a user would write them."""

import io
import random
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch._dynamo
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset

import neuroconv.cli.runs
from neuroconv.cli import main
from neuroconv.training import train

CONFIG = Path(__file__).resolve().parents[2] / "configs/digits_granule.toml"
# `neuroconv train` of networks that take a moment.
GRANULES = (
    "train", CONFIG, "--model.widths", "[4]", "--model.strides", "[2]", "--data.time_steps", 2,
    "--model.unit.output.mean_wait", 0.5, "--data.augment", "flip", "--data.train_limit", 100,
    "--train.seeds", "[0]", "--train.batch_size", 10, "--train.device", "cpu",
)  # fmt: skip
LINEAR = (
    "train", CONFIG, "--model.name", "linear", "--data.encoding", "none", "--data.train_limit", 200,
    "--train.seeds", "[0]", "--train.batch_size", 20, "--train.device", "cpu",
)  # fmt: skip
torch.set_num_threads(1)
_BUNCH = load_digits()
IMAGES = torch.from_numpy(_BUNCH.images).float().unsqueeze(1) / 16
LABELS = torch.from_numpy(_BUNCH.target)
plt.figure().savefig(io.BytesIO())  # reads the fonts, once for all children
plt.close("all")


@dataclass
class Gate:
    """Where a reader of an image waits, for the n-th time: it makes `reached`, until `opened`."""

    folder: Path
    index: int
    times: int = 1
    reads: int = 0

    @property
    def reached(self) -> Path:
        return self.folder / "reached"

    @property
    def opened(self) -> Path:
        return self.folder / "opened"

    def read(self, index: int) -> None:
        self.reads += index == self.index
        if (index, self.reads) == (self.index, self.times) and not self.reached.exists():
            self.reached.touch()
            while not self.opened.exists():
                time.sleep(0.001)


class Digits(Dataset[Any]):
    """Digits that a user's own code changes, by the generators of numpy, Python and torch."""

    def __init__(
        self, start: int, stop: int, *, gate: Gate | None = None, nan: int = -1, moved: bool = True
    ) -> None:
        self.images, self.labels = IMAGES[start:stop].clone(), LABELS[start:stop]
        self.gate, self.moved = gate, moved
        if nan >= 0:
            self.images[nan, 0, 3, 3] = torch.nan

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.gate is not None:
            self.gate.read(index)
        image = self.images[index]
        if self.moved:
            image = image.roll(random.randint(-1, 1), -1) + 0.1 * torch.randn(image.shape)
            image = image * float(np.random.uniform(0.8, 1.2))  # noqa: NPY002  (as users do)
        return image, self.labels[index]


def fit(
    folder: Path, *, wait_for: Path | None = None, workers: int = 0, width: int = 64,
    gate: Gate | None = None, val_gate: Gate | None = None, nan: dict[str, int] | None = None,
    **settings: Any,
) -> None:  # fmt: skip
    """Trains a small network with dropout in, or from, a folder: 15 steps in each of 3 epochs."""
    _wait(wait_for)
    spoilt = {"train": -1, "val": -1, "test": -1, **(nan or {})}
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10)
    )
    quick = {"epochs": 3, "learning_rate": 1e-2, "batch_size": 8, "progress": False}
    try:
        train(
            model,
            Digits(0, 120, gate=gate, nan=spoilt["train"]),
            Digits(200, 240, gate=val_gate, nan=spoilt["val"], moved=False),
            test_data=Digits(300, 340, nan=spoilt["test"], moved=False),
            run_dir=folder, resume=True, workers=workers, **{**quick, **settings},
        )  # fmt: skip
    except KeyboardInterrupt as stop:
        print(f"{type(stop).__name__}: {stop}")
        sys.exit(128 + stop.signal)  # type: ignore[attr-defined]
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(2)


def neuroconv(*words: Any, wait_for: Path | None = None, file_bytes: int | None = None) -> None:
    """Runs a command, once a file exists, and without files above a size."""
    _wait(wait_for)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    main([str(word) for word in words])


def _wait(path: Path | None) -> None:
    while path is not None and not path.exists():
        time.sleep(1e-4)  # two that wait for one file go on at one moment
