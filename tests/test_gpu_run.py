"""The script of experiments/gpu: its processes, its rows, and its sections on a CPU."""

import argparse
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

# Starts a child that sleeps, writes its number, and then does what is asked.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc")
@pytest.mark.parametrize(
    ("seconds", "status", "state"),
    [(600, 0, "killed after its 1 s"), (0, 0, "complete"), (0, 3, "failed")],
)
def test_a_section_ends_with_its_children(
    seconds: int, status: int, state: str, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    words = [sys.executable, "-c", PARENT, str(file), str(seconds), str(status)]
    section = run.Running(words, 600.0)
    while not (file.exists() and file.read_text()):
        time.sleep(0.01)
    section.limit = 600.0 if seconds == 0 else 1.0
    while not section.ended():
        time.sleep(0.01)
    assert section.state == state
    child = int(file.read_text())
    while runs(child):  # its end is the kernel's to tell
        time.sleep(0.01)


def options(call: str, out: Path, *words: str) -> argparse.Namespace:
    parsed: argparse.Namespace = run.parse(
        [f"--{call}", "--device", "cpu", "--out", str(out), *words]
    )
    return parsed


def rows_of(out: Path, call: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{call}.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As processes of sections have them on their path."""
    for folder in run.NEIGHBOURS:
        monkeypatch.syspath_prepend(str(folder))


def test_what_needs_cuda_is_not_run_and_every_row_says_where_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options("smoke", tmp_path, "--only", "imports", "captured", "--section", "imports")
    assert run.run_section(words) == 0
    measured = rows_of(tmp_path, "smoke")
    assert len(measured) > 2
    assert all(row["hardware"]["cores"] and row["versions"]["torch"] for row in measured)
    monkeypatch.setattr(run, "command", lambda *_: [sys.executable, "-c", "import run, wheels"])
    assert run.run_call(words) == 0
    rows = rows_of(tmp_path, "smoke")
    assert [(row["section"], row["state"]) for row in rows if "state" in row] == [
        ("captured", "not run: it needs CUDA"), ("imports", "complete")
    ]  # fmt: skip
    run.summary(iter(rows))
    lines = capsys.readouterr().out.splitlines()
    assert "  not run: captured: it needs CUDA" in lines
    assert "  not run: imports: Triton's kernels on the device: it needs CUDA" in lines


def test_rows_before_an_error_stay_and_the_error_ends_the_section_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kernels(bench: object) -> Iterator[dict[str, Any]]:
        recording: Any = sys.modules["recording"]
        yield recording.row("one", figures={"error": recording.figure("e", 2.0, at_most=1)})
        raise RuntimeError("no more")

    monkeypatch.setitem(sys.modules, "smoke", SimpleNamespace(kernels=kernels))
    assert run.run_section(options("smoke", tmp_path, "--section", "kernels")) == 1
    run.append(options("smoke", tmp_path), "peaks", {"state": "killed after its 30 s"})
    rows = rows_of(tmp_path, "smoke")
    assert rows[0]["comparison"] == "one"
    assert rows[1]["error"] == "RuntimeError: no more"
    assert run.summary(iter(rows)) == 1
    assert capsys.readouterr().out.endswith(
        "0 bars met\n  failed: peaks: killed after its 30 s\n  missed: kernels: one: error = 2.0\n"
    )


SLOW = {"training", "counters", "calibration", "sizes", "throughput", "real_time"}
SECTIONS = [
    pytest.param(call, name, marks=pytest.mark.slow if name in SLOW else ())
    for call, (_, sections) in run.CALLS.items()
    for name, section in sections.items()
    if not section.cuda
]


@pytest.mark.parametrize(("call", "name"), SECTIONS)
def test_a_section_runs_in_small(call: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in run.NEIGHBOURS:
        monkeypatch.syspath_prepend(str(folder))
    section = getattr(importlib.import_module(call), name)
    bench = importlib.import_module("recording").Bench(torch.device("cpu"), True, 0.1)
    rows = list(section(bench))
    assert rows
    wrong = [
        row for row in rows for figure in row["figures"].values() if figure.get("met") is False
    ]
    assert not wrong


def test_limits_fit_into_their_calls() -> None:
    """Checks run beside one another, and what measures time alone."""
    for limit, sections in run.CALLS.values():
        alone = sum(section.seconds for section in sections.values() if section.alone)
        checks = max((s.seconds for s in sections.values() if not s.alone), default=0)
        assert alone + checks <= 1.25 * limit  # none takes its limit but the one that fails
        assert sum(not section.alone for section in sections.values()) <= run.BESIDE + 1


def test_wheels_are_what_the_machine_lacks() -> None:
    carried = wheels.carried("3.12")
    assert {"fvcore", "iopath", "tomli-w", "tyro", "typeguard", "pytest", "pluggy"} <= set(carried)
    assert not {"torch", "numpy", "pillow", "triton", "packaging", "rich"} & set(carried)


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--smoke"], "--smoke: expected --out, a folder for the rows"),
        (["--smoke", "--out", "a", "--only", "speed"], "--only speed: expected some of imports"),
        (["--learn", "--out", "a", "--data", "absent"], "--data absent: expected a folder that"),
        (["--smoke", "--learn", "--out", "a"], "not allowed with argument"),
        ([], "one of the arguments --smoke --measure --learn --wheels is required"),
    ):
        with pytest.raises(SystemExit, match="2"):
            run.parse(words)
        assert message in capsys.readouterr().err
