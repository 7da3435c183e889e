"""Inputs: defaults with sources, distributions, correlations, and what a user sets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from neuroconv.brain import Correlation, Input, Quantity, default_inputs, read_inputs
from neuroconv.brain.report import inputs_section
from neuroconv.brain.setting import as_inputs
from neuroconv.neurons import PRESETS
from neuroconv.references import Source

HERE = Source("chosen", "`x` of this test")
X = Quantity("x", 3, "1", HERE)


def an_input(distribution: str, value: float, low: float, high: float, unit: str = "1/s") -> Input:
    numbers = {"x": value, "x.low": low, "x.high": high}
    quantity, *ends = (Quantity(name, number, unit, HERE) for name, number in numbers.items())
    law: Any = distribution
    return Input(quantity=quantity, distribution=law, low=ends[0], high=ends[1])


# --- defaults


@pytest.mark.parametrize("cell", ["purkinje", "granule", "pyramidal"])
def test_the_defaults_are_the_presets_own(cell: str) -> None:
    inputs, essay = default_inputs(), PRESETS[cell, "dettmers2015"]
    for name, field in (("cells", "cells_in_brain"), ("synapses", "synapses")):
        quantity = inputs[f"{cell}.{name}"].quantity
        assert quantity.value == getattr(essay, field)
        assert quantity.source == essay.sources[field]
    assert inputs[f"{cell}.branches"].value == essay.filter_shape[0]
    assert inputs["time_steps"].value == essay.filter_shape[2]
    assert inputs["rate_hz"].value == essay.rate_hz


def test_every_bound_has_its_own_source() -> None:
    ranged = [row for row in default_inputs().values() if row.distribution != "fixed"]
    assert len(ranged) == 10
    for row in ranged:
        assert row.low.unit == row.high.unit == row.quantity.unit
        assert row.low.source != row.high.source
    assert default_inputs()["purkinje.cells"].low.source.reference == "nairn1989"


# --- distributions


@pytest.mark.parametrize(("distribution", "quantiles"), [
    ("uniform", (1.45, 5.5, 9.55)), ("log-uniform", (10**0.05, 10**0.5, 10**0.95)),
    ("log-normal", (1, 10**0.5, 10)), ("normal", (8, 9, 10)),
])  # fmt: skip
def test_quantiles(distribution: str, quantiles: tuple[float, ...]) -> None:
    low = 8 if distribution == "normal" else 1
    levels = np.array([0.05, 0.5, 0.95])
    actual = an_input(distribution, 9, low, 10).at(levels)
    np.testing.assert_allclose(actual, quantiles, rtol=1e-9)


def test_counts_are_drawn_whole_and_rates_are_not() -> None:
    rng = np.random.default_rng(0)
    draws = default_inputs().draw(500, rng)
    for name, row in default_inputs().items():
        assert draws[name].shape == (500,)
        whole = bool((draws[name] == np.rint(draws[name])).all())
        assert row.counted == whole or row.distribution == "fixed"
    assert set(draws["time_steps"]) == {3, 4, 5, 6}


def test_bounds_may_be_integers_of_any_size() -> None:
    draws = read_inputs(None, ["purkinje.cells=1e19..1e30"])["purkinje.cells"].at(np.array([0, 1]))
    assert draws.tolist() == [1e19, 1e30]


def test_the_bounds_shown_are_those_of_the_draws() -> None:
    inputs = default_inputs()
    shown = {row[0]: row for row in inputs_section(inputs).rows}
    for name in inputs.random:
        row = inputs[name]
        first_last = row.at(np.array([0.0, 1.0])).tolist()
        assert first_last == pytest.approx([row.low.value, row.high.value], rel=1e-12)
        numbers = [float(text.split()[0].replace(",", "")) for text in shown[name][2:4]]
        assert numbers == pytest.approx(first_last, rel=1e-3)


@pytest.mark.parametrize(("arguments", "words"), [
    (("uniform", 3, 5, 10), "low <= value <= high"), (("uniform", 3, 3, 3), "low < high"),
    (("log-uniform", 3, 0, 10), "0 < low"), (("uniform", -1, -2, 10), "above 0"),
    (("normal", 20, 1, 60), "reaches below zero"), (("triangular", 3, 1, 10), "distribution"),
    (("uniform", 2.5, 1, 10, "steps"), "whole number"),
    (("uniform", 3, 2.4, 6, "steps"), "low=2.4, high=6; expected whole numbers"),
    (("normal", 3, 2, 4.5, "cells"), "low=2, high=4.5; expected whole numbers"),
])  # fmt: skip
def test_an_input_that_cannot_be_is_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        an_input(*arguments)
    assert "x" in str(error.value)


@pytest.mark.parametrize("given", [{"distribution": "uniform"}, {"low": X}])
def test_bounds_and_distribution_go_together(given: Any) -> None:
    with pytest.raises(ValueError, match="expected both bounds, or 'fixed'"):
        Input(quantity=X, **given)


# --- correlations


def test_a_rank_correlation_is_what_the_draws_have() -> None:
    pair = Correlation(("rate_hz", "purkinje.cells"), -0.6, HERE)
    inputs = default_inputs().with_correlations([pair])
    draws = inputs.draw(20_000, np.random.default_rng(1))
    for name, rank in (("purkinje.cells", -0.6), ("purkinje.synapses", 0)):
        result = stats.spearmanr(draws["rate_hz"], draws[name])
        assert result.statistic == pytest.approx(rank, abs=0.03)
    # The margins stay: a correlation moves no input's own distribution.
    middle = np.log((0.16 * 200) ** 0.5)
    assert np.median(np.log(draws["rate_hz"])) == pytest.approx(middle, abs=0.1)


def test_correlations_that_cannot_all_hold_are_refused_by_name() -> None:
    names = ("rate_hz", "purkinje.cells", "granule.cells")
    pairs = [(names[0], names[1], 0.9), (names[1], names[2], 0.9), (names[0], names[2], -0.9)]
    with pytest.raises(ValueError, match="not positive definite") as error:
        default_inputs().with_correlations(Correlation((a, b), r, HERE) for a, b, r in pairs)
    assert all(name in str(error.value) for name in names)
    assert "time_steps" not in str(error.value)
    pair, back = (Correlation(two, 0.5, HERE) for two in (names[:2], names[1::-1]))
    with pytest.raises(ValueError, match="given twice"):
        default_inputs().with_correlations([pair, back])


@pytest.mark.parametrize(
    ("between", "rank", "words"),
    [
        (("rate_hz", "rate_hz"), 0.5, "two different"),
        (("rate_hz", "granule.cells"), 1.0, "between -1 and 1"),
        (("rate_hz", "flop_per_mac"), 0.5, "flop_per_mac is fixed"),
        (("rate_hz", "granule.cels"), 0.5, "did you mean 'granule.cells'"),
    ],
)
def test_a_wrong_correlation_is_refused(between: tuple[str, str], rank: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        default_inputs().with_correlations([Correlation(between, rank, HERE)])


# --- what a user sets


def test_a_value_is_fixed_and_says_who_set_it() -> None:
    cells = read_inputs(assignments=["purkinje.cells=1.5e7"])["purkinje.cells"]
    assert (cells.value, type(cells.value), cells.distribution) == (15_000_000, int, "fixed")
    assert str(cells.quantity.source) == "user: set for purkinje.cells"
    assert cells.quantity.source.brief == "set by the user"


def test_a_range_keeps_the_distribution_and_has_its_median_as_value() -> None:
    inputs = read_inputs(assignments=["rate_hz=0.1..5", "purkinje.cells=15e6..30e6"])
    assert inputs["rate_hz"].distribution == "log-uniform"
    assert inputs["rate_hz"].value == pytest.approx(0.5**0.5)
    assert inputs["purkinje.cells"].value == round((15e6 * 30e6) ** 0.5)
    assert read_inputs(assignments=["flop_per_mac=1..2"])["flop_per_mac"].value == 1.5
    assert default_inputs()["rate_hz"].value == 200
    assert read_inputs(assignments=["rate_hz=1..5", "rate_hz=4"])["rate_hz"].value == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("purkinje.cells=abc", "--set purkinje.cells=abc: expected a number or LOW..HIGH"),
        ("purkinje.cells", "expected NAME=VALUE"),
        ("rate_hz=5..1", "expected 0 < low"),
        ("rate_hz=-5", "above 0"),
        ("rate_hz=nan", "expected a number"),
        ("rate_hz=1e999999999", "expected a number"),
        ("purkinje.synapses=2.5", "whole number"),
        ("granule.dendrites=2.2..2.9", "low=2.2, high=2.9; expected whole numbers"),
        ("xyz=1", "unknown input 'xyz'; expected one of purkinje.cells"),
    ],
)
def test_a_wrong_assignment_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        read_inputs(assignments=[text])


def test_a_file_sets_values_ranges_sources_and_correlations(tmp_path: Path) -> None:
    file = tmp_path / "brain.toml"
    file.write_text(
        """
        [inputs."purkinje.cells"]
        value = 2e7
        low = 15e6
        high = 30e6
        distribution = "log-normal"
        source = "[andersen1992], abstract, and a guess"
        [inputs.granule.cells]
        value = 60_000_000_000
        [inputs.rate_hz]
        distribution = "uniform"
        [[correlations]]
        between = ["purkinje.cells", "rate_hz"]
        rank = -0.5
        source = "a guess"
        """
    )
    inputs = read_inputs(file, ["rate_hz=1..4"])
    cells, rate = inputs["purkinje.cells"], inputs["rate_hz"]
    assert (cells.value, cells.distribution) == (20_000_000, "log-normal")
    assert "Andersen et al. 1992, abstract, and a guess" in str(cells.quantity.source)
    assert "https://doi.org/10.1002/cne.903260405" in cells.quantity.to_dict()["urls"]
    assert inputs["granule.cells"].value == 60_000_000_000
    assert (rate.distribution, rate.value) == ("uniform", 2.5)
    (pair,) = inputs.correlations
    assert (pair.between, pair.rank) == (("purkinje.cells", "rate_hz"), -0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[inputs.rate_hz]\nvalu = 1", "unknown key 'valu'; did you mean 'value'"),
        ("[inputs.rate_hz]\nlow = 1", "one bound alone"),
        ("[inputs.rate_hz]\nvalue = 'fast'", "value='fast'; expected a number"),
        ("[inputs.rate_hz]", "nothing is given"),
        ("[inputs.rate_hz]\nvalue = 1\nsource = '[nobody1999]'", "nobody1999"),
        ("[input.rate_hz]\nvalue = 1", "unknown key 'input'; did you mean 'inputs'"),
        ("[[correlations]]\nbetween = ['rate_hz']", "expected between"),
        ("rate = [", "brain.toml"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "brain.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"brain\.toml") as error:
        read_inputs(file)
    assert words in str(error.value)


def test_python_sets_numbers_and_pairs() -> None:
    inputs = as_inputs({"rate_hz": (0.1, 5), "purkinje.cells": 15_400_000})
    assert inputs["rate_hz"].low.value == 0.1
    assert inputs["purkinje.cells"].distribution == "fixed"
    assert as_inputs(inputs) is inputs
    numpys = as_inputs({"rate_hz": (np.int64(1), np.float32(2.5))})["rate_hz"]
    assert numpys == as_inputs({"rate_hz": (1, 2.5)})["rate_hz"]
    with pytest.raises(ValueError, match="expected a number"):
        as_inputs({"rate_hz": "fast"})


def test_the_hash_follows_all_that_the_inputs_are() -> None:
    assert default_inputs().sha256 == default_inputs().sha256
    pair = Correlation(("rate_hz", "granule.cells"), 0.5, HERE)
    others = (read_inputs(assignments=[text]) for text in ("rate_hz=199", "rate_hz=0.16..200"))
    correlated = default_inputs().with_correlations([pair])
    assert len({inputs.sha256 for inputs in (default_inputs(), correlated, *others)}) == 4
