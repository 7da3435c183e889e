"""Runs that meet in one folder, and runs that are resumed as another run."""

import json
import platform
import re
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from neuroconv import __version__
from neuroconv.training.checkpoint import read_record, write_record
from tests.commands import status_of
from tests.faults import jobs
from tests.faults.folders import change, checkpoints, flip, outcome
from tests.faults.harness import Child


def test_two_runs_in_one_folder(folder: Path) -> None:
    """Two started at one moment in one folder, 10 times: one trains, the other names the first."""
    for attempt in range(10):
        run, start = folder / f"run{attempt}", folder / f"start{attempt}"
        gate = jobs.Gate(run, 17)
        with ExitStack() as stack:
            pair = [Child(jobs.fit, run, wait_for=start, gate=gate) for _ in range(2)]
            for child in pair:
                stack.enter_context(child)
            start.touch()
            loser = pair[0].until(lambda p=pair: [child for child in p if not child.alive])[0]
            winner = next(child for child in pair if child is not loser)
            assert loser.wait() == 2, loser.output
            assert f"process {winner.pid} on {platform.node()}" in loser.output, loser.output
            winner.until(gate.reached.exists)


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_two_runs_that_start_in_one_second(times: int, folder: Path) -> None:
    """Two trainings started at one moment without a folder, 10 times: a folder for each."""
    for attempt in range(times):
        start, output = folder / f"start{attempt}", folder / f"runs{attempt}"
        words = *jobs.LINEAR, "--train.epochs", 1000, "--train.output", output
        with ExitStack() as stack:
            children = [Child(jobs.neuroconv, *words, wait_for=start) for _ in range(2)]
            for child in children:
                stack.enter_context(child)
            start.touch()
            for child in children:
                child.until_printed("epoch 2/1000")
        runs = list(output.iterdir())
        assert len(runs) == 2
        holders = [json.loads((run / "lock.json").read_text())["pid"] for run in runs]
        assert {*holders} == {child.pid for child in children}


CHANGES: dict[str, Any] = {
    "model.seed": 9, "model.pull": 0.3, "model.unit.output.mean_wait": 0.3,
    "data.encoding": "repeat", "data.train_limit": 90, "data.augment": "crop_flip",
    "train.batch_size": 20, "train.learning_rate": 1e-3, "train.optimizer": "sgd",
    "train.epochs": 90, "train.seeds": [1], "train.label_smoothing": 0.1, "train.clip": 0.5,
}  # fmt: skip
KEYS = [pytest.param([key], id=key, marks=pytest.mark.slow) for key in CHANGES]


@pytest.mark.parametrize("keys", [pytest.param(list(CHANGES), id="all"), *KEYS])
def test_a_changed_configuration(
    keys: list[str], interrupted: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Changed keys of config.toml: resume shows each, before and now; only `--force` goes on."""
    run = copytree(interrupted, folder / "run")
    for key in keys:
        change(run / "config.toml", key, CHANGES[key])
    assert status_of("resume", run) == 2
    shown = capsys.readouterr().err
    for key in keys:
        assert re.search(rf"^ +\[\w+\] .*, now {re.escape(repr(CHANGES[key]))}$", shown, re.M), (
            shown
        )
    assert "--force" in shown
    assert status_of("resume", run, "--force") == 0
    changes = json.loads((run / "result.json").read_text())["resumed_with_changes"]
    assert all(line in shown for line in changes)
    assert len(changes) >= len(keys)


def test_settings_that_may_change(interrupted: Path, folder: Path) -> None:
    """Changed workers, output and frequency of saves: the run goes on, bit-equal."""
    runs = [copytree(interrupted, folder / name) for name in ("as it was", "changed")]
    for key, value in {"data.workers": 2, "train.output": "b", "train.save_steps": 5}.items():
        change(runs[1] / "config.toml", key, value)
    assert [status_of("resume", run) for run in runs] == [0, 0]
    assert outcome(runs[0]) == outcome(runs[1])


def test_another_version(interrupted: Path, folder: Path, capsys: Any) -> None:
    """A checkpoint of another version of the package: refused with both versions."""
    run = copytree(interrupted, folder / "run")
    for path in checkpoints(run).values():
        record = read_record(path)
        record["described"]["version of neuroconv"] = "0.4.9"
        write_record(path, record)
    assert status_of("resume", run) == 2
    assert f"'0.4.9', now '{__version__}'" in capsys.readouterr().err


def test_changed_data(folder: Path, capsys: Any) -> None:
    """One byte of one image changed: refused with the data's name."""
    images = folder / "images"
    for split, label, number in product(("train", "val"), "ab", range(6)):
        path = images / split / label / f"{number}.pgm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P5 8 8 255\n" + bytes(range(10 * number, 10 * number + 64)))
    words = (
        *jobs.LINEAR[:2], "--model.name", "linear", "--data.name", "folder", "--data.root", images,
        "--data.encoding", "none", "--data.image_size", 8, "--train.batch_size", 2,
        "--train.seeds", "[0]", "--train.max_steps", 2000, "--train.epochs", 1000,
        "--train.save_steps", 1, "--train.output", folder / "runs",
    )  # fmt: skip
    with Child(jobs.neuroconv, *words) as child:
        child.until(lambda: list(folder.glob("runs/*/checkpoints/*.json")))
    (run,) = folder.glob("runs/*")
    flip(images / "train" / "b" / "3.pgm", bit=8 * 40)
    assert status_of("resume", run) == 2
    assert "train_data" in capsys.readouterr().err
