"""Runs that take a moment, and what keeps a run from its end."""

import signal
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset

from neuroconv.training import Config, DataConfig, TrainConfig


class EpochData(Dataset[Any]):
    """A data set that is told its epoch."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.data, self.epoch = data, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]


def newest(folder: Path) -> Path:
    """The tensors of a run's newest checkpoint."""
    return max((folder / "checkpoints").glob("epoch-*.safetensors"))


def small_config(
    output: Path, *, opponents: tuple[dict[str, Any], ...] = (), **settings: Any
) -> Config:
    """A linear classifier on 300 digits, in two epochs of six steps."""
    return Config(
        model={"name": "linear"},
        data=DataConfig(name="digits", encoding="none", train_limit=300),
        train=TrainConfig(
            **{
                "epochs": 2, "learning_rate": 0.1, "batch_size": 50, "output": str(output),
                "device": "cpu", **settings,
            }
        ),
        opponents=opponents,
    )  # fmt: skip


def interrupt_after_first_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(bar: Any, record: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("neuroconv.training.trainer.TrainingBar.epoch", stop)


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("nothing should be trained here")

    monkeypatch.setattr("neuroconv.training.runs.train", fail)
