"""`essay`: the claims of the essay, run as experiments and drawn on one page."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import neuroconv
from neuroconv.cli.options import PageOption, Words, check_output, repeatable
from neuroconv.core.arguments import Size, as_argument
from neuroconv.core.checks import check_choice
from neuroconv.core.text import Terminal
from neuroconv.essay.claim import Claim
from neuroconv.essay.experiment import RECORD, ROWS
from neuroconv.essay.page import read_claims, read_sections, write_page

EXPERIMENTS = Path(neuroconv.__file__).resolve().parents[1] / "experiments"


@dataclass(frozen=True)
class Essay:
    """Runs or re-draws the essay's claims, and writes one page of them with their verdicts.

    The page shows what is recorded in experiments/. With --quick all claims are measured first, in
    about 20 minutes on two cores, and set beside the record. --full takes hours; what it measured
    becomes the record, and is shown, by `python experiments/NAME/run.py full --record --output
    runs/essay/full/NAME`. An interrupted run goes on by the same command. It needs a checkout of
    the project.

    Example: neuroconv essay

    Example: neuroconv essay --quick --claim max_pooling --claim poisson_dropout
    """

    quick: bool = False
    """measure the quick form first; what an earlier run has finished is kept"""
    full: bool = False
    """measure the full form first"""
    claim: Annotated[Words, repeatable(metavar="NAME")] = ()
    """which claims to run: folders in experiments/; default all"""
    jobs: int = 2
    """claims that run at the same time, each on one core"""
    output: Path = Path("runs/essay")
    """folder of what is measured"""
    page: PageOption = Path("essay.html")
    """the page"""

    def __call__(self, console: Console) -> None:
        claims = read_claims(EXPERIMENTS)
        if not claims:
            raise ValueError(
                f"{EXPERIMENTS}: no claims there: `neuroconv essay` needs a checkout of the "
                "project, installed by `pip install -e .`; the wheel has no experiments"
            )
        names = [folder.name for folder in claims]
        for name in self.claim:
            check_choice("--claim", name, names)
        check_output(self.page, "--page")
        failed: list[Path] = []
        jobs = as_argument("--jobs", self.jobs, Size)
        if self.quick and self.full:
            raise ValueError("--quick with --full: expected one of the two")
        if self.claim and not (self.quick or self.full):
            raise ValueError("--claim chooses what is run: expected --quick or --full with it")
        if self.quick or self.full:
            size = "full" if self.full else "quick"
            chosen = {f: claim for f, claim in claims.items() if f.name in (self.claim or names)}
            failed = _run(chosen, size, self.output / size, jobs)
        sections = read_sections(EXPERIMENTS, self.output / "quick")
        write_page(self.page, sections)
        table = Table("claim", "verdict", box=box.SIMPLE_HEAD)
        for entry in sections:
            title = f"{entry.claim.number:2}. {entry.claim.title}"
            table.add_row(title, entry.verdict or "not recorded")
        console.print(table)
        console.out(f"page: {self.page}")
        if failed:
            raise RuntimeError("did not finish:\n" + "\n".join(map(_last_line, failed)))


def _run(claims: dict[Path, Claim], size: str, output: Path, jobs: int) -> list[Path]:
    """Runs claims, the longest first; returns the logs of those that failed."""
    minutes = {folder: claim.minutes[size] for folder, claim in claims.items()}
    waiting = sorted(claims, key=minutes.__getitem__)
    running: dict[Path, subprocess.Popen[bytes]] = {}
    failed: list[Path] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Terminal(stderr=True)) as progress:
        total = progress.add_task("all claims", total=sum(minutes.values()))
        bars = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    folder = waiting.pop()
                    running[folder] = _begin(folder, size, output / folder.name)
                    bars[folder] = progress.add_task(folder.name, total=1.0)
                time.sleep(0.5)
                for folder, process in [*running.items()]:
                    share = _finished_share(output / folder.name)
                    if process.poll() is not None:
                        share = 1.0
                        del running[folder]
                        if process.returncode:
                            failed.append(output / folder.name / "log.txt")
                    progress.update(bars[folder], completed=share)
                done = sum(minutes[f] * progress.tasks[bar].completed for f, bar in bars.items())
                progress.update(total, completed=done)
        finally:
            signal.signal(signal.SIGTERM, before)
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
    return failed


def _last_line(log: Path) -> str:
    """Returns a log's path and its last line, which says what went wrong."""
    lines = log.read_text(encoding="utf-8").split("\n")
    return f"{log}: {next((line for line in reversed(lines) if line.strip()), 'empty')}"


def _begin(folder: Path, size: str, output: Path) -> "subprocess.Popen[bytes]":
    """Starts a claim's run; what it prints goes to log.txt."""
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(folder / "run.py"), size, "--output", str(output)]
    with (output / "log.txt").open("w", encoding="utf-8") as log:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)


def _finished_share(output: Path) -> float:
    """Returns the share of a run's rows that are measured."""
    if (output / RECORD).exists() or not (output / ROWS).exists():
        return float((output / RECORD).exists())
    header, *rows = (output / ROWS).read_text(encoding="utf-8").splitlines() or ["{}"]
    try:
        return len(rows) / json.loads(header)["rows"]
    except (ValueError, KeyError, ZeroDivisionError):
        return 0.0
