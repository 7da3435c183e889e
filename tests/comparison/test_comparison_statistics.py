"""Intervals and verdicts: against closed forms, SciPy's bootstrap and known truths."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, false_discovery_control, ttest_1samp

from neuroconv.comparison import Estimate, estimate, holm, verdict
from neuroconv.comparison.statistics import estimate_by_test_set, pack, unpack


def crossed(seeds: int, images: int, deviations: tuple[float, float, float], generator: Any) -> Any:
    """Values (S, N) of true mean zero: effects of seeds, of images, and of both together."""
    shapes = (seeds, 1), (1, images), (seeds, images)
    pairs = zip(deviations, shapes, strict=True)
    return sum(deviation * generator.standard_normal(shape) for deviation, shape in pairs)


def test_without_images_it_is_students_t() -> None:
    values = [0.1, 0.3, 0.2, 0.25]
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    result = estimate(values)
    assert result.mean == pytest.approx(np.mean(values))
    assert result.half_width == pytest.approx((interval.high - interval.low) / 2)
    assert result.p == pytest.approx(ttest_1samp(values, 0).pvalue)
    # 4.30265 is the 97.5 % point of Student's t with two degrees of freedom; the deviation is 1.
    assert estimate([1.0, 2.0, 3.0]).half_width == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert estimate([]) == Estimate(None, None, seeds=0)
    assert estimate([0.5]) == Estimate(0.5, None, seeds=1)
    assert estimate([0.5, 0.5]) == Estimate(0.5, 0.0, 2, 0.0)
    assert estimate(np.zeros((3, 4))) == Estimate(0.0, 0.0, 3, 1.0)


def test_the_variance_is_that_of_resampling_seeds_and_images_together() -> None:
    """SciPy's crossed bootstrap counts what both have together three times, and n as n - 1."""
    generator = np.random.default_rng(1)
    seeds, images = 6, 40
    table = crossed(seeds, images, (0.3, 1.0, 2.0), generator)
    rows, columns = np.arange(seeds), np.arange(images)
    resampled = bootstrap(
        (rows, columns), lambda s, i: table[np.ix_(s, i)].mean(), n_resamples=10_000,
        vectorized=False, method="percentile", rng=generator,
    )  # fmt: skip
    by_seed, by_image = table.mean(1).var(ddof=1) / seeds, table.mean(0).var(ddof=1) / images
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    both = (rest**2).sum() / (seeds - 1) / (images - 1) / table.size
    few = (seeds - 1) / seeds, (images - 1) / images
    expected = few[0] * by_seed + few[1] * by_image + few[0] * few[1] * both
    assert resampled.standard_error == pytest.approx(expected**0.5, rel=0.02)
    result = estimate(table)
    unbiased = by_seed + by_image - both
    assert 1.96 < result.half_width / unbiased**0.5 < 2.6  # t with more than 5 degrees of freedom


@pytest.mark.parametrize(
    "deviations", [(0.02, 0.3, 1.0), (0.1, 0.3, 1.0), (1.0, 0.1, 0.3), (0.0, 1.0, 1.0)]
)
def test_intervals_cover_a_known_truth_and_tests_keep_their_size(deviations: Any) -> None:
    """Of 2,000 samples of five seeds: a share of 95 % has a standard deviation of 0.5 %."""
    generator = np.random.default_rng(0)
    results = [estimate(crossed(5, 100, deviations, generator)) for _ in range(2000)]
    assert all(r.mean is not None and r.half_width is not None for r in results)
    covered = np.mean([abs(r.mean) <= r.half_width for r in results])  # type: ignore
    significant = np.mean([r.p < 0.05 for r in results])  # type: ignore[operator]
    assert 0.93 <= covered <= 0.985
    assert significant == pytest.approx(1 - covered)
    assert significant <= 0.06


def test_seeds_with_test_sets_of_their_own_are_compared_over_these() -> None:
    generator = np.random.default_rng(0)
    values = {seed: generator.standard_normal(9) for seed in range(5)}
    means = [values[seed].mean() for seed in range(5)]
    alone = estimate_by_test_set(values, dict(enumerate("abcde")))
    assert alone == estimate(np.array(means))
    twice = estimate_by_test_set(values, dict(enumerate("abcda")))
    assert twice == estimate(np.array([(means[0] + means[4]) / 2, *means[1:4]]))
    same = estimate_by_test_set(values, dict.fromkeys(range(5), "a"))
    assert same == estimate(np.array([*values.values()]))


def test_holm_against_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.02, None, 0.03]) == [0.04, None, 0.04]
    p_values = np.random.default_rng(0).uniform(size=9)
    assert np.all(np.array(holm([*p_values])) >= false_discovery_control(p_values) - 1e-12)


@pytest.mark.parametrize(
    ("mean", "half_width", "p", "margin", "corrected", "expected"),
    [
        (0.02, 0.01, 0.01, None, None, "better"),
        (-0.02, 0.01, 0.01, 0.01, None, "worse"),
        (-0.02, 0.01, 0.01, 0.01, 0.06, "inconclusive"),
        (0.02, 0.03, 0.2, 0.01, None, "inconclusive"),
        (0.002, 0.003, 0.2, 0.01, None, "equal"),
        (0.002, 0.003, 0.2, None, None, "inconclusive"),
        (0.002, 0.001, 0.01, 0.01, None, "equal (slightly better)"),
        (-0.002, 0.001, 0.01, 0.01, None, "equal (slightly worse)"),
        (0.02, None, None, 0.01, None, "inconclusive"),
    ],
)
def test_verdicts(
    mean: float, half_width: Any, p: Any, margin: Any, corrected: Any, expected: str
) -> None:
    assert verdict(Estimate(mean, half_width, 5, p), margin, corrected) == expected


def test_flags_survive_the_record() -> None:
    right = np.random.default_rng(0).uniform(size=1001) < 0.98
    text = pack(right)
    assert np.array_equal(unpack(text, 1001), right)
    assert len(text) < 170  # a third of a byte's share of a flag: 84 of 1,001 bytes
