"""The script of experiments/gpu: its processes, its rows, and its sections on a CPU."""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.scripts import loaded

FOLDER = Path(__file__).resolve().parent.parent / "experiments" / "gpu"
run = loaded(FOLDER / "run.py")
wheels = loaded(FOLDER / "wheels.py")

# Starts a child that sleeps, writes its number, and then sleeps and ends as it is asked.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{child.pid} ")
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""


@pytest.fixture(autouse=True)
def neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As processes of sections have them on their path."""
    for folder in run.NEIGHBOURS:
        monkeypatch.syspath_prepend(str(folder))


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc")
@pytest.mark.parametrize(
    ("seconds", "status", "state"),
    [(600, 0, "killed after its 0 s"), (0, 0, "complete"), (0, 3, "failed")],
)
def test_a_section_ends_with_its_children(
    seconds: int, status: int, state: str, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    section = run.Running([sys.executable, "-c", PARENT, str(file), f"{seconds}", f"{status}"], 60)
    while not (file.exists() and file.read_text().endswith(" ")):
        time.sleep(0.01)
    section.limit = 0 if seconds else 60
    while not section.ended():
        time.sleep(0.01)
    assert section.state == state
    while runs(int(file.read_text())):  # or the test runs out of time
        time.sleep(0.01)


def test_a_call_ends_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = {"beside": run.Section(60), "alone": run.Section(60, alone=True)}
    monkeypatch.setitem(run.CALLS, "smoke", (0.5, sections))
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(run, "command", lambda *_: sleeping)
    assert run.run_call(run.parse(["--smoke", "--out", str(tmp_path)])) == 1
    lines = (tmp_path / "smoke.jsonl").read_text().splitlines()
    states = [json.loads(line)["state"] for line in lines]
    assert states == ["killed after its 0 s", "not run: no time is left"]


def test_rows_say_where_they_are_from_and_what_was_not_run_is_never_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kernels(bench: object) -> Iterator[dict[str, Any]]:
        recording: Any = importlib.import_module("recording")
        yield recording.row("one", figures={"error": recording.figure("e", 2.0, at_most=1)})
        yield recording.not_run("two", "it needs CUDA")
        raise RuntimeError("no more")

    monkeypatch.setitem(sys.modules, "smoke", SimpleNamespace(kernels=kernels))
    words = ["--smoke", "--device", "cpu", "--out", str(tmp_path), "--only", "kernels", "captured"]
    assert run.run_section(run.parse([*words, "--section", "kernels"])) == 1
    monkeypatch.setattr(run, "command", lambda *_: [sys.executable, "-c", "import run; exit(1)"])
    assert run.run_call(run.parse(words)) == 1
    rows = [json.loads(line) for line in (tmp_path / "smoke.jsonl").read_text().splitlines()]
    assert all(row["hardware"]["cores"] and row["versions"]["torch"] for row in rows[:2])
    assert rows[2]["error"] == "RuntimeError: no more"
    capsys.readouterr()
    assert run.summary(iter(rows)) == 1
    assert capsys.readouterr().out == (
        "0 bars met\n  failed: kernels: failed\n  missed: kernels: one: error = 2.0\n"
        "  not run: captured: it needs CUDA\n  not run: kernels: two: it needs CUDA\n"
    )


SLOW = {
    "training", "counters", "calibration", "sizes", "graphs", "throughput", "loops", "real_time",
}  # fmt: skip


@pytest.mark.parametrize(
    ("call", "name"),
    [
        pytest.param(call, name, marks=pytest.mark.slow if name in SLOW else ())
        for call, (_, sections) in run.CALLS.items()
        for name, section in sections.items()
        if not section.cuda or name == "graphs"  # which are the module itself on a CPU
    ],
)
def test_a_section_runs_in_small(call: str, name: str) -> None:
    section = getattr(importlib.import_module(call), name)
    rows = list(section(importlib.import_module("recording").Bench(torch.device("cpu"), True, 0.1)))
    figures = [figure for row in rows for figure in row["figures"].values()]
    assert rows
    assert not [figure for figure in figures if figure.get("met") is False]


def test_wheels_are_what_the_machine_lacks() -> None:
    carried = set(wheels.carried("3.12"))
    assert {"fvcore", "iopath", "tomli-w", "tyro", "typeguard", "pytest", "pluggy"} <= carried
    assert not {"torch", "numpy", "pillow", "triton", "packaging", "rich"} & carried


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--smoke"], "--smoke: expected --out, a folder for the rows"),
        (["--smoke", "--out", "a", "--only", "speed"], "--only speed: expected some of imports"),
        (["--learn", "--out", "a", "--data", "absent"], "--data absent: expected a folder that"),
        ([], "one of the arguments --smoke --measure --learn --wheels is required"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.parse(words)
    assert message in capsys.readouterr().err
