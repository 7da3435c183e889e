"""Seeds that fail, and runs that are damaged, changed or in use, in a comparison."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from neuroconv.comparison import compare, estimate
from neuroconv.training import (
    CheckpointError,
    FailedRun,
    RunError,
    RunResult,
    read_result,
    resume,
    run,
    save_config,
)
from neuroconv.training.runs import read_history
from neuroconv.zoo import register_model
from neuroconv.zoo import registry as registry_module
from tests.commands import Call
from tests.training.small_runs import forbid_training, interrupt_after_first_epoch, small_config


class Faulty(nn.Module):
    """A linear classifier that returns no numbers in training or in validation, from a step on."""

    def __init__(self, pixels: int, fails_in: str, fails_after: float) -> None:
        super().__init__()
        self.linear, self.training_fails = nn.Linear(pixels, 10), fails_in == "training"
        self.fails_after, self.steps = fails_after, 0

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        self.steps += self.training
        wrong = self.steps > self.fails_after and self.training == self.training_fails
        return logits * math.nan if wrong else logits


@pytest.fixture(autouse=True)
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_REGISTRY", dict(registry_module._REGISTRY))

    @register_model
    def faulty(
        *, image_shape: Any = (1, 8, 8), num_classes: int = 10, time_steps: int = 1, seed: int = 0,
        fails_in: str = "training", every_seed: bool = False,
    ) -> nn.Module:  # fmt: skip
        """Fails after the first of two epochs from seed 1, or at once from every seed."""
        fails_after = 0 if every_seed else 6 if seed == 1 else math.inf
        return Faulty(math.prod(image_shape), fails_in, fails_after)


def strict(path: Path) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{path} has {word}, which JSON does not have")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_seed_that_fails_is_shown_and_never_averaged(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    opponents: tuple[dict[str, Any], ...] = (
        {"name": "faulty", "label": "[t]"},
        {"name": "faulty", "label": "[v]", "fails_in": "validation"},
        {"name": "faulty", "label": "[n]", "every_seed": True},
    )
    config = small_config(tmp_path / "runs", seeds=(1, 0), opponents=opponents)
    first, *partly, none = compare(config, progress=False)
    for result in partly:
        assert [type(run) for run in result.runs] == [FailedRun, RunResult]  # it went on
        (run,) = result.finished
        assert result.accuracy == estimate([result.right[0]])
        assert result.difference == estimate(
            [np.subtract(result.right[0], first.right[0], dtype=float)]
        )
        assert (result.accuracy.mean, result.accuracy.half_width) == (run.test_accuracy, None)

    forbid_training(monkeypatch)  # nor is a failed one trained again
    save_config(config, tmp_path / "x.toml")
    status, printed, err = call("compare", "x.toml", "--report", "page.html", "--no-linear")
    assert status == 1
    failed = "[t], seed 1; [v], seed 1; [n], seed 1; [n], seed 0"
    assert err == f"error: 4 of 8 seeds failed: {failed}\n"
    page = unescape((tmp_path / "page.html").read_text())
    models = strict(tmp_path / "comparison.json")["models"]
    for result, model in zip((*partly, none), models[1:], strict=True):
        failed = [run for run in result.runs if isinstance(run, FailedRun)]
        reasons = {
            str(run.seed): f"{run.reason} (to train it again, delete {run.run_dir})"
            for run in failed
        }
        assert model["failed_seeds"] == reasons
        assert model["test_accuracy_fraction_mean"] == result.accuracy.mean
        assert model["run_folders"] == [str(run.run_dir) for run in result.finished]
        assert model["difference_seeds"] == 2 - len(failed)
        texts = [f"{result.label} ({2 - len(failed)} of 2 seeds, {len(failed)} failed)"]
        texts += [f"{result.label}, seed {seed} failed: {why}." for seed, why in reasons.items()]
        for text in (*texts, f"{2 - len(failed)} of 2 pairs"):
            assert text in printed
            assert text in page


def test_train_goes_on_after_a_seed_that_fails(call: Call, tmp_path: Path) -> None:
    config = small_config(tmp_path / "runs", seeds=(1, 0), clip=math.inf)
    config = replace(config, model={"name": "faulty"})
    save_config(config, tmp_path / "x.toml")
    status, out, err = call("train", "x.toml", "--json", "runs.json")
    assert status == 1
    assert err.count("error: 1 of 2 seeds failed: seed 1: epoch 2, step 7") == 1
    assert [line.count("failed") for line in out.splitlines() if "│ faulty" in line] == [2, 0]
    numbers = strict(tmp_path / "runs.json")
    assert [run["seed"] for run in numbers["failed"]] == [1]
    (finished,) = numbers["runs"]
    assert numbers["test_accuracy_fraction_mean"] == finished["test_accuracy"]


def test_runs_that_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(tmp_path, max_steps=1)
    folder = run(config, seed=0, progress=False).run_dir
    forbid_training(monkeypatch)
    for file in ("config.toml", "result.json", "best.safetensors"):
        content = (folder / file).read_bytes()
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 1
        (folder / file).write_bytes(damaged)
        with pytest.raises(RunError, match=f"{folder}: .*{file}.* move or delete it, or compare"):
            compare(replace(config, model={"name": "mlp"}, opponents=(config.model,)))
        (folder / file).write_bytes(content)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "val_loss": math.nan}))
    with pytest.raises(CheckpointError, match=r"result\.json: damaged"):
        read_result(folder)
    for key in (
        "sha256_of_this",
        "resumed_with_changes",
        "accumulate",
        "data_sha256",
        "core_seconds",
    ):  # which 0.5.0 did not write
        del result[key]
    (folder / "result.json").write_text(json.dumps({**result, "val_loss": math.nan}))
    (old,) = compare(config)
    assert isinstance(old.runs[0], FailedRun)
    assert old.accuracy.mean is None
    (folder / "metrics.jsonl").write_text('{"epoch"')  # of a failed run no sum is known
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: damaged .*delete it, or train"):
        read_history(folder)


HOLD = """
import fcntl, json, os, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print(json.dumps({"pid": os.getpid(), "host": "h", "since": "s"}), file=file, flush=True)
print("held", flush=True)
sys.stdin.read()
"""


def test_runs_that_another_process_writes_or_that_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path)
    with monkeypatch.context() as patch:
        interrupt_after_first_epoch(patch)
        with pytest.raises(KeyboardInterrupt):
            run(replace(config, train=replace(config.train, momentum=0.5)), seed=0, progress=False)
    (folder,) = tmp_path.iterdir()
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("momentum = 0.5", "momentum = 0.9"))
    command = [sys.executable, "-c", HOLD, str(folder / "lock.json")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"{folder}: process {holder.pid} on h, since s, writes"):
            compare(replace(config, model={"name": "mlp"}, opponents=(config.model,)))
        holder.communicate()
    assert len(list(tmp_path.iterdir())) == 1  # it was refused before the first model was trained
    resume(folder, force=True, progress=False)
    with pytest.warns(UserWarning, match=f"{folder}: resumed with changes .*momentum.*not counted"):
        (result,) = compare(config, progress=False)
    assert result.finished[0].run_dir != folder


@pytest.mark.slow
def test_two_comparisons_at_the_same_moment_train_each_run_once(tmp_path: Path) -> None:
    config = small_config(tmp_path / "runs", seeds=(0, 1), opponents=({"name": "mlp"},))
    save_config(config, tmp_path / "x.toml")
    command = [sys.executable, "-m", "neuroconv", "compare", "x.toml", "--no-linear", "--report"]
    pairs = [
        subprocess.Popen([*command, f"{name}.html"], cwd=tmp_path, stderr=-1, text=True)
        for name in "ab"
    ]
    ends = [(process.communicate()[1], process.returncode) for process in pairs]
    assert 0 in [status for _, status in ends]
    for error, status in ends:  # the other is refused, or came so late that it read the results
        assert status == 0 or (status == 2 and "writes to this run: wait for its end" in error)
    assert len(list((tmp_path / "runs").iterdir())) == 4
