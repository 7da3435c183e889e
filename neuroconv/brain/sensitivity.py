"""Causes of a spread: Sobol indices, and how far one input alone moves the estimate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from neuroconv.brain.quantity import derived

_FEWEST, _POINTS = 64, 1_024  # powers of two
_RESAMPLES = 200
_LEVEL = 0.95
Interval = tuple[float, float]


@dataclass(frozen=True)
class Sensitivity:
    """Share of one input in the spread, the variance of log10(FLOP/s).

    The 95 % intervals are SciPy's bootstrap, which takes the points of a Sobol sequence for
    independent draws and so overstates the error. The rank correlation (Spearman's) is of the
    draws with the FLOP/s; None for equal draws, and for a reading, which has no order.
    """

    name: str  # the input's, or "reading" in a mix
    first: float  # first-order Sobol index: the share that vanishes when this input is known
    first_interval: Interval
    total: float  # total Sobol index: the share that remains when all the others are known
    total_interval: Interval
    rank_correlation: float | None

    def to_dict(self) -> dict[str, Any]:
        sobol = "Sobol index of log10(FLOP/s), inputs taken as independent,"
        interval = f"{_LEVEL:.0%} bootstrap interval of the Sobol index"
        numbers = (
            ("first", self.first, f"first-order {sobol}"),
            ("first_low", self.first_interval[0], interval),
            ("first_high", self.first_interval[1], interval),
            ("total", self.total, f"total {sobol}"),
            ("total_low", self.total_interval[0], interval),
            ("total_high", self.total_interval[1], interval),
            ("rank_correlation", self.rank_correlation, "Spearman's rank correlation of the draws"),
        )
        return _as_dict(
            self.name, *((part, x, "1", f"{basis} of `{self.name}`") for part, x, basis in numbers)
        )


@dataclass(frozen=True)
class Swing:
    """FLOP/s with one input at the ends of its range and all others at their values."""

    name: str
    unit: str
    ends: Interval  # as `Input.ends` gives them
    flop_per_s: Interval

    def to_dict(self) -> dict[str, Any]:
        basis = f"`{self.name}` at an end of its range, others at their values"
        return _as_dict(
            self.name,
            ("low", self.ends[0], self.unit, basis),
            ("high", self.ends[1], self.unit, basis),
            ("flop_per_s_at_low", self.flop_per_s[0], "FLOP/s", basis),
            ("flop_per_s_at_high", self.flop_per_s[1], "FLOP/s", basis),
        )


def _as_dict(name: str, *numbers: tuple[str, float | None, str, str]) -> dict[str, Any]:
    return {"input": name} | {
        part: None if value is None else derived(f"{name}.{part}", value, unit, basis).to_dict()
        for part, value, unit, basis in numbers
    }


def sobol(
    function: Callable[[np.ndarray], np.ndarray], *, inputs: int, points: int, seed: int
) -> np.ndarray:
    """Returns Sobol indices by SciPy, each with the ends of its 95 % bootstrap interval.

    Args:
        function: from independent probabilities (inputs, n) to values (n,).
        inputs: number of inputs.
        points: n, cut to a power of two, 64 to 1,024; the function is called (inputs + 2) times.
        seed: of the points and of the bootstrap.

    Shape:
        (inputs, 2, 3): first-order and total index; the index, low end and high end.
    """
    n = max(_FEWEST, min(_POINTS, 1 << (points.bit_length() - 1)))
    rng = np.random.default_rng(seed)
    a, b = stats.qmc.Sobol(2 * inputs, rng=rng).random(n).T.reshape(2, inputs, n)
    exchanged = np.stack([a] * inputs)  # (inputs, inputs, n): a, with one input in turn from b
    exchanged[range(inputs), range(inputs)] = b
    f_a, f_b = function(a)[None], function(b)[None]
    spread = np.ptp(np.stack([f_a, f_b])) > 0
    if inputs == 1 or not spread:  # all of it is one input's, or there is none; SciPy takes neither
        return np.full((inputs, 2, 3), float(spread))
    f_ab = np.stack([function(points_ab) for points_ab in exchanged])[:, None]

    # SciPy's own interval of the indices takes no seed, so they are resampled here.
    def indices(index: np.ndarray) -> np.ndarray:
        parts = {"f_A": f_a[:, index], "f_B": f_b[:, index], "f_AB": f_ab[..., index]}
        result = stats.sobol_indices(func=parts, n=n)
        return np.stack([result.first_order.reshape(-1), result.total_order.reshape(-1)], axis=-1)

    interval = stats.bootstrap(
        (np.arange(n),), indices, n_resamples=_RESAMPLES, confidence_level=_LEVEL,
        method="percentile", vectorized=False, rng=rng,
    ).confidence_interval  # fmt: skip
    return np.stack([indices(np.arange(n)), interval.low, interval.high], axis=-1)
