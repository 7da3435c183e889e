"""The essay's claims: rules of the verdict, runs that resume, and every experiment at test size."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from neuroconv.comparison import Estimate
from neuroconv.essay import Claim, Experiment, Interval, Quantity, Rows, read_claim, verdict
from neuroconv.essay.experiment import RECORD, ROWS
from neuroconv.essay.page import read_claims, read_sections, write_page
from neuroconv.training import RunError
from tests.scripts import loaded

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
FOLDERS = [*read_claims(EXPERIMENTS)]
CLAIM = """
number = 1
title = "Larger is better"
claim = "A larger one is better."
place = "here"
picture = "A line."
minutes = { quick = 1, full = 2 }
[quantities.gain]
states = "it gains"
unit = "points"
expected = [0.5, inf]
"""


def quantity(low: float, high: float) -> Quantity:
    return Quantity("it holds", "", (low, high))


@pytest.mark.parametrize(
    ("measured", "outcome"),
    [
        ((2.0, 1.0, 3.0), "holds"),
        ((2.0, 0.9, 3.0), "inconclusive"),
        ((0.5, 0.1, 0.9), "does not hold"),
        ((3.0, 1.0, math.inf), "inconclusive"),
        ((1.0, 1.0, 1.0), "holds"),
    ],
)
def test_an_outcome_follows_from_the_interval(measured: tuple[float, ...], outcome: str) -> None:
    assert quantity(1, 5).outcome(Interval(*measured)) == outcome


def test_a_verdict_follows_from_the_outcomes() -> None:
    ends = {"holds": (2, 2, 2), "does not hold": (9, 9, 9), "inconclusive": (2, 0, 9)}
    rules = {
        ("holds", "holds"): "holds",
        ("holds", "does not hold"): "holds in part",
        ("holds", "inconclusive"): "holds in part",
        ("inconclusive", "does not hold"): "does not hold",
        ("inconclusive", "inconclusive"): "inconclusive",
        (): "no verdict",
    }
    minutes = {"quick": 1, "full": 1}
    for outcomes, expected in rules.items():
        table = {"states": "it holds", "unit": "", "expected": (1, 5)}
        names = "ab"[: len(outcomes)]
        claim = Claim(1, "t", "c", "p", "p", minutes, quantities=dict.fromkeys(names, table))
        measured = {n: Interval(*ends[o]) for n, o in zip(names, outcomes, strict=True)}
        assert verdict(claim, measured) == expected
    with pytest.raises(ValueError, match=r"measured \['c'\]: expected \[\]"):
        verdict(claim, {"c": Interval.exact(1)})


def test_intervals_come_from_estimates() -> None:
    assert Interval.of(Estimate(0.02, 0.01, 5), 100) == Interval(2, 1, 3, 5)
    with pytest.raises(ValueError, match="1 seeds: expected two or more"):
        Interval.of(Estimate(0.02, None, 1))
    null = Quantity("it grows", "", (1.0, math.inf), null=1.0)
    assert null.agrees(Interval.exact(1.2), Interval.exact(3))
    assert not null.agrees(Interval.exact(0.8), Interval.exact(3))


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('unit = "points"', "", "has no unit"),
        ("expected = [0.5, inf]", "", "has no expected"),
        ("inf]", "inf, 3]", "expected = .*: expected 2 values"),
        ("[0.5, inf]", '["a", 1]', "expected = .*: expected"),
        ("quick = 1, ", "", "minutes = .*quick"),
        ("[quantities.gain]", "[quantities]", "states = .*: expected .quantities.states."),
    ],
)
def test_a_mistake_names_file_and_key(before: str, after: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "claim.toml").write_text(CLAIM.replace(before, after))
    with pytest.raises(ValueError, match=says) as error:
        read_claim(tmp_path)
    assert str(tmp_path / "claim.toml") in str(error.value)


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]


def experiment(folder: Path, stop: int | None = None) -> Experiment:
    """An experiment whose measure fails at the row of number `stop`."""
    (folder / "claim.toml").write_text(CLAIM)
    (folder / "run.py").write_text("# a script")
    measured: list[int] = []

    def measure(size: Size, *, seed: int, folder: Path, width: int) -> dict[str, Any]:
        measured.append(seed)
        if len(measured) == stop:
            raise KeyboardInterrupt
        return {"gain": width + seed, "right": np.array([True, False, seed > 0])}

    def quantities(rows: Rows) -> dict[str, Interval]:
        gains = rows.values("gain", width=4) - rows.values("gain", width=1)
        assert rows.values("right", width=1).tolist()[0] == [True, False, False]
        return {"gain": Interval(gains.mean(), gains.min(), gains.max(), len(gains))}

    return Experiment(
        str(folder / "run.py"), {"full": Size((0, 1, 2)), "test": Size((0, 1))},
        lambda size: [{"width": width} for width in (1, 4)], measure, quantities,
        lambda rows: Figure(), lambda rows: f"{len(rows)} rows",
    )  # fmt: skip


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    tmp_path.joinpath("a").mkdir()
    with pytest.raises(KeyboardInterrupt):
        experiment(tmp_path / "a", stop=4).run("full", tmp_path / "out", progress=False)
    rows = tmp_path / "out" / ROWS
    assert len(rows.read_text().splitlines()) == 4  # with the header
    rows.write_text(rows.read_text() + '{"half')  # a row that a killed process began
    resumed = experiment(tmp_path / "a").run("full", tmp_path / "out", progress=False)
    whole = experiment(tmp_path / "a").run("full", tmp_path / "other", progress=False)
    assert unspent(resumed["values"]) == unspent(whole["values"])
    assert resumed["verdict"] == "holds"
    with pytest.raises(RunError, match="rows are of another size"):
        experiment(tmp_path / "a").run("test", tmp_path / "out", progress=False)


def unspent(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the seconds that they took."""
    return [{k: v for k, v in row.items() if k != "core_seconds"} for row in rows]


def test_only_a_full_run_becomes_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    test = experiment(tmp_path)
    test.main([])
    assert "**Not recorded yet.**" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        test.main(["test", "--record"])
    assert not (tmp_path / RECORD).exists()
    test.main(["full", "--record"])
    shown = capsys.readouterr().out
    assert "| it gains | points | at least 0.5 | 3 | holds |" in shown
    assert "**Holds.**" in shown
    assert "6 rows" in shown
    test.main([])
    assert capsys.readouterr().out == shown
    (tmp_path / "experiments" / "larger").mkdir(parents=True)
    for name in ("claim.toml", RECORD, "picture.svg"):
        (tmp_path / name).rename(tmp_path / "experiments" / "larger" / name)
    write_page(tmp_path / "new" / "essay.html", read_sections(tmp_path / "experiments"))
    page = (tmp_path / "new" / "essay.html").read_text()
    assert "1. Larger is better" in page
    assert "Holds." in page
    assert "<svg" in page
    for broken in ("{", "{}", '{"quantities": {"gain": {"valu": 1}}}'):
        (tmp_path / "experiments" / "larger" / RECORD).write_text(broken)
        with pytest.raises(ValueError, match=r"larger/result\.json"):
            read_sections(tmp_path / "experiments")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_experiment_measures_what_its_claim_fixes(folder: Path, tmp_path: Path) -> None:
    test: Experiment = loaded(folder / "run.py").EXPERIMENT
    record = test.run("test", tmp_path / "first", progress=False)
    again = test.run("test", tmp_path / "second", progress=False)
    assert unspent(record["values"]) == unspent(again["values"])  # equal to the bit
    claim = read_claim(folder)
    assert set(record["quantities"]) == set(claim.quantities)
    assert test.page(record).startswith("**Claim.**")
    assert (tmp_path / "first" / "picture.svg").stat().st_size > 1000
    seeds = {size: len(test.sizes[size].seeds) for size in ("quick", "full")}
    assert seeds == {"quick": 1, "full": 1} or (seeds["quick"] >= 3 and seeds["full"] >= 5)
    readme = (folder / "README.md").read_text()
    assert f"<!-- output of `python experiments/{folder.name}/run.py` -->" in readme


@pytest.mark.parametrize(
    "folder", [f for f in FOLDERS if (f / RECORD).exists()], ids=lambda folder: folder.name
)
def test_a_verdict_follows_from_its_record(folder: Path) -> None:
    test: Experiment = loaded(folder / "run.py").EXPERIMENT
    record = json.loads((folder / RECORD).read_text())
    measured = test.quantities(Rows(record["values"]))
    assert record["size"] == "full"
    assert {n: vars(interval) for n, interval in measured.items()} == record["quantities"]
    assert verdict(read_claim(folder), measured) == record["verdict"]


def test_the_quick_runs_of_all_claims_fit_into_the_promised_time() -> None:
    assert sum(read_claim(folder).minutes["quick"] for folder in FOLDERS) <= 2 * 25
