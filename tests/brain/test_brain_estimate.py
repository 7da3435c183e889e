"""The estimate: reproducible draws, honest intervals, and shares that theory confirms."""

import math

import numpy as np
import pytest

from neuroconv.brain import (
    READINGS,
    BrainReport,
    Correlation,
    Estimate,
    default_inputs,
    estimate_brain,
)
from neuroconv.references import Source

FIXED = {
    name: each.value for name, each in default_inputs().items() if each.distribution != "fixed"
}


def only(samples: int = 1024, **ranges: tuple[float, float]) -> Estimate:
    """An estimate in which only these inputs have a range; dots of names as double underscores."""
    given = {name.replace("__", "."): pair for name, pair in ranges.items()}
    return estimate_brain({**FIXED, **given}, reading="one_step", samples=samples)


def test_the_point_is_the_essays() -> None:
    estimate = estimate_brain(samples=2)
    assert estimate.value == 1_000_090_000_000_000_000_000
    assert estimate.by_cell == {"purkinje": 10**21, "granule": 9 * 10**16}
    assert estimate_brain(reading="published", samples=2).value == 1_075 * 10**18


def test_the_same_arguments_give_the_same_estimate() -> None:
    first, again = (estimate_brain(samples=64, seed=5, reading="valid") for _ in range(2))
    assert np.array_equal(first.samples, again.samples)
    assert first.sensitivities == again.sensitivities
    assert first.to_dict() == again.to_dict()
    assert not np.array_equal(
        first.samples, estimate_brain(samples=64, seed=6, reading="valid").samples
    )


def test_the_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1]  # noqa: NPY002
    assert estimate_brain(samples=64).sensitivities
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_quantiles_of_a_known_distribution() -> None:
    """The rate alone, log-uniform over two decades: so is the FLOP/s."""
    estimate = only(20_000, rate_hz=(1, 100))
    per_hz = estimate_brain(FIXED, reading="one_step", samples=2).value
    assert per_hz is not None
    expected = [per_hz / 200 * 10 ** (2 * level) for level in (0.05, 0.5, 0.95)]
    np.testing.assert_allclose(estimate.quantiles(), expected, rtol=0.08)
    assert estimate.quantiles(0.5) == (float(np.median(estimate.samples)),)
    assert estimate.value == pytest.approx(per_hz / 200 * 10)


def test_sobol_indices_of_a_product_are_the_logarithms_variances() -> None:
    estimate = only(rate_hz=(1, 100), purkinje__cells=(10_000_000, 100_000_000))
    # log10 of the sum is that of the Purkinje cells' product, but for granule cells of 1 in 10,000.
    share = math.log(100) ** 2 / (math.log(100) ** 2 + math.log(10) ** 2)
    assert estimate.free == ("purkinje.cells", "rate_hz")
    rate, cells = estimate.sensitivities
    assert (rate.name, cells.name) == ("rate_hz", "purkinje.cells")
    for found, expected in ((rate, share), (cells, 1 - share)):
        assert found.first == pytest.approx(expected, abs=0.05)
        assert found.total == pytest.approx(expected, abs=0.05)
        assert found.first_interval[0] <= expected <= found.first_interval[1]
        assert found.total_interval[0] <= expected <= found.total_interval[1]
        assert found.total_interval[0] < found.total < found.total_interval[1]
        assert found.rank_correlation is not None
        assert 0.2 < found.rank_correlation < 1


def test_the_defaults_matter_in_this_order() -> None:
    shares = {each.name: each.total for each in estimate_brain(samples=512).sensitivities}
    assert next(iter(shares)) == "rate_hz"
    assert shares["rate_hz"] > 0.7
    assert shares["granule.cells"] < 0.001
    assert "pyramidal.cells" not in shares
    assert "pyramidal.cells" in estimate_brain(samples=2, reading="with_cortex").free
    assert "rate_hz" not in estimate_brain(samples=2, reading="one_step_per_frame").free


def test_swings_hold_the_others_at_their_values() -> None:
    estimate = estimate_brain(samples=2)
    swings = {each.name: each for each in estimate.swings()}
    assert next(iter(swings)) == "rate_hz"
    low, high = swings["rate_hz"].flop_per_s
    assert high == estimate.value
    assert low == pytest.approx(1_000_090 * 10**15 * 0.16 / 200)
    assert swings["time_steps"].ends == (3, 6)  # of 2.4 to 6
    assert swings["time_steps"].flop_per_s == (
        pytest.approx(1_000_090 * 10**15 * (3 / 5) ** 2),
        pytest.approx(1_000_090 * 10**15 * (6 / 5) ** 2),
    )


def test_correlated_inputs_spread_the_estimate() -> None:
    inputs = default_inputs()
    pair = Correlation(("rate_hz", "purkinje.cells"), 0.9, Source("chosen", "`rate_hz` here"))
    apart = estimate_brain(inputs, reading="one_step_per_frame", samples=2000)
    assert np.std(np.log(apart.samples)) > 0
    loose, tied = (
        estimate_brain(each, reading="one_step", samples=2000)
        for each in (inputs, inputs.with_correlations([pair]))
    )
    assert np.std(np.log(tied.samples)) > 1.05 * np.std(np.log(loose.samples))
    cells = {each.name: each for each in tied.sensitivities}["purkinje.cells"]
    assert cells.rank_correlation is not None
    assert cells.rank_correlation > 0.8  # what it shares with the rate
    assert cells.total < 0.2  # the index is of inputs that vary alone


def test_without_ranges_there_is_no_spread() -> None:
    estimate = estimate_brain(FIXED, samples=10)
    assert set(estimate.samples) == {1.00009e21}
    assert estimate.sensitivities == ()
    assert estimate.swings() == ()


def test_a_few_draws_and_idle_inputs_are_no_trouble() -> None:
    assert BrainReport(estimate_brain(samples=2)).to_dict()["estimate"]["sensitivities"]
    # The dendrites' number does not enter a dot product of all synapses.
    idle = {**FIXED, "purkinje.dendrites": (400, 1000)}
    (row,) = estimate_brain(idle, reading="linear_collapse", samples=64).sensitivities
    assert (row.first, row.total, row.rank_correlation) == (0, 0, None)


def test_readings_are_mixed_only_when_weighed() -> None:
    mix = estimate_brain(
        FIXED, weights={"essay": 3, "linear_collapse": 1, "valid": 0}, samples=4000
    )
    assert mix.reading is None
    assert mix.value is None
    assert mix.by_cell is None
    assert mix.by_reading == {"essay": 1_000_090 * 10**15, "linear_collapse": 215 * 10**14}
    assert set(mix.samples) == {1.00009e21, 2.15e16}
    assert np.mean(mix.samples > 1e20) == pytest.approx(0.75, abs=0.03)
    (row,) = mix.sensitivities
    assert (row.name, row.rank_correlation) == ("reading", None)
    assert row.total == 1
    mixed = estimate_brain({**FIXED, "rate_hz": (1, 100)}, weights={"essay": 1, "valid": 1})
    shares = {each.name: each for each in mixed.sensitivities}
    # Half of the draws lie log10(1e21 / 9.22e17) decades below the other half.
    apart = (math.log10(1_000_090 / 922) / 2) ** 2
    assert shares["reading"].total == pytest.approx(apart / (apart + 2**2 / 12), abs=0.05)
    with pytest.raises(ValueError, match="no value to swing about"):
        mix.swings()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="one of the two"):
        estimate_brain(reading="essay", weights={"essay": 1})
    with pytest.raises(ValueError, match="at least 2"):
        estimate_brain(samples=1)
    with pytest.raises(ValueError, match="0 or more"):
        estimate_brain(weights={"essay": -1})
    with pytest.raises(ValueError, match="one above 0"):
        estimate_brain(weights={"essay": 0})
    with pytest.raises(ValueError, match="unknown"):
        estimate_brain(weights={"esay": 1})
    with pytest.raises(ValueError, match="did you mean 'rate_hz'"):
        estimate_brain({"rate": 5})


@pytest.mark.parametrize("name", list(READINGS))
def test_every_reading_has_an_interval(name: str) -> None:
    low, middle, high = estimate_brain(reading=name, samples=200).quantiles()
    assert 0 < low < middle < high < math.inf


def test_every_measured_input_has_its_sensitivity() -> None:
    assert len(estimate_brain(seed=11).sensitivities) == 7
