"""`neuroconv verify`: a sound run passes, and each check fails for a cause of its own."""

import json
import re
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neuroconv.training import RunError, RunFailed, resume, run
from neuroconv.training.checkpoint import file_sum, read_record, write_record
from neuroconv.training.runs import OLD_RESULT
from neuroconv.training.verify import verify
from neuroconv.zoo import register_model, registry
from tests.commands import Call
from tests.training.small_runs import interrupt_after_first_epoch, small_config

GRANULE = {"name": "granule_convnet", "widths": (2, 3), "strides": (2, 1)}
GRANULE["unit"] = {"output": {"kind": "poisson_dropout"}}


def outcomes(folder: Path, ok: bool = False) -> dict[str, str]:
    """The messages of the checks that failed, or of those that passed."""
    checks = verify(folder, steps=4, progress=False)
    return {check.name: check.message for check in checks if check.ok == ok}


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(small_config(tmp_path_factory.mktemp("runs")), seed=0, progress=False).run_dir


@pytest.fixture
def copy(linear: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(linear, tmp_path / "copy"))


def test_a_sound_run_passes(linear: Path, tmp_path: Path, call: Call) -> None:
    config = replace(small_config(tmp_path, max_steps=4, batch_size=20), model=GRANULE)
    for folder in (linear, run(config, seed=3, progress=False).run_dir):
        status, out, _ = call("verify", folder, "--steps", 4, "--json", "checks.json")
        rows = [line.split(maxsplit=2) for line in out.splitlines()[:-1]]
        assert (status, [row[0] for row in rows]) == (0, ["ok"] * 6)
        checks = json.loads((tmp_path / "checks.json").read_text())["checks"]
        assert [row[1:] for row in rows] == [[c["name"], c["message"]] for c in checks]
        assert [row for row in rows[3:] if not row[2].endswith("to the bit")] == []


def test_damaged_and_missing_files_are_all_named(copy: Path, call: Call) -> None:
    weights = bytearray((copy / "best.safetensors").read_bytes())
    weights[-1] ^= 0x40  # an exponent
    (copy / "best.safetensors").write_bytes(weights)
    (copy / "last.safetensors").unlink()
    status, out, _ = call("verify", copy, "--steps", 3)
    failed = [line.split()[1] for line in out.splitlines() if line.startswith("FAILED")]
    assert (status, failed) == (1, ["files", "val", "test"])
    assert re.search(r"best\.safetensors: damaged.*; .*last\.safetensors: missing", out)


def test_a_result_of_version_0_5_0_passes_and_a_damaged_one_is_named(copy: Path) -> None:
    path = copy / "result.json"
    values = read_record(path)
    path.write_text(json.dumps({key: values[key] for key in OLD_RESULT}))
    assert outcomes(copy) == {}
    assert "not recorded" in outcomes(copy, ok=True)["data"]
    path.write_text(path.read_text()[:-9])
    failed = outcomes(copy)
    assert "result.json: damaged" in failed.pop("files")
    assert failed == dict.fromkeys(("model", "data", "val", "test", "resume"), "as files")


def test_other_answers_with_their_right_sum_are_seen(copy: Path) -> None:
    answers = np.load(copy / "test_answers.npy")
    values = read_record(copy / "result.json")
    for changed, failed in ((2, []), (3, ["test"])):
        np.save(copy / "test_answers.npy", np.r_[answers[:changed] ^ 1, answers[changed:]])
        values["sha256"]["test_answers.npy"] = file_sum(copy / "test_answers.npy")
        write_record(copy / "result.json", values)
        assert [*outcomes(copy)] == failed
        assert f"{changed} other answers" in outcomes(copy, ok=not failed)["test"]


@pytest.mark.parametrize(
    ("factor", "failed", "name", "part"),
    [
        (-1, ["val", "test"], "val", "more than rounding"),
        (1 + 2**-20, [], "test", "(torch = '1."),
        (None, ["model", "data", "val", "test", "resume"], "model", "num_classes = 7"),
    ],
)
def test_changes_with_right_sums(
    copy: Path, factor: float | None, failed: list[str], name: str, part: str
) -> None:
    if factor:  # of the weights
        tensors = load_file(copy / "best.safetensors")
        save_file({k: factor * v for k, v in tensors.items()}, copy / "best.safetensors")
        edit(copy / "environment.json", '"torch": "', '"torch": "1.')
    else:
        edit(copy / "config.toml", "num_classes = 10", "num_classes = 7")
    assert "files" in outcomes(copy)
    values = read_record(copy / "result.json")
    sums = {file: file_sum(copy / file) for file in values["sha256"]}
    write_record(copy / "result.json", {**values, "sha256": sums})
    assert [*outcomes(copy)] == failed
    assert part in outcomes(copy, ok=not failed)[name]


def test_a_changed_image_is_seen(tmp_path: Path) -> None:
    for split, label in product(("train", "val", "test"), (0, 1)):
        (folder := tmp_path / "data" / split / str(label)).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), 120 * label + number).save(folder / f"{number}.png")
    config = small_config(tmp_path, batch_size=4)
    data = replace(config.data, name="folder", root=str(tmp_path / "data"), train_limit=None)
    folder = run(replace(config, data=data), seed=0, progress=False).run_dir
    assert outcomes(folder) == {}
    Image.new("L", (8, 8), 255).save(tmp_path / "data" / "val" / "0" / "0.png")
    failed = outcomes(folder)
    assert [*failed] == ["data", "val"]
    assert failed["data"].startswith("val: other images")


class Unrepeatable(nn.Linear):
    """Logits that depend on the training's calls so far: of this model, or of the process."""

    calls, forgets = 0, True

    def forward(self, images: Tensor) -> Tensor:
        counter: Any = self if self.forgets else Unrepeatable
        counter.calls += self.training
        return super().forward(images.flatten(1)) * (1 + counter.calls * self.training)


@pytest.mark.parametrize(("forgets", "cause"), [(True, "a buffer"), (False, "no seed decides")])
def test_a_model_that_cannot_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgets: bool, cause: str
) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(Unrepeatable, "forgets", forgets)

    @register_model
    def unrepeatable(
        image_shape: Any = (1, 8, 8), num_classes: int = 10, time_steps: int = 1
    ) -> Any:
        return Unrepeatable(64, num_classes)

    config = replace(small_config(tmp_path), model={"name": "unrepeatable"})
    failed = outcomes(run(config, seed=0, progress=False).run_dir)
    assert [*failed] == ["resume"]
    assert cause in failed["resume"]


def test_a_failed_run_is_not_verified(tmp_path: Path) -> None:
    with pytest.raises(RunFailed):
        run(small_config(tmp_path, learning_rate=1e38), seed=0, run_dir=tmp_path / "failed")
    with pytest.raises(RunError, match=r"failed: .*loss.*; expected a finished run"):
        next(verify(tmp_path / "failed"))


def test_a_run_that_goes_on_in_another_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cut"
    with monkeypatch.context() as patch:
        interrupt_after_first_epoch(patch)
        with pytest.raises(KeyboardInterrupt):
            run(small_config(tmp_path, epochs=3), seed=0, run_dir=folder, progress=False)
        with pytest.raises(RunError, match="not finished: `neuroconv resume"):
            next(verify(folder))
        edit(folder / "environment.json", '"threads": ', '"threads": 99')
        with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match=r"\(threads = 99"):
            resume(folder, progress=False)
    resume(folder, progress=False)  # in the same environment
    environment = json.loads((folder / "environment.json").read_text())
    threads = [values["threads"] for values in (environment, *environment["resumed_with"])]
    assert threads == [int(f"99{torch.get_num_threads()}"), torch.get_num_threads()]
    assert "files" in outcomes(folder, ok=True)
