"""The estimate: draws, intervals, and shares against those known in closed form."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from neuroconv.brain import Correlation, default_inputs, estimate_brain
from neuroconv.brain.estimate import sobol
from neuroconv.brain.setting import as_inputs
from neuroconv.references import Source

HERE = Source("user", "set for `rate_hz`")

FIXED = {name: default_inputs()[name].value for name in default_inputs().random}


def test_the_point_is_the_essays() -> None:
    estimate = estimate_brain(samples=2)
    assert estimate.value == 1_000_090_000_000_000_000_000
    assert estimate.by_cell == {"purkinje": 10**21, "granule": 9 * 10**16}
    assert estimate_brain(reading="published", samples=2).value == 1_075 * 10**18


def test_the_same_arguments_give_the_same_estimate() -> None:
    state = np.random.get_state()[1]  # noqa: NPY002
    first, again = (estimate_brain(samples=64, seed=5, reading="valid") for _ in range(2))
    assert np.array_equal(first.samples, again.samples)
    assert first.sensitivities == again.sensitivities
    assert first.to_dict() == again.to_dict()
    other = estimate_brain(samples=64, seed=6, reading="valid")
    assert not np.array_equal(first.samples, other.samples)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_quantiles_of_a_known_distribution() -> None:
    """The rate alone, log-uniform over two decades: so is the FLOP/s."""
    ranged = {**FIXED, "rate_hz": (1, 100)}
    estimate = estimate_brain(ranged, reading="one_step", samples=20_000)
    per_hz = estimate_brain(FIXED, reading="one_step", samples=2).value
    expected = [per_hz / 200 * 10 ** (2 * level) for level in (0.05, 0.5, 0.95)]
    np.testing.assert_allclose(estimate.quantiles(), expected, rtol=0.08)
    assert estimate.quantiles(0.5) == (float(np.median(estimate.samples)),)
    assert estimate.value == pytest.approx(per_hz / 200 * 10)


def test_the_defaults_matter_in_this_order() -> None:
    shares = {row.name: row.total for row in estimate_brain(samples=512).sensitivities}
    assert list(shares)[:2] == ["rate_hz", "purkinje.synapses"]
    assert shares["granule.cells"] < 0.001
    assert "pyramidal.cells" not in shares
    assert "pyramidal.cells" in estimate_brain(samples=2, reading="with_cortex").free
    assert "rate_hz" not in estimate_brain(samples=2, reading="one_step_per_frame").free


def test_swings_hold_the_others_at_their_values() -> None:
    estimate = estimate_brain(samples=2)
    swings = {swing.name: swing for swing in estimate.swings()}
    assert next(iter(swings)) == "rate_hz"
    low, high = swings["rate_hz"].flop_per_s
    assert high == estimate.value
    assert low == pytest.approx(1_000_090 * 10**15 * 0.16 / 200)
    assert swings["time_steps"].ends == (3, 6)
    expected = [1_000_090 * 10**15 * (steps / 5) ** 2 for steps in (3, 6)]
    assert swings["time_steps"].flop_per_s == pytest.approx(expected)


def test_correlated_inputs_spread_the_estimate() -> None:
    inputs = default_inputs()
    pair = Correlation(("rate_hz", "purkinje.cells"), 0.9, Source("chosen", "`rate_hz` here"))
    loose, tied = (
        estimate_brain(given, reading="one_step", samples=512)
        for given in (inputs, inputs.with_correlations([pair]))
    )
    assert np.std(np.log(tied.samples)) > 1.05 * np.std(np.log(loose.samples))
    cells = {row.name: row for row in tied.sensitivities}["purkinje.cells"]
    assert cells.rank_correlation > 0.8  # what it shares with the rate
    assert cells.total < 0.2  # the index is of inputs that vary alone


def test_few_draws_idle_inputs_and_no_ranges_are_no_trouble() -> None:
    fixed = estimate_brain(FIXED, samples=10)
    assert set(fixed.samples) == {1.00009e21}
    assert fixed.sensitivities == fixed.swings() == ()
    assert estimate_brain(samples=2).to_dict()["sensitivities"]
    # The dendrites' number does not enter a dot product of all synapses.
    idle = {**FIXED, "purkinje.dendrites": (400, 1000)}
    (row,) = estimate_brain(idle, reading="linear_collapse", samples=64).sensitivities
    assert (row.first, row.total, row.rank_correlation) == (0, 0, None)


def test_readings_are_mixed_only_when_weighed() -> None:
    weights = {"essay": 3, "linear_collapse": 1, "valid": 0}
    mix = estimate_brain(FIXED, weights=weights, samples=4000)
    assert mix.reading is mix.value is mix.by_cell is None
    assert set(mix.samples) == {1.00009e21, 2.15e16}
    assert np.mean(mix.samples > 1e20) == pytest.approx(0.75, abs=0.03)
    (row,) = mix.sensitivities
    assert (row.name, row.rank_correlation) == ("reading", None)
    assert row.total == 1
    mixed = estimate_brain({**FIXED, "rate_hz": (1, 100)}, weights={"essay": 1, "valid": 1})
    shares = {row.name: row for row in mixed.sensitivities}
    # Half of the draws lie log10(1e21 / 9.22e17) decades below the other half.
    apart = (math.log10(1_000_090 / 922) / 2) ** 2
    assert shares["reading"].total == pytest.approx(apart / (apart + 2**2 / 12), abs=0.05)
    with pytest.raises(ValueError, match="no value to swing about"):
        mix.swings()


@pytest.mark.parametrize(("arguments", "message"), [
    ({"reading": "essay", "weights": {"essay": 1}}, "one of the two"),
    ({"samples": 1}, "at least 2"), ({"weights": {"essay": -1}}, "at least 0"),
    ({"weights": {"essay": 0}}, "one above 0"), ({"weights": {"esay": 1}}, "unknown"),
    ({"inputs": {"rate": 5}}, "did you mean 'rate_hz'"),
])  # fmt: skip
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_brain(**arguments)


# --- draws and indices


def shares_drawn(low: float, high: float, distribution: str = "uniform") -> dict[int, float]:
    """How often each number of dendrites of a granule cell is drawn."""
    row = as_inputs({"granule.dendrites": (low, high)})["granule.dendrites"]
    row = row.changed(row.quantity.source, distribution=distribution)  # type: ignore[arg-type]
    drawn = row.at((np.arange(60_000) + 0.5) / 60_000)
    numbers, counts = np.unique(drawn, return_counts=True)
    return dict(zip(numbers.astype(int).tolist(), (counts / drawn.size).tolist(), strict=True))


def test_whole_numbers_between_the_bounds_are_equally_likely() -> None:
    assert shares_drawn(3, 5) == pytest.approx(dict.fromkeys((3, 4, 5), 1 / 3), abs=1e-3)
    assert shares_drawn(3, 6) == pytest.approx(dict.fromkeys((3, 4, 5, 6), 1 / 4), abs=1e-3)


def test_whole_numbers_drawn_log_uniformly_fall_as_their_inverse() -> None:
    shares = shares_drawn(2, 8, "log-uniform")
    assert set(shares) == set(range(2, 9))
    expected = math.log(2.5 / 1.5) / math.log(8.5 / 7.5)
    assert shares[2] / shares[8] == pytest.approx(expected, rel=0.01)


def test_correlated_inputs_are_the_same_in_either_order() -> None:
    ranks = {("rate_hz", "purkinje.cells"): 0.3, ("granule.cells", "rate_hz"): -0.2}
    pairs = [Correlation(names, rank, HERE) for names, rank in ranks.items()]
    flipped = [Correlation((b, a), rank, HERE) for (a, b), rank in reversed(ranks.items())]
    first, second = (default_inputs().with_correlations(rows) for rows in (pairs, flipped))
    assert first.sha256 == second.sha256
    draws = [estimate_brain(inputs, samples=64).samples for inputs in (first, second)]
    np.testing.assert_array_equal(*draws)


def test_sobol_indices_of_a_product_of_independent_log_uniform_inputs() -> None:
    # Its logarithm is a sum: shares of the squared widths, first-order and total alike.
    widths = np.array([3.1, 0.82, 0.81, 0.4])
    shares = sobol(lambda points: (widths[:, None] * points).sum(0), inputs=4, points=1024, seed=0)
    expected = (widths**2 / (widths**2).sum())[:, None]
    index, low, high = np.moveaxis(shares, -1, 0)
    np.testing.assert_allclose(index, np.broadcast_to(expected, (4, 2)), atol=4e-3)
    assert (low <= expected).all()
    assert (expected <= high).all()


def test_sobol_indices_of_two_inputs_that_interact() -> None:
    # A product of two uniform inputs: 3/7 for each alone, 4/7 with what they share.
    shares = sobol(lambda points: points[0] * points[1], inputs=2, points=1024, seed=0)
    np.testing.assert_allclose(shares[..., 0], [[3 / 7, 4 / 7]] * 2, atol=0.01)


def test_indices_of_the_estimate_are_the_shares_of_its_inputs_ranges() -> None:
    inputs = as_inputs(None)
    spreads = {
        name: math.log(inputs[name].ends[1] / inputs[name].ends[0]) ** 2 / 12
        for name in ("rate_hz", "purkinje.cells", "purkinje.synapses", "purkinje.dendrites")
    }
    # The essay counts steps x steps; 3, 4, 5 and 6 are equally likely.
    spreads["time_steps"] = float(np.var(2 * np.log(np.arange(3, 7))))
    whole = sum(spreads.values())
    for row in estimate_brain(samples=1024).sensitivities:
        expected = spreads.get(row.name, 0.0) / whole
        assert (row.first, row.total) == pytest.approx((expected, expected), abs=5e-3)


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
