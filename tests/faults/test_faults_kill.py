"""kill -9: a run that was killed anywhere, any number of times, ends as if it had not been."""

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults import jobs
from tests.faults.folders import Whole, debris, last_step, outcome
from tests.faults.harness import Child, call, finish

SLOW = pytest.mark.slow


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=SLOW)])
def test_kills_within_saves(kills: int, folder: Path, whole: Whole) -> None:
    """kill -9 at random points of 20 saves, or 200: the run ends bit-equal to a whole one."""
    settings: dict[str, Any] = {"width": 2000, "save_steps": 1}
    expected, draw, run = whole(**settings), random.Random(kills), folder / "run"
    within, history = 0, []
    while within < kills:
        assert len(history) < 8 * kills, f"only {within} of {len(history)} kills were in a save"
        with Child(jobs.fit, run, **settings) as child:
            before, wait = last_step(run), draw.uniform(0, 0.006)
            child.until(lambda b=before: last_step(run) > b or not child.alive)
            child.until(lambda: list(run.rglob("*.tmp")) or not child.alive)
            time.sleep(wait)
            child.send(signal.SIGKILL)
            status = child.wait()
        history.append((last_step(run), status, f"{wait:.4f} s", debris(run)))
        within += bool(debris(run))
        if status == 0:
            assert outcome(run) == expected, history
            shutil.rmtree(run)
        else:
            assert status == 128 + signal.SIGKILL, child.output
    finish(jobs.fit, run, **settings)
    assert outcome(run) == expected, history
    assert not list(run.rglob("*.tmp"))


@pytest.mark.parametrize("workers", [0, 4])
@pytest.mark.parametrize("stop", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=SLOW)])
def test_stops_within_epochs(
    workers: int, stop: signal.Signals, folder: Path, whole: Whole
) -> None:
    """Ten stops within epochs, 0 and 4 workers, random augmentation: bit-equal to a whole run."""
    draw, run = random.Random(workers), folder / "run"
    steps = sorted(draw.sample([step for step in range(1, 42) if step % 15], 10))
    for step in steps:
        with Child(jobs.fit, run, workers=workers, save_steps=1) as child:
            child.until(lambda s=step: last_step(run) >= s)
            child.send(stop)
            assert child.wait() == 128 + stop, child.output
    # The whole run saves at the ends of epochs alone: saving changes nothing.
    finish(jobs.fit, run, workers=workers)
    assert outcome(run) == whole(), steps


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=SLOW)])
def test_kills_at_the_end(kills: int, folder: Path) -> None:
    """kill -9 of a command after its last epoch: `neuroconv resume` finishes it, bit-equal."""
    draw, words = random.Random(kills), (*jobs.LINEAR, "--train.epochs", 1, "--train.output")
    finish(jobs.neuroconv, *words, folder / "whole")
    (whole,) = (folder / "whole").iterdir()
    for number in range(kills):
        with Child(jobs.neuroconv, *words, folder / str(number)) as child:
            child.until_printed("epoch 1/1")
            time.sleep(draw.uniform(0, 0.3))
            child.send(signal.SIGKILL)
            child.wait()
        (run,) = (folder / str(number)).iterdir()
        finish(jobs.neuroconv, "resume", run)
        assert outcome(run) == outcome(whole)
        assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}


def test_temporaries(folder: Path, whole: Whole) -> None:
    """Temporaries: those of a killed run are removed when it is resumed, a living one's stay."""
    run, gate = folder / "run", jobs.Gate(folder, 17)
    temporary = run / "checkpoints" / ".step-00000099.json.1.tmp"
    with Child(jobs.fit, run, gate=gate) as child:
        child.until(gate.reached.exists)
        temporary.parent.mkdir(exist_ok=True)
        temporary.touch()
        assert call(jobs.fit, run)[0] == 2
        assert temporary.exists()
        child.send(signal.SIGKILL)
    finish(jobs.fit, run)
    assert outcome(run) == whole()
    assert debris(run) == []


def test_a_killed_loader_worker(folder: Path, whole: Whole) -> None:
    """A loader worker killed -9: exit status 2 and a message; the resumed run is bit-equal."""
    run, gate = folder / "run", jobs.Gate(folder, 17)
    with Child(jobs.fit, run, epochs=1, workers=4, save_steps=1, gate=gate) as child:
        child.until(gate.reached.exists)
        os.kill(child.workers[0], signal.SIGKILL)
        gate.opened.touch()
        assert child.wait() == 2, child.output
        assert "worker" in child.output
    finish(jobs.fit, run, epochs=1, workers=4)
    assert outcome(run) == whole(epochs=1)


def test_workers_that_outlive_their_run(folder: Path, whole: Whole) -> None:
    """Loader workers that outlive a killed run: they do not hold its lock, nor change its bits."""
    run, gate = folder / "run", jobs.Gate(folder, 17)
    with Child(jobs.fit, run, epochs=1, workers=4, gate=gate) as child:
        child.until(gate.reached.exists)
        workers = child.workers
        child.send(signal.SIGKILL)
        child.wait()
        assert any(Path(f"/proc/{pid}").exists() for pid in workers)
        finish(jobs.fit, run, epochs=1, workers=4)
        gate.opened.touch()
    assert outcome(run) == whole(epochs=1)
