"""The pages that say how fast the neuron is: what they say is what the record holds."""

import copy
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.scripts import loaded

FOLDER = Path(__file__).resolve().parent.parent / "experiments" / "bench"
RECORD = json.loads((FOLDER / "result.json").read_text())


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return loaded(FOLDER / "table.py")


@pytest.fixture
def record() -> dict[str, Any]:
    return copy.deepcopy(RECORD)


def judge(record: dict[str, Any], comparison: str, name: str, **changed: Any) -> None:
    """Writes another value into both places of the record that hold it."""
    for section in record["sections"].values():
        for row in section["rows"]:
            if row["comparison"] == comparison:
                row["figures"][name] |= changed
    for bar in record["bars"]:
        if (bar["comparison"], bar["figure"]) == (comparison, name):
            bar |= changed


def test_the_pages_hold_what_was_recorded(table: ModuleType) -> None:
    assert {page.relative_to(FOLDER.parent.parent).as_posix() for page in table.PAGES} == {
        "README.md", "experiments/bench/README.md"
    }  # fmt: skip
    for page, names in table.PAGES.items():
        text = page.read_text()
        again = "run python experiments/bench/table.py"
        assert table.filled(text, names, RECORD) == text, again


def test_every_bar_is_in_a_line_and_every_miss_in_the_list(table: ModuleType) -> None:
    shown = [
        id(figure)
        for line in table.every_line(RECORD)
        for names, figure in zip((line.forward, line.both), line.figures, strict=True)
        for figure in table.figures(RECORD, names, figure)
        if table.bar(figure)
    ]
    assert len(shown) == len(set(shown)) == len(RECORD["bars"]) > 70
    missed = [bar for bar in RECORD["bars"] if not bar.get("met")]
    listed = table.missed(RECORD).splitlines()[2:]
    assert len(listed) == len(missed)
    for bar, line in zip(missed, listed, strict=True):
        assert line.startswith(f"| {bar['comparison']} | `{bar['figure']}` | ")
    assert f"**{len(RECORD['bars']) - len(missed)} of {len(RECORD['bars'])} " in table.run(RECORD)


def test_the_text_follows_the_record(table: ModuleType, record: dict[str, Any]) -> None:
    forward = ("Purkinje, forward", "conv3d_over_neuroconv_ratio")
    judge(record, *forward, value=612.4, met=True)
    row = "| full Purkinje cell | times faster than `conv3d` | "
    assert f"{row}612 | ≥ 500 | " in table.table(record, table.SUMMARY)
    before = table.run(record)
    judge(record, *forward, value=499.7, met=False)
    assert f"{row}499.7 | ≥ 500, **missed** | " in table.table(record, table.SUMMARY)
    assert table.run(record) != before
    assert "| Purkinje, forward | `conv3d_over_neuroconv_ratio` | 499.7 | " in table.missed(record)


def test_what_is_missing_is_said(table: ModuleType, record: dict[str, Any]) -> None:
    rival = ("Purkinje, forward", "fft_conv_pytorch_over_neuroconv_ratio")
    judge(record, *rival, value=None)
    for bar in record["bars"]:
        if (bar["comparison"], bar["figure"]) == rival:
            del bar["met"]
    record["sections"]["granule"]["state"] = "MemoryError: no more"
    del record["sections"]["training"]
    record["bars"] = [bar for bar in record["bars"] if bar["section"] != "training"]
    summary = table.table(record, table.SUMMARY)
    assert "| times faster than fft-conv-pytorch | not measured | ≥ 4 | " in summary
    assert (
        "| an epoch of MNIST | `granule_convnet`, times a plain CNN of equal FLOPs |  |  "
        in summary
    )
    assert summary.endswith("|  |  | not measured |  |")
    assert f"`{rival[1]}` | not measured | " in table.missed(record)
    run = " ".join(table.run(record).split())
    assert "Not measured: 1 more." in run
    assert "Section `granule` ended: MemoryError: no more." in run


@pytest.mark.parametrize(
    ("value", "decimals", "bar", "text"),
    [
        (488.72, 1, {"at_least": 500, "met": False}, "489"),
        (2126.17, 1, {"at_least": 300, "met": True}, "2,126"),
        (4.0046, 1, {"at_least": 4, "met": True}, "4.0"),
        (3.96, 1, {"at_least": 4, "met": False}, "3.96"),
        (3.9996, 1, {"at_least": 4, "met": False}, "3.9996"),
        (1.504, 2, {"at_most": 1.5, "met": False}, "1.504"),
        (2.9524, 2, {"at_most": 4, "met": True}, "2.95"),
        (21.05, 1, {}, "21.1"),
        (4.22e-7, 2, {"at_most": 1e-5, "met": True}, "4.2e-07"),
        (1.004e-5, 2, {"at_most": 1e-5, "met": False}, "1.004e-05"),
        (None, 2, {"at_least": 4}, "not measured"),
    ],
)
def test_rounding_carries_no_number_over_its_bar(
    table: ModuleType, value: float | None, decimals: int, bar: dict[str, Any], text: str
) -> None:
    assert table.number({"value": value, **bar}, decimals) == text


def test_ranges_and_counts(table: ModuleType) -> None:
    found = [
        {"value": 2.05, "at_most": 1.5, "met": False},
        {"value": 1.2, "at_most": 1.5, "met": True},
        {"value": None, "at_most": 1.5},
    ]
    assert table.cells(found, 2) == ("1.20 to 2.05", "≤ 1.5, **1 of 3 missed**, 1 not measured")


def test_mistakes(table: ModuleType, record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"the page has the blocks \[\]; expected \['run'\]"):
        table.filled("no block", ["run"], RECORD)
    record["settings"]["quick"] = True
    with pytest.raises(ValueError, match="the record is of --quick"):
        table.filled("<!-- bench: run -->\n<!-- end -->", ["run"], record)
