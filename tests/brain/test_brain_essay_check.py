"""The essay's numbers against each other: what must come out, and that nothing is bare."""

import math
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from neuroconv.brain.evidence import essay
from neuroconv.brain.evidence.check import Check
from neuroconv.brain.evidence.essay_check import check_rows, check_table, checks
from neuroconv.brain.quantity import Quantity, bare_numbers
from neuroconv.neurons import preset


def _named(name: str) -> Check:
    (found,) = [check for check in checks() if check.name == name]
    return found


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
    check = _named(name)
    assert [each.value for each in check.stated] == [pytest.approx(stated)]
    assert check.implied.value == pytest.approx(implied)
    assert check.ratio.value == pytest.approx(ratio, rel=1e-5)


def test_what_fits() -> None:
    assert {check.name for check in checks() if check.fits} == {
        "granule inputs",
        "dendrites of a child",
        "firing rate",
        "window",
        "knowledge in 2005",
        "doublings",
    }
    assert len(checks()) == 18 == len({check.name for check in checks()})


@pytest.mark.parametrize(
    ("name", "low", "value", "high"),
    [("granule inputs", 12, 15, 16), ("firing rate", 50, 200, 1000), ("window", 2.4, 5, 6)],
)
def test_ranges(name: str, low: float, value: float, high: float) -> None:
    check = _named(name)
    assert [each.value for each in check.stated] == [low, high]
    assert check.implied.value == value
    assert check.ratio.value == 1
    below = replace(check, implied=replace(check.implied, value=low / 2))
    above = replace(check, implied=replace(check.implied, value=high * 3))
    assert (below.ratio.value, above.ratio.value) == (0.5, 3)
    assert not below.fits
    assert not above.fits


def test_expectations() -> None:
    one = essay.stated("one", 100, "1", essay.NUMBERS)

    def fits(implied: float, expects: str, tolerance: float = 0.1) -> bool:
        other = essay.stated("other", implied, "1", essay.NUMBERS)
        return Check(
            name="n", claim="c", stated=(one,), implied=other, finding="f",
            expects=expects, tolerance=tolerance,  # type: ignore[arg-type]
        ).fits  # fmt: skip

    assert [fits(value, "equal") for value in (89, 91, 109, 111)] == [False, True, True, False]
    assert [fits(value, "part") for value in (10, 89, 95, 100)] == [True, True, False, False]
    assert [fits(value, "at least") for value in (89, 91, 1000)] == [False, True, True]
    assert not fits(99, "equal", tolerance=0.005)


def test_findings_hold_the_computed_numbers() -> None:
    assert "out-degree of 200;" in _named("granule outputs").finding
    assert "50,000 inputs" in _named("granule outputs").finding
    assert "make 215" in _named("synapses of a cerebellar neuron").finding
    assert "58% of all" in _named("neurons of the cerebellum").finding
    assert "4.8%" in _named("connections of the cerebellum").finding
    assert "other 35.9 billion neurons" in _named("dendrites").finding
    assert "183 times" in _named("synapses by averages").finding
    assert "10.8 times" in _named("synapses by averages").finding
    assert "2.15e21" in _named("total with the cortex").finding
    assert "level at 46.5" in _named("total with the cortex").finding
    assert "exactly the printed" in _named("total").finding
    assert "20.82" in _named("doublings").finding
    assert "0.25 and 5 times" in _named("firing rate").finding


def test_the_modules_own_counts() -> None:
    assert essay.update_mac("granule") == 4_500
    assert essay.update_mac("purkinje") == 25 * 10**9
    assert essay.update_mac("pyramidal") == 250_000_000
    assert essay.update_mac("granule", filter_of="purkinje") == 15 * 5 * 50_000
    assert essay.update_mac("granule", "executed") == 4_800
    assert essay.update_mac("purkinje", "linear_collapse") == 500_000
    assert essay.flop_per_second("purkinje").value == 10**21
    assert essay.flop_per_second("granule").value == 9 * 10**16
    crossed = essay.flop_per_second("granule", essay.update_mac("granule", filter_of="purkinje"))
    assert essay.flop_per_second("purkinje").value + crossed.value == essay.TOTAL.value
    # The presets were derived from the same numbers of the essay.
    cortical = preset("pyramidal", "dettmers2015")
    assert cortical.cells_in_brain == essay.CEREBRUM_SHARE.value * essay.NEURONS.value
    low, high = essay.CEREBRAL_SYNAPSES
    assert cortical.synapses == (low.value + high.value) / 2
    assert essay.CEREBRUM_SHARE.value + essay.CEREBELLUM_SHARE.value == 1


def test_of_preset() -> None:
    quantity = essay.of_preset("purkinje", "rate_hz", "literature")
    numbers = preset("purkinje", "literature")
    assert (quantity.value, quantity.unit) == (numbers.rate_hz, "Hz")
    assert quantity.source is numbers.sources["rate_hz"]
    assert isinstance(essay.of_preset("purkinje", "rate_hz").value, int)
    with pytest.raises(ValueError, match=r"granule.rate_hz=None of literature; expected a number"):
        essay.of_preset("granule", "rate_hz", "literature")
    with pytest.raises(ValueError, match=r"purkinje.sheet_shape=\(100, 1000\) of dettmers2015"):
        essay.of_preset("purkinje", "sheet_shape")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (15, "15"), (1.0, "1"), (0.0085828, "0.008583"), (25_000, "25,000"),
        (1075 * 10**18, "1.075e21"), (10**22, "1e22"), (1.8275e15, "1.828e15"), (9.8e-4, "9.8e-4"),
        (1234.5, "1,234"), (268_750, "268,750"),
    ],
)  # fmt: skip
def test_shown(value: float, text: str) -> None:
    quantity = Quantity(name="x", value=value, unit="1", source=essay.essay(essay.NUMBERS))
    assert quantity.shown == text


def test_no_number_is_bare() -> None:
    rows = check_rows()
    assert len(rows) == len(checks())
    assert bare_numbers(rows) == []
    for row, check in zip(rows, checks(), strict=True):
        assert row["fits"] is check.fits
        assert row["implied"]["value"] == check.implied.value
        assert all("Dettmers 2015" in each["source"] or "derived" in each["source"]
                   for each in row["stated"])  # fmt: skip


def test_table() -> None:
    out = StringIO()
    Console(file=out, width=160).print(check_table())
    text = out.getvalue()
    assert "6 of 18 checks fit" in text
    assert text.count(" NO ") == 12
    assert "1.075e13 synapses" in text
