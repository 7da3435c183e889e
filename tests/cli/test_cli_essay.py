"""`neuroconv essay`: runs claims beside one another, resumes them, and draws one page."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuroconv.cli import essay
from neuroconv.core.version import __version__
from neuroconv.essay.page import read_claims
from tests.commands import Call

CLAIM = """
number = {number}
title = "A title"
claim = "A claim."
place = "here"
picture = "Nothing."
minutes = {{ quick = 1, full = 2 }}
[quantities.gain]
states = "it gains"
unit = "points"
expected = [1, inf]
"""
RUN = """
from dataclasses import dataclass
from matplotlib.figure import Figure
from neuroconv.essay import Experiment, Interval

@dataclass(frozen=True)
class Size:
    seeds: tuple = (0, 1, 2)

def measure(size, *, seed, folder, kind):
    {body}
    return {{"gain": 2.0 + seed}}

def quantities(rows):
    gains = rows.values("gain")
    return {{"gain": Interval(gains.mean(), gains.min(), gains.max(), 3)}}

EXPERIMENT = Experiment(__file__, {{"quick": Size(), "full": Size()}},
                        lambda size: [{{"kind": 1}}], measure, quantities, lambda rows: Figure())
if __name__ == "__main__":
    EXPERIMENT.main()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two claims, of which the second fails."""
    for number, (name, body) in enumerate({"gains": "pass", "fails": "1 / seed"}.items(), 1):
        folder = tmp_path / "experiments" / name
        folder.mkdir(parents=True)
        (folder / "claim.toml").write_text(CLAIM.format(number=number))
        (folder / "run.py").write_text(RUN.format(body=body))
    monkeypatch.setattr(essay, "EXPERIMENTS", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_claims_run_beside_one_another_and_one_that_fails_is_named(
    call: Call, project: Path
) -> None:
    status, _, err = call("essay", "--quick")
    assert status == 2
    assert "runs/essay/quick/fails/log.txt: ZeroDivisionError: division by zero" in err
    page = (project / "essay.html").read_text()
    assert "3 [2, 4]" in page  # of the quick run, beside the record that does not exist
    assert "Not recorded yet." in page
    result = project / "runs/essay/quick/gains/result.json"
    made = result.stat().st_mtime_ns
    assert call("essay", "--quick", "--claim", "gains")[0] == 0
    assert (project / "runs/essay/quick/gains/rows.jsonl").read_text().count("\n") == 4
    assert result.stat().st_mtime_ns > made
    result.write_text(result.read_text().replace(f'"version": "{__version__}"', '"version": "0"'))
    assert call("essay")[0] == 0
    assert "3 [2, 4]" not in (project / "essay.html").read_text()


def test_a_command_that_is_ended_ends_its_claims(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    begin = essay._begin
    monkeypatch.setattr(essay, "_begin", lambda *a: begun.append(begin(*a)) or begun[-1])
    ends = SimpleNamespace(sleep=lambda _: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(essay, "time", ends)
    with pytest.raises(SystemExit):
        essay._run(read_claims(project / "experiments"), "quick", project / "out", 1)
    assert [process.returncode for process in begun] == [-signal.SIGTERM]


def test_without_a_run_the_page_shows_the_record(call: Call, project: Path) -> None:
    status, out, _ = call("essay", "--page", "new/page.html")
    assert status == 0
    assert "page: " in out
    assert '2. <a href="#fails">A title</a>' in (project / "new/page.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--quick", "--full"), "--quick with --full: expected one of the two"),
        (("--claim", "gain"), "--claim"),
        (("--claim", "gains"), "expected --quick or --full with it"),
        (("--jobs", "0"), "--jobs"),
    ],
)
def test_a_mistake_is_named(
    call: Call, project: Path, words: tuple[str, ...], message: str
) -> None:
    status, _, err = call("essay", *words)
    assert status == 2
    assert message in err


def test_it_needs_a_checkout(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(essay, "EXPERIMENTS", tmp_path)
    status, _, err = call("essay")
    assert status == 2
    assert "needs a checkout of the project" in " ".join(err.split())
