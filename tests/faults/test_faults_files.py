"""Damaged files: named, and never taken for what they were."""

import random
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from neuroconv.comparison import compare
from neuroconv.training import evaluate, load_config, read_result, rebuild, resume
from tests.faults import jobs
from tests.faults.folders import Whole, checkpoints, cut, flip, last_step, outcome
from tests.faults.harness import Child, finish

Damage = Callable[[Path], object]


def damages(quick: int) -> list[Any]:
    """Returns flips of random bits, of which the first few are quick, and two cuts."""
    draw = random.Random(0)
    flips = [
        pytest.param(partial(flip, bit=draw.randrange(2**40)), id=f"flip{number}",
                     marks=[] if number < quick else pytest.mark.slow)
        for number in range(30)
    ]  # fmt: skip
    return [*flips, *(pytest.param(partial(cut, quarters=n), id=f"cut{n}") for n in (2, 0))]


def compared(run: Path) -> Any:
    """Compares the configuration of `jobs.LINEAR`, of which a folder holds the run."""
    words = iter([*jobs.LINEAR[2:], "--train.epochs", 2, "--train.output", run.parent])
    overrides = [f"{key}={value}" for key, value in zip(words, words, strict=True)]
    return compare(load_config(jobs.CONFIG, overrides), progress=False)


READERS = evaluate, rebuild, read_result, partial(resume, progress=False), compared


@pytest.fixture(scope="session")
def finished(memory: Path) -> Path:
    """A finished run of the command line."""
    output = memory / "finished"
    finish(jobs.neuroconv, *jobs.LINEAR, "--train.epochs", 2, "--train.output", output)
    return next(output.iterdir())


@pytest.mark.parametrize("damage", damages(quick=3))
@pytest.mark.parametrize(
    "file",
    ["config.toml", "result.json", "metrics.jsonl", "best.safetensors", "last.safetensors"],
)
def test_files_of_a_finished_run(file: str, damage: Damage, finished: Path, folder: Path) -> None:
    """A bit flip in, half of, or nothing of a finished run's file: every reader names the file."""
    run = copytree(finished, folder / finished.name)
    damage(run / file)
    for read in READERS:
        with pytest.raises(ValueError, match=file):
            read(run)


@pytest.fixture(scope="session")
def unfinished(memory: Path) -> Path:
    """A run of `jobs.fit`, killed in its second epoch, with checkpoints of two steps."""
    folder = memory / "unfinished"
    folder.mkdir()
    gate = jobs.Gate(folder, 17, times=2)
    with Child(jobs.fit, folder / "run", save_steps=1, gate=gate) as child:
        child.until(gate.reached.exists)
    assert len(checkpoints(folder / "run")) == 2
    return folder / "run"


@pytest.mark.parametrize("damage", damages(quick=1))
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_damaged_checkpoint(
    suffix: str, damage: Damage, unfinished: Path, folder: Path, whole: Whole
) -> None:
    """A damaged checkpoint: it is named, the one before is used, and the end is bit-equal."""
    run = copytree(unfinished, folder / "run")
    path = checkpoints(run)[last_step(run)].with_suffix(suffix)
    damage(path)
    with pytest.warns(UserWarning, match=path.name):
        jobs.fit(run)
    assert outcome(run) == whole()


@pytest.mark.parametrize("damage", damages(quick=1))
@pytest.mark.parametrize("files", ["*.json", "*step*.safetensors", "best-*"])
def test_damaged_checkpoints(
    files: str, damage: Damage, unfinished: Path, folder: Path, capsys: Any
) -> None:
    """All checkpoints, or the best weights that they share, damaged: an error that names them."""
    run = copytree(unfinished, folder / "run")
    paths = list((run / "checkpoints").glob(files))
    for path in paths:
        damage(path)
    with pytest.raises(SystemExit):
        jobs.fit(run)
    output = capsys.readouterr().out
    assert all(path.name in output for path in paths)


@pytest.mark.parametrize("damage", damages(quick=2))
def test_a_damaged_configuration(damage: Damage, interrupted: Path, folder: Path) -> None:
    """A damaged config.toml of an interrupted run: it or its key is named, or the end is equal."""
    run = copytree(interrupted, folder / "run")
    damage(run / "config.toml")
    whole = copytree(interrupted, folder / "whole")
    resume(whole, progress=False)
    try:
        resume(run, progress=False)
    except ValueError as error:
        message = str(error)
    else:
        message = "[train] is as it was" if outcome(run) == outcome(whole) else "another run"
    assert re.search(r"config\.toml|\[(model|data|train)\]", message), message
