"""Signals: the state is saved, what is printed is what is saved, the status is 128 + n."""

import os
import random
import re
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from neuroconv.training.signals import Interrupted, StopSignal
from tests.faults import jobs
from tests.faults.folders import Whole, debris, last_step, outcome
from tests.faults.harness import ENVIRONMENT, Child, finish

SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
SLOW = pytest.mark.slow
MOMENTS = "step", "save", "validation", "workers"
QUICK = {
    ("step", signal.SIGUSR1, 2), ("save", signal.SIGTERM, 2), ("validation", signal.SIGTERM, 1),
    ("workers", signal.SIGINT, 1),
}  # fmt: skip


@pytest.mark.parametrize(
    ("moment", "number", "times"),
    [
        pytest.param(*case, marks=[] if case in QUICK else SLOW)
        for case in product(MOMENTS, SIGNALS, (1, 2))
    ],
)
def test_signals(
    moment: str, number: signal.Signals, times: int, folder: Path, whole: Whole
) -> None:
    """A signal during a step, a save, a validation, with workers, and a second one: saved."""
    # A gate in the second epoch, but with workers, which read in other processes each time.
    run, gate = folder / "run", jobs.Gate(folder, 17, times=1 if moment == "workers" else 2)
    settings: dict[str, Any] = {
        "step": {}, "validation": {}, "workers": {"epochs": 1},
        "save": {"epochs": 1, "width": 20_000},
    }[moment]  # fmt: skip
    options = {
        "step": {"gate": gate}, "validation": {"val_gate": gate},
        "workers": {"gate": gate, "workers": 4}, "save": {"save_steps": 1},
    }[moment]  # fmt: skip
    with Child(jobs.fit, run, **settings, **options) as child:
        if moment == "save":
            child.until(lambda: last_step(run) > 2 and list(run.rglob("*.tmp")))
        else:
            child.until(gate.reached.exists)
        # A terminal's Ctrl-C goes to the workers too.
        for pid in [*child.workers, child.pid] * times:
            os.kill(pid, number)
        gate.opened.touch()
        assert child.wait() == 128 + number, child.output
        check_message(child.output, run)
    finish(jobs.fit, run, **settings)
    assert outcome(run) == whole(**settings)


def check_message(output: str, run: Path) -> None:
    """Checks that a run says what it saved, and no more."""
    assert "Traceback" not in output
    assert debris(run) == []
    assert re.findall(r"step (\d+)", output) == [str(last_step(run))], output


@pytest.fixture(scope="session")
def command(memory: Path) -> tuple[list[Any], dict[str, Any]]:
    """A command that trains a network with draws of its own, and the outcome of its run."""
    words = [*jobs.GRANULES, "--train.epochs", 4]
    finish(jobs.neuroconv, *words, "--train.output", memory / "command")
    return words, outcome(next((memory / "command").iterdir()))


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, *(pytest.param(n, marks=SLOW) for n in SIGNALS[1:])]
)
def test_the_end_of_a_command(number: signal.Signals, folder: Path, command: Any) -> None:
    """kill -9 of, or a signal to, `neuroconv train`: `neuroconv resume`, as printed, is equal."""
    words, expected = command
    words = *words, "--train.save_steps", 3, "--train.output", folder / "runs"
    with Child(jobs.neuroconv, *words) as child:
        child.until_printed("epoch 2/4")
        child.send(number)
        assert child.wait() == 128 + number, child.output
        (run,) = (folder / "runs").iterdir()
        if number != signal.SIGKILL:
            check_message(child.output, run)
            assert f"neuroconv resume {run}" in child.output
    finish(jobs.neuroconv, "resume", run)
    assert outcome(run) == expected


@SLOW
@pytest.mark.parametrize("seed", range(10))
def test_ctrl_c_during_imports(seed: int, folder: Path) -> None:
    """Ctrl-C while the command line imports: status 130 and no traceback."""
    command = [sys.executable, "-X", "importtime", "-m", "neuroconv", *map(str, jobs.LINEAR)]
    after = random.Random(seed).randrange(1, 1500)  # modules
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        next(line for line in lines if re.search(r"\| +neuroconv\.cli", line))
        for _ in range(after):
            next(lines)
        process.send_signal(signal.SIGINT)
        rest = [line for line in lines if not line.startswith("import time:")]
    assert process.returncode == 130, (after, rest)
    assert "Traceback" not in "".join(rest), after
    assert not (folder / "runs").exists()


def test_a_signal_that_is_ignored() -> None:
    """A signal that the process ignores, as under nohup: it stays ignored."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with StopSignal(None) as stop:
            signal.raise_signal(signal.SIGUSR1)
            assert stop.number == 0
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(Interrupted, match="SIGUSR1"), StopSignal(None):
        signal.raise_signal(signal.SIGUSR1)
