"""Scaling: exponents of made-up power laws, their intervals beside a bootstrap, a grid's best."""

from pathlib import Path

import numpy as np
import pytest

from neuroconv.essay import Rows
from tests.scripts import loaded

laws = loaded(Path(__file__).resolve().parents[2] / "experiments" / "scaling" / "power_laws.py")


def test_an_exponent_is_a_slope_of_logarithms() -> None:
    x = np.array([1, 4, 16])
    wrong = np.zeros((3, 2, 16), bool)
    for k, count in enumerate((16, 8, 4)):  # half the error for four times the images
        wrong[k, :, :count] = True
    assert laws.exponent(x, wrong).value == pytest.approx(0.5)


def test_its_interval_is_that_of_a_bootstrap_over_seeds_and_images() -> None:
    generator, x = np.random.default_rng(0), np.array([300, 1000, 3000, 10_000])
    images, seeds = 2000, 8
    difficulty = generator.normal(size=images)  # images are alike for all seeds and sizes
    level = np.array([-1.0, -1.5, -2.0, -2.5])[:, None, None]
    noise = generator.normal(scale=0.5, size=(4, seeds, images))
    skill = generator.normal(scale=0.15, size=(4, seeds, 1))
    wrong = difficulty + noise + skill + level > 0
    found, slopes = laws.exponent(x, wrong), []
    for _ in range(400):
        drawn = wrong[:, generator.integers(seeds, size=seeds)]
        drawn = drawn[:, :, generator.integers(images, size=images)]
        slopes.append(-np.polyfit(np.log(x), np.log(drawn.mean((1, 2))), 1)[0])
    assert found.value == pytest.approx(np.mean(slopes), abs=0.01)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(slopes), rel=0.3)


def test_the_frontier_takes_the_best_by_validation_of_all_that_cost_no_more() -> None:
    condition = {"network": "plain_cnn", "width": 1, "images": 10}
    rows = Rows(
        {**condition, "presentations": count, "seed": seed, "flop": flop, "val_error": error,
         "right": [True] * wrong}
        for seed in (0, 1)
        for count, flop, error, wrong in ((1, 10, 0.5, 1), (2, 20, 0.2, 2), (3, 30, 0.3, 3))
    )  # fmt: skip
    chosen = [laws.best(rows, "plain_cnn", flop=f)[1]["presentations"] for f in (10, 20, 30)]
    assert chosen == [1, 2, 2]
    assert laws.best(rows, "plain_cnn", images=10)[1]["presentations"] == 2
