"""The README says what its commands say: its Python runs, and its blocks are their output."""

import re
import runpy
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from neuroconv.brain import BrainReport, estimate_brain
from neuroconv.flops import profile, summary_table
from neuroconv.neurons import CELL_CLASSES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def lines(*shown: object, width: int) -> list[str]:
    """What a console of so many columns prints, without the ends of lines and empty ones."""
    console = Console(file=StringIO(), width=width)
    for each in shown:
        console.print(each)
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]


def test_its_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    assert "25000000000" in capsys.readouterr().out.splitlines()


def test_its_estimate_is_the_commands() -> None:
    report = BrainReport(estimate_brain())
    printed = lines(*report.sections(("headline", "grid")), width=88)
    assert len(printed) > 30
    assert [line for line in printed if line not in README] == []


def test_its_counts_are_the_commands() -> None:
    shown = [
        profile(cells, torch.rand(1, 1_000, cells.time_steps), name=name)
        for name in ("granule", "purkinje")
        for cells in [CELL_CLASSES[name](1_000, 1)]
    ]
    table = lines(summary_table(shown), width=100)
    rows = [line for line in table if line.startswith("│")]
    assert len(rows) > 20
    assert [row for row in rows if row not in README] == []


def test_its_example_is_the_record() -> None:
    table = runpy.run_path(str(ROOT / "experiments" / "brain" / "example.py"))["table"]()
    assert table in README
