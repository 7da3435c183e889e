"""The evidence: the essay's numbers against each other, what it leaves out, and what others say."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import neuroconv
from neuroconv.brain.evidence import facts as facts_module
from neuroconv.brain.evidence.checks import Check, checks, checks_section
from neuroconv.brain.evidence.facts import add_fact, facts, read_rows
from neuroconv.brain.evidence.ledger import (
    NOT_MODELLED,
    ledger_section,
    omissions,
    training_step,
    two_transmitters,
)
from neuroconv.brain.evidence.published import Published, arguments, others_sections, published
from neuroconv.brain.quantity import Quantity, Worksheet
from neuroconv.neurons import PRESETS, preset
from neuroconv.references import REFERENCES, Source
from tests.brain.reporting import bare_numbers, printed


def value(name: str) -> float:
    return facts()[name].value


def check_of(name: str) -> Check:
    return next(check for check in checks() if check.name == name)


def published_of(start: str) -> Published:
    return next(row for row in published() if row.name.startswith(start))


# --- facts


def test_facts_come_from_the_presets_the_closed_forms_and_the_files() -> None:
    numbers = preset("purkinje", "literature")
    rate = facts()["purkinje.literature.rate_hz"]
    assert (rate.value, rate.unit) == (numbers.rate_hz, "Hz")
    assert rate.source is numbers.sources["rate_hz"]
    assert isinstance(value("purkinje.rate_hz"), int)
    macs = {"granule": 4_500, "purkinje": 25 * 10**9, "pyramidal": 250_000_000}
    assert {cell: value(f"{cell}.essay_mac") for cell in macs} == macs
    assert value("granule.crossed_mac") == 15 * 5 * 50_000
    assert value("granule.executed_mac") == 4_800
    assert value("purkinje.linear_collapse_mac") == 500_000
    assert value("purkinje.flop_per_second") == 10**21
    assert value("granule.flop_per_second") == 9 * 10**16
    # The printed total comes out exactly if all inputs pass through the Purkinje cell's filter.
    assert value("cerebellum.flop_per_second_crossed") == value("brain.flop_per_second")
    # The presets were derived from the same numbers of the essay.
    cortical = preset("pyramidal", "dettmers2015")
    assert cortical.cells_in_brain == value("cerebrum.share") * value("brain.neurons")
    ends = [value(f"cerebrum.synapses_per_neuron.{end}") for end in ("low", "high")]
    assert cortical.synapses == sum(ends) / 2
    assert value("cerebrum.share") + value("cerebellum.share") == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"value": 1, "unit": "1"}, "has value, unit; expected value, unit and source"),
        ({"value": 1, "unit": "1", "source": "napper1988"}, "expected 'reference: place'"),
        ({"value": 1, "unit": "1", "source": "ito1984: p. 1"}, "'ito1984' is unknown"),
        ({"value": "fast", "unit": "1", "source": "napper1988: p. 1"}, "is not part of a formula"),
        ({"formula": "`a` x 2"}, "has formula; expected"),
        ({"formula": "`b` x 2", "unit": "1"}, "names 'b', which is not defined above it"),
        ({"formula": "`a` x 2", "unit": "1", "how": ""}, "has formula, unit, how; expected"),
    ],
)
def test_a_fact_without_unit_or_source_is_refused(entry: dict[str, Any], message: str) -> None:
    sheet = Worksheet([Quantity("a", 1, "1", Source("user", "`a`"))])
    with pytest.raises(ValueError, match=message):
        add_fact(sheet, "new", entry)


@dataclass(frozen=True)
class RowType:
    name: str
    source: Source
    fact: Quantity
    number: float = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"nmae": "x"},
         r"x.toml: \[\[row\]\] 1: nmae='x' is unknown; expected one of name, source"),
        ({"name": None}, "missing 1 required positional argument: 'name'"),
        ({"name": 3}, "name=3: value=3; expected a string"),
        ({"source": "nobody1999: p. 1"}, "source=.*'nobody1999' is unknown"),
        ({"fact": "brain.neuron"}, "fact='brain.neuron': .*is not the name of a fact"),
        ({"number": "1 +"}, r"number='1 \+'"),
    ],
)  # fmt: skip
def test_a_row_is_read_by_the_types_of_its_fields(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str | None
) -> None:
    row = {"name": "{`brain.neurons`}", "source": "napper1988: p. 1", "fact": "brain.neurons"}
    row = {key: entry for key, entry in {**row, **change}.items() if entry is not None}
    facts()
    monkeypatch.setattr(facts_module, "read_toml", lambda name: {"row": [row]})
    if message is not None:
        with pytest.raises(ValueError, match=message):
            read_rows("x.toml", "row", RowType)
        return
    expected = RowType("8.6e10", Source("napper1988", "p. 1"), facts()["brain.neurons"])
    assert read_rows("x.toml", "row", RowType) == (expected,)


# --- checks


@pytest.mark.parametrize(
    ("name", "stated", "implied", "ratio"),
    [
        ("dendrites", 3e11, 50e9 * 4 + 1e8 * 1000, 1.0),
        ("synapses", 1e13, 50e9 * 15 + 1e8 * 1e5, 1.075),
        ("synapses by averages", 1e13, 64.5e9 * 25_000 + 21.5e9 * 10_000, 182.75),
        ("synapses of a cerebellar neuron", 25_000, 1.075e13 / 50.1e9, 0.0085828),
        ("neurons of the cerebellum", 64.5e9, 50.1e9, 0.776744),
        ("connections of the cerebellum", 0.75, 1.075e13 / (1.075e13 + 21.5e13), 0.0634921),
        ("granule outputs", 1e13, 5e12, 0.5),
        ("dendrites of one neuron", 1e5, 1000, 0.01),
        ("dendrites of a child", 1.5e11, 1e11 * 3e11 / 86e9, 2.325581),
        ("clock", 30, 200, 20 / 3),
        ("total", 1.075e21, 1.00009e21, 0.930316),
        ("total with the cortex", 1.075e21, 1.00009e21 + 2.15e21, 2.930316),
        ("total in the conclusion", 1e22, 1.075e21, 0.1075),
        ("doublings", 21, math.log2(1.075e21 / 0.58e15), 0.991513),
        ("knowledge in 2005", 0.00098, 2**-10, 0.996492),
    ],
)
def test_both_sides(name: str, stated: float, implied: float, ratio: float) -> None:
    check = check_of(name)
    assert [side.value for side in check.stated] == [pytest.approx(stated)]
    assert check.implied.value == pytest.approx(implied)
    assert check.ratio.value == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "low", "implied", "high"),
    [("granule inputs", 12, 15, 16), ("firing rate", 50, 200, 1000), ("window", 2.4, 5, 6)],
)
def test_ranges(name: str, low: float, implied: float, high: float) -> None:
    check = check_of(name)
    assert [side.value for side in check.stated] == [low, high]
    assert (check.implied.value, check.ratio.value) == (implied, 1)
    below = replace(check, implied=replace(check.implied, value=low / 2))
    above = replace(check, implied=replace(check.implied, value=high * 3))
    assert (below.ratio.value, above.ratio.value) == (0.5, 3)
    assert not below.fits
    assert not above.fits


def test_expectations() -> None:
    def fits(implied: float, expects: str, tolerance: float = 0.1) -> bool:
        changed = replace(check_of("doublings"), expects=expects, tolerance=tolerance)  # type: ignore[arg-type]
        sides = (replace(changed.implied, value=number) for number in (100, implied))
        return replace(changed, stated=(next(sides),), implied=next(sides)).fits

    assert [fits(number, "equal") for number in (89, 91, 109, 111)] == [False, True, True, False]
    assert [fits(number, "part") for number in (10, 89, 95, 100)] == [True, True, False, False]
    assert [fits(number, "at least") for number in (89, 91, 1000)] == [False, True, True]
    assert not fits(99, "equal", tolerance=0.005)


def test_findings_hold_the_computed_numbers() -> None:
    for name, finding in {
        "connections of the cerebellum": "4.8%",
        "dendrites": "other 35.9 billion neurons",
        "synapses by averages": "183 times the 10 trillion; the cerebrum, at its fewest, makes",
        "total with the cortex": "adds 2.15e21 FLOP/s, 2.15 times",
        "total": "of which granule cells 9e16; the printed figure, 1.075e21,",
        "clock": "lasts 167 ms; recomputed at each spike it is gone over 33 times",
    }.items():
        assert finding in check_of(name).finding


def test_which_checks_fit_and_how_they_are_shown() -> None:
    fitting = {check.name for check in checks() if check.fits}
    assert fitting == {
        *("granule inputs", "dendrites of a child", "firing rate", "window"),
        *("knowledge in 2005", "doublings"),
    }
    assert len(checks()) == 18 == len({check.name for check in checks()})
    assert bare_numbers(checks_section().to_list()) == []
    text = printed(checks_section(), 160)
    assert "6 of 18 checks fit" in text
    assert text.count(" NO ") == 12
    assert "1.075e13 synapses" in text


# --- the ledger


def test_fourteen_items_are_left_out_and_one_has_a_multiplier() -> None:
    first, *others = omissions()
    assert len({omission.item for omission in omissions()}) == 14
    unlisted = [row.item for row in omissions() if "Limitations" not in row.left_out_by.place]
    assert unlisted == ["re-uptake", "learning"]
    assert all(row.left_out_by.reference == "dettmers2015" for row in omissions())
    assert first.multiplier is facts()["back_propagation.multiplier"]
    assert {row.multiplier for row in others} == {NOT_MODELLED}
    rows = ledger_section().to_list()
    assert bare_numbers(rows) == []
    assert sum(row["touched_by"] == "nothing" for row in rows) == 7
    text = printed(ledger_section(), 160)
    assert text.count(NOT_MODELLED) == 13
    assert text.count("nearly 2") == 1
    assert "x 3" in text
    assert "`" not in text


def test_costs_are_counted() -> None:
    # Each of the two gradients of a convolution is as large as the convolution.
    step = training_step()
    assert step.value == 3
    assert "takes 2 times the forward" in step.source.note
    # All but the soma doubles, and the dendrites are nearly everything.
    assert 1.9999 < two_transmitters().value < 2
    costs = [row.item for row in omissions() if row.cost]
    assert costs == ["vesicles with several neurotransmitters", "learning"]


# --- others


def test_published_ranges_are_ordered_and_compared_with_the_essay() -> None:
    estimates = [row for row in published() if row.kind != "rate"]
    assert [row.year for row in estimates] == sorted(row.year for row in estimates)
    assert len({row.name for row in published()}) == len(published())
    for row in published():
        best = row.low if row.best is None else row.best
        assert row.low.value <= best.value <= row.high.value
        assert row.low.source.cites
    carlsmith = published_of("Carlsmith 2020")
    ends = (carlsmith.low, carlsmith.high, carlsmith.best)
    assert [end.value for end in ends] == [10**13, 10**17, 10**15]
    for start, times in (("Sandberg and Bostrom 2008, spiking", 1075), ("Lennie", 1250)):
        assert published_of(start).essay_times.value == pytest.approx(times)
    assert published_of("AI Impacts 2015, traversed").essay_times is None


def test_rates_come_from_the_presets() -> None:
    shown = {row.low.name for row in published() if row.kind == "rate"}
    cells = [cell for cell, variant in PRESETS if variant == "literature"]
    rates = {f"{cell}.literature.rate_hz" for cell in cells if preset(cell, "literature").rate_hz}
    assert rates <= shown


def test_energies() -> None:
    assert value("brain.energy_per_flop") == pytest.approx(20 / 1.075e21)
    assert value("landauer_bound") == pytest.approx(1.380649e-23 * 310.15 * math.log(2))
    assert value("brain.energy_per_flop_to_bound") == pytest.approx(6.268, rel=1e-3)


def test_rebuttal() -> None:
    first, _, third, last = arguments()
    assert {row.source.reference for row in arguments()} == {"byrnes2021"}
    # What was not read says so.
    unread = ["not looked up" in row.source.note for row in arguments()]
    assert unread == [False, False, True, True]
    assert [row.value for row in first.evidence[1:]] == [50_000, 2 * 10**16]
    assert "500,000 terms" in first.answer
    for evidence, reading in zip(third.evidence, ("executed", "cached"), strict=False):
        fewer = 2.5e10 / value(f"purkinje.{reading}_mac")
        assert evidence.value == pytest.approx(fewer)
        assert f"{fewer:.0f} times fewer" in third.answer
    assert "1,250 times" in last.answer


def test_others_have_no_bare_number_and_are_shown() -> None:
    rows = [row for section in others_sections() for row in section.to_list()]
    assert bare_numbers(rows) == []
    assert Counter(row["kind"] for row in rows) == {
        "estimate": 12,
        "limit": 1,
        "rate": 7,
        "energy": 6,
        "argument": 4,
    }
    text = "".join(printed(section, 140) for section in others_sections())
    for expected in (
        *("1e13 to 1e17, best 1e15 FLOP/s", "1.075e21 is x", "200 is x", "landauer_bound"),
        *("The rebuttal", "not looked up here", "purkinje fft fewer: 453.8"),
        "purkinje fft cached fewer: 652.3",
    ):
        assert expected in text


def test_no_reference_is_idle() -> None:
    """Every publication is cited by a preset, an input, a fact or a row, or in a docstring."""
    folder = Path(neuroconv.__file__).parent
    texts = [path.read_text() for suffix in ("toml", "py") for path in folder.rglob(f"*.{suffix}")]
    assert [key for key in REFERENCES if not any(key in text for text in texts)] == []
