"""Resuming after a year on a shared disk: other people's files, changed models, odd targets."""

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from neuroconv.data.fingerprint import fingerprint
from neuroconv.training import CheckpointError, TrainResult, WriteError, train
from neuroconv.training.signals import Interrupted
from tests.training.small_runs import EpochData

DATA = TensorDataset(torch.rand(24, 4), torch.arange(24) % 4)


class Signals(EpochData):
    def __getitem__(self, index: int) -> Any:
        if self.epoch == 0 and index == 5:
            self.epoch = 1
            signal.raise_signal(signal.SIGTERM)
        return self.data[index]


def layers(frozen: int = -1) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[frozen].requires_grad_(frozen < 0)
    return model


def fit(folder: Path, model: nn.Module | None = None, **keywords: Any) -> TrainResult:
    keywords = {"epochs": 3, "batch_size": 8, "progress": False, "resume": True, **keywords}
    return train(model or layers(), DATA, DATA, run_dir=folder, **keywords)


def fit_until(epoch: int, folder: Path, model: nn.Module | None = None, **keywords: Any) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == epoch:
            raise KeyError("end")

    with pytest.raises(KeyError, match="end"):
        fit(folder, model, callback=stop, **keywords)


def test_signals_in_the_test_of_a_resumed_run(tmp_path: Path) -> None:
    for _ in range(2):  # the second run has no step left to take
        with pytest.raises(Interrupted, match="step 9, with 3 epochs finished"):
            fit(tmp_path, test_data=(data := Signals(DATA)))
    assert fit(tmp_path, test_data=data).test == fit(tmp_path / "whole", test_data=DATA).test


@pytest.mark.parametrize(("before", "after"), [(-1, 0), (0, -1), (0, 1)])
def test_other_layers_are_frozen(before: int, after: int, tmp_path: Path) -> None:
    fit_until(1, tmp_path, layers(before))
    with pytest.raises(CheckpointError, match=r"\n    frozen = "):
        fit(tmp_path, layers(after))
    fit_until(2, tmp_path, model := layers(after), force=True)  # with moments of the same weights
    assert model[after].weight.isfinite().all()


def test_checkpoints_stay_and_other_files_are_left_alone(tmp_path: Path) -> None:
    (other := tmp_path / "checkpoints" / ".ipynb_checkpoints").mkdir(parents=True)
    (other.parent / "notes.json").write_text("mine")
    fit_until(1, tmp_path, save_steps=1, keep=3)
    fit_until(2, tmp_path, keep=3)
    assert {"notes.json", other.name} < {path.name for path in other.parent.iterdir()}
    assert len(list(other.parent.glob("epoch-*.json"))) == 3
    shutil.rmtree(other.parent)
    with pytest.warns(UserWarning, match="no checkpoint is left: the run begins again"):
        fit_until(1, tmp_path)


def test_a_folder_that_is_moved_while_it_trains(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(WriteError, match=f"{path}/checkpoints: cannot be written .No such file"):
        fit(path, callback=lambda record: path.rename(tmp_path / "moved"))


def test_a_resumed_run_does_not_depend_on_the_files_it_read(tmp_path: Path) -> None:
    fit_until(1, tmp_path, learning_rate=1e-9)  # the best epoch

    def damage(record: dict[str, Any]) -> None:
        for path in (tmp_path / "checkpoints").iterdir() if record["epoch"] == 2 else ():
            path.write_bytes(b"")  # the pages of a map of it are gone: SIGBUS
            path.unlink()

    fit(tmp_path, callback=damage, learning_rate=1e-9)
    assert fit(tmp_path, learning_rate=1e-9).best_epoch == 1  # its weights were written again


def sum_of(targets: Any) -> str:
    data: Any = EpochData(DATA)
    data.targets = targets
    return fingerprint(data)


def test_targets_of_any_kind_have_a_sum() -> None:
    array = np.array([f"class {number}" for number in range(5000)], dtype=object)
    (changed := array.copy())[2500] = "another"
    assert sum_of(array) != sum_of(changed)
    for targets in ([[1], [2, 3], []], [torch.ones(2, 4), torch.ones(1, 4)], [{"box": [1]}]):
        assert sum_of(targets) == sum_of([*targets])
        assert sum_of(targets) != sum_of([*targets, *targets])
    assert sum_of([object()]) == sum_of([object()])  # whose addresses would refuse every resume
