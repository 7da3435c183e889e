import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroconv.data import DataError, load_data
from neuroconv.flops.machine.roofline import device_name
from neuroconv.kernels import native
from neuroconv.training import DataConfig, RunError, load_config, run
from neuroconv.training.runs import evaluate, resume
from neuroconv.training.verify import verify
from tests.data.photographs import write_photographs
from tests.training.small_runs import interrupt_after_first_epoch, small_config


def test_a_run_is_a_folder_that_rebuilds_its_model(tmp_path: Path) -> None:
    config = small_config(tmp_path / "runs")
    result = run(config, seed=7, progress=False)
    folder = result.run_dir
    assert folder.match(f"{tmp_path}/runs/linear-*-seed7")
    assert {path.name for path in folder.iterdir()} == {
        "config.toml", "metrics.jsonl", "best.safetensors", "last.safetensors", "environment.json",
        "result.json", "curves.png", "test_answers.npy",
    }  # fmt: skip
    saved = load_config(folder / "config.toml")
    assert saved.model == {
        "name": "linear", "image_shape": (1, 8, 8), "num_classes": 10, "time_steps": 1
    }  # fmt: skip
    assert saved.train == replace(config.train, seeds=(7,))
    assert result.parameters == 64 * 10 + 10
    assert result.test_images == 360
    assert result.test_accuracy > 0.7
    assert result.steps == 2 * 6
    assert result.peak_memory_mib > 1
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["device"] == device_name("cpu")
    assert environment["packages"]["torch"]
    assert environment["cpp_kernels"] == native.state()
    assert environment["triton_kernels"].startswith("off: ")
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")

    assert resume(folder) == result  # a finished run is read
    test, val = evaluate(folder), evaluate(folder, "val")
    assert (test.loss, test.accuracy) == (result.test_loss, result.test_accuracy)
    assert (val.loss, val.accuracy) == (result.val_loss, result.val_accuracy)
    right = result.test_answers == load_data("digits", encoding="none").test.targets
    assert (right.mean(), right.shape) == (result.test_accuracy, (360,))
    assert np.array_equal(test.answers, result.test_answers)
    assert (folder / "test_answers.npy").stat().st_size == 128 + 360  # a byte an image
    with pytest.raises(RunError, match="split = 'train'"):
        evaluate(folder, "train")


def test_an_interrupted_run_says_how_to_go_on_and_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path / "runs")
    cut = tmp_path / "cut"
    with monkeypatch.context() as patch:
        interrupt_after_first_epoch(patch)
        with pytest.raises(KeyboardInterrupt, match=f"neuroconv resume {cut}"):
            run(config, seed=1, run_dir=cut, progress=False)
    with pytest.raises(RunError, match="is not finished: `neuroconv resume"):
        evaluate(cut)
    with pytest.raises(RunError, match="is not empty"):
        run(config, seed=1, run_dir=cut, progress=False)
    assert resume(cut, progress=False).steps == 2 * 6


def test_a_trial_does_not_see_the_test_set(tmp_path: Path) -> None:
    result = run(small_config(tmp_path, test=False, max_steps=1), seed=0, progress=False)
    assert (result.test_loss, result.test_accuracy, result.test_images) == (None, None, 0)
    assert [*result.data_sha256] == ["train", "val"]
    assert result.test_answers is None
    checks = {c.name: c for c in verify(result.run_dir, steps=3, progress=False)}
    assert all(check.ok for check in checks.values())
    assert checks["test"].message == "not scored, by [train] test = false"


def test_folders_that_are_no_run(tmp_path: Path) -> None:
    for call, folder in ((resume, tmp_path), (evaluate, tmp_path / "none")):
        with pytest.raises(RunError, match="is not a run"):
            call(folder)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ({"num_classes": 7}, {}, r"num_classes = 7: the data set 'digits'.* gives 10"),
        ({"image_shape": (3, 8, 8)}, {}, r"image_shape = \(3, 8, 8\)"),
        ({"time_steps": 5}, {}, "time_steps = 5: .* gives 1"),
        ({"wdith": 3}, {}, r"\[model\] name = 'linear'.*wdith"),
        ({"name": "liner"}, {}, "liner"),
        ({}, {"device": "abacus"}, "device = 'abacus'"),
    ],
)
def test_a_mistake_leaves_no_folder(
    tmp_path: Path, model: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    config = small_config(tmp_path / "runs", **settings)
    with pytest.raises(ValueError, match=message):
        run(replace(config, model={**config.model, **model}), seed=0, progress=False)
    assert not (tmp_path / "runs").exists()


def test_data_that_moved_are_those_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(tmp_path / "old", train=12, val=4)
    data = DataConfig(name="folder", root=str(tmp_path / "old"), encoding="none", image_size=8)
    config = replace(small_config(tmp_path / "runs", batch_size=4, max_steps=1), data=data)
    result = run(config, seed=0, progress=False)
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(DataError, match="old"):
        evaluate(result.run_dir)
    monkeypatch.setenv("NEUROCONV_DATA", str(tmp_path / "new"))
    assert evaluate(result.run_dir).loss == result.test_loss
