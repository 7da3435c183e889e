"""Draws of whole numbers, and Sobol indices against those known in closed form."""

import math

import numpy as np
import pytest
from scipy import stats

from neuroconv import estimate_brain
from neuroconv.brain.inputs import Correlation, UnknownInput
from neuroconv.brain.sensitivity import sobol
from neuroconv.brain.setting import as_inputs, read_inputs
from neuroconv.references import Source

HERE = Source("user", "set for `rate_hz`")


def shares_drawn(low: float, high: float, distribution: str = "uniform") -> dict[int, float]:
    """How often each number of dendrites of a granule cell is drawn."""
    each = as_inputs({"granule.dendrites": (low, high)})["granule.dendrites"]
    each = each.changed(each.quantity.source, distribution=distribution)  # type: ignore[arg-type]
    drawn = each.at((np.arange(60_000) + 0.5) / 60_000)
    numbers, counts = np.unique(drawn, return_counts=True)
    return dict(zip(numbers.astype(int).tolist(), (counts / drawn.size).tolist(), strict=True))


def test_whole_numbers_between_the_bounds_are_equally_likely() -> None:
    assert shares_drawn(3, 5) == pytest.approx(dict.fromkeys((3, 4, 5), 1 / 3), abs=1e-3)
    assert shares_drawn(2.4, 6) == pytest.approx(dict.fromkeys((3, 4, 5, 6), 1 / 4), abs=1e-3)
    assert shares_drawn(1, 3.9) == pytest.approx(dict.fromkeys((1, 2, 3), 1 / 3), abs=1e-3)


def test_whole_numbers_drawn_log_uniformly_fall_as_their_inverse() -> None:
    shares = shares_drawn(2, 8, "log-uniform")
    assert set(shares) == set(range(2, 9))
    assert shares[2] / shares[8] == pytest.approx(
        math.log(2.5 / 1.5) / math.log(8.5 / 7.5), rel=0.01
    )


@pytest.mark.parametrize("text", ["granule.dendrites=2.2..2.9", "time_steps=4.2..4.9"])
def test_bounds_of_a_count_hold_a_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number between them") as error:
        read_inputs(assignments=[text])
    assert f"--set {text}" in str(error.value)


def test_an_unknown_input_is_told_with_its_place() -> None:
    with pytest.raises(
        UnknownInput, match=r"--set purkinje\.cels=3: .*did you mean 'purkinje\.cells'"
    ):
        read_inputs(assignments=["purkinje.cels=3"])


def test_correlated_inputs_are_the_same_in_either_order() -> None:
    names = ("rate_hz", "purkinje.cells"), ("granule.cells", "rate_hz")
    one, other = (
        as_inputs(None).with_correlations(
            Correlation(pair, rank, HERE) for pair, rank in zip(pairs, ranks, strict=True)
        )
        for pairs, ranks in (
            (names, (0.3, -0.2)),
            ([pair[::-1] for pair in names[::-1]], (-0.2, 0.3)),
        )
    )
    assert one.sha256 == other.sha256
    first, second = (estimate_brain(each, samples=64).samples for each in (one, other))
    np.testing.assert_array_equal(first, second)


def test_sobol_indices_of_a_product_of_independent_log_uniform_inputs() -> None:
    # Its logarithm is a sum: shares of the squared widths, first-order and total alike.
    widths = np.array([3.1, 0.82, 0.81, 0.4])
    found = sobol(lambda points: (widths[:, None] * points).sum(0), inputs=4, points=1024, seed=0)
    for known, (first, first_ends, total, total_ends) in zip(
        widths**2 / (widths**2).sum(), found, strict=True
    ):
        assert (first, total) == pytest.approx((known, known), abs=4e-3)
        assert first_ends[0] <= known <= first_ends[1]
        assert total_ends[0] <= known <= total_ends[1]


def test_sobol_indices_of_two_inputs_that_interact() -> None:
    # A product of two uniform inputs: 3/7 for each alone, 4/7 with what they share.
    for first, _, total, _ in sobol(
        lambda points: points[0] * points[1], inputs=2, points=1024, seed=0
    ):
        assert first == pytest.approx(3 / 7, abs=0.01)
        assert total == pytest.approx(4 / 7, abs=0.01)


def test_indices_of_the_estimate_are_the_shares_of_its_inputs_ranges() -> None:
    inputs = as_inputs(None)
    spreads = {
        name: math.log(inputs[name].ends[1] / inputs[name].ends[0]) ** 2 / 12
        for name in ("rate_hz", "purkinje.cells", "purkinje.synapses", "purkinje.dendrites")
    }
    # The essay counts steps x steps; 3, 4, 5 and 6 are equally likely.
    spreads["time_steps"] = float(np.var(2 * np.log(np.arange(3, 7))))
    whole = sum(spreads.values())
    for each in estimate_brain(samples=1024).sensitivities:
        known = spreads.get(each.name, 0.0) / whole
        assert each.total == pytest.approx(known, abs=5e-3)
        assert each.first == pytest.approx(known, abs=5e-3)


@pytest.mark.parametrize("samples", [1_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_quantiles_of_a_mix_are_those_of_its_parts_pooled(samples: int) -> None:
    mix = estimate_brain(weights={"essay": 1, "linear_collapse": 3}, samples=samples, seed=1)
    essay = estimate_brain(samples=samples // 2, seed=2).samples
    linear = estimate_brain(reading="linear_collapse", samples=3 * samples // 2, seed=3).samples
    # Where the pool's distribution function stands at the mix's quantiles.
    pool = np.sort(np.concatenate([essay, linear]))
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    reached = np.searchsorted(pool, mix.quantiles(*levels)) / pool.size
    np.testing.assert_allclose(reached, levels, atol=4 * np.sqrt(0.25 / samples))
    assert stats.ks_2samp(mix.samples, pool).statistic < 0.02 * np.sqrt(20_000 / samples)
