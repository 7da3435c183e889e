"""Other estimates, firing rates, the brain's energy, and the rebuttal."""

import math
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from neuroconv.brain.evidence import essay
from neuroconv.brain.evidence.others import (
    OTHERS,
    RATES,
    bands,
    energies,
    others_rows,
    others_table,
)
from neuroconv.brain.evidence.published import Published
from neuroconv.brain.evidence.rebuttal import arguments
from neuroconv.brain.quantity import bare_numbers
from neuroconv.neurons import PRESETS
from neuroconv.references import REFERENCES


def _named(start: str) -> Published:
    (found,) = [each for each in (*OTHERS, *RATES) if each.name.startswith(start)]
    return found


@pytest.mark.parametrize(
    ("name", "year", "low", "high", "unit"),
    [
        ("Merkle", 1989, 1e13, 1e16, "operations/s"),
        ("Moravec", 1998, 1e14, 1e14, "instructions/s"),
        ("Kurzweil 2005, functions", 2005, 1e14, 1e16, "calculations/s"),
        ("Kurzweil 2005, neurons", 2005, 1e19, 1e19, "calculations/s"),
        ("Sandberg and Bostrom 2008, analog", 2008, 1e15, 1e15, "FLOP/s"),
        ("Sandberg and Bostrom 2008, spiking", 2008, 1e18, 1e18, "FLOP/s"),
        ("Sandberg and Bostrom 2008, electro", 2008, 1e22, 1e22, "FLOP/s"),
        ("Sandberg and Bostrom 2008, metabolome", 2008, 1e25, 1e25, "FLOP/s"),
        ("AI Impacts 2015, traversed", 2015, 0.18e14, 6.4e14, "edges/s"),
        ("neurons x synapses x rate", 2015, 2e15, 4e15, "FLOP/s"),
        ("Drexler", 2019, 1e15, 1e15, "FLOP/s"),
        ("Carlsmith 2020, hardly", 2020, 1e21, 1e21, "FLOP/s"),
        ("AI Impacts 2015, human brain", 2015, 0.1, 2, "Hz"),
        ("Attwell and Laughlin", 2001, 4, 4, "Hz"),
        ("Lennie", 2003, 0.16, 0.16, "Hz"),
        ("the essay", 2015, 50, 1000, "Hz"),
    ],
)
def test_figures(name: str, year: int, low: float, high: float, unit: str) -> None:
    found = _named(name)
    assert (found.year, found.low.unit, found.high.unit) == (year, unit, unit)
    assert (found.low.value, found.high.value) == pytest.approx((low, high), rel=1e-15)


def test_carlsmith() -> None:
    (found,) = [each for each in OTHERS if each.name == "Carlsmith 2020"]
    assert found.best is not None
    assert (found.low.value, found.best.value, found.high.value) == (10**13, 10**15, 10**17)


def test_in_order_and_well_formed() -> None:
    assert [each.year for each in OTHERS] == sorted(each.year for each in OTHERS)
    for each in (*OTHERS, *RATES):
        assert each.low.value <= each.high.value
        if each.best is not None:
            assert each.low.value <= each.best.value <= each.high.value
        assert each.low.source.cites
        assert each.what
    names = [each.name for each in (*OTHERS, *RATES)]
    assert len(set(names)) == len(names)


def test_ratio_to_the_essay() -> None:
    spiking = _named("Sandberg and Bostrom 2008, spiking").essay_times
    assert spiking is not None
    assert spiking.value == pytest.approx(1075)
    cortical = _named("Lennie").essay_times
    assert cortical is not None
    assert cortical.value == pytest.approx(1250)
    assert _named("AI Impacts 2015, traversed").essay_times is None
    essays = _named("neurons x")
    assert essays.low.value == essay.SYNAPSES.value * 200
    assert essays.high.value == 2 * essays.low.value


def test_rates_come_from_the_presets() -> None:
    for cell in ("pyramidal", "purkinje", "deep_nuclear", "golgi"):
        numbers = PRESETS[cell, "literature"]
        (found,) = [each for each in RATES if each.low.name == f"{cell}.rate_hz"]
        assert found.low.value == numbers.rate_hz
        assert found.low.source is numbers.sources["rate_hz"]
    # Of the cells with a cited rate, none is left out.
    cited = {
        cell for (cell, kind), each in PRESETS.items() if kind == "literature" and each.rate_hz
    }
    assert cited == {"pyramidal", "purkinje", "deep_nuclear", "golgi"}


def test_bands() -> None:
    found = {name: (low, high, year) for name, low, high, year in bands()}
    assert found["Carlsmith 2020"] == (1e13, 1e17, 2020)
    assert len(found) == len(bands()) == len(OTHERS) - 2
    # A limit on estimates is none, and edges are no operations.
    assert not any("hardly" in name or "edges" in name for name in found)
    assert all(isinstance(value, float) for low, high, _ in found.values() for value in (low, high))


def test_energies() -> None:
    found = {each.name: each for each in energies()}
    assert (found["brain.power"].value, found["brain.power"].unit) == (20, "W")
    each = found["brain.energy_per_flop"]
    assert (each.unit, each.value) == ("J", pytest.approx(20 / 1.075e21))
    bound = found["landauer_bound"]
    assert bound.value == pytest.approx(1.380649e-23 * 310.15 * math.log(2))
    assert found["brain.energy_per_flop_to_bound"].value == pytest.approx(6.268, rel=1e-3)


def test_rebuttal() -> None:
    first, _, third, last = arguments()
    assert {each.source.reference for each in arguments()} == {"byrnes2021"}
    # What was not read says so.
    assert [("not looked up" in each.source.note) for each in arguments()] == [False, False] + [
        True
    ] * 2
    collapsed = {each.name: each.value for each in first.evidence}
    assert collapsed["purkinje.collapsed.fewer"] == 50_000
    assert collapsed["purkinje.flop_per_second_collapsed"] == 2 * 10**16
    assert "500,000 terms" in first.answer
    by_fft = {each.name: each.value for each in third.evidence}
    assert by_fft["purkinje.fft.fewer"] == pytest.approx(
        2.5e10 / essay.update_mac("purkinje", "executed")
    )
    assert "454 times" in third.answer
    assert "1,250 times" in last.answer


def test_no_number_is_bare() -> None:
    rows = others_rows()
    assert bare_numbers(rows) == []
    kinds = [row["kind"] for row in rows]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "estimate": len(OTHERS) - 1,
        "limit": 1,
        "rate": len(RATES),
        "energy": len(energies()),
        "argument": len(arguments()),
    }
    undated = replace(_named("Drexler"), what="x").to_dict()
    del undated["source"]
    assert bare_numbers(undated) == ["year = 2019"]


def test_every_reference_on_brains_is_cited() -> None:
    sources = [each.source for each in (essay.TOTAL, *energies())]
    for each in (*OTHERS, *RATES):
        sources += [each.low.source, each.high.source]
    sources += [each.source for each in arguments()]
    cited = {key for source in sources for key in source.cites}
    assert cited <= set(REFERENCES)


def test_table() -> None:
    out = StringIO()
    Console(file=out, width=140).print(others_table())
    text = out.getvalue()
    for expected in (
        "1e13 to 1e17, best 1e15 FLOP/s",
        "1.075e21 is x",
        "200 is x",
        "landauer_bound",
        "The rebuttal",
        "not looked up here",
    ):
        assert expected in text
