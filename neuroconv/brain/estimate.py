"""The estimate: a value, its spread over the inputs' ranges, and the causes of the spread."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from scipy import stats

from neuroconv.brain.inputs import Inputs
from neuroconv.brain.quantity import Quantity, derived, plain
from neuroconv.brain.readings import Reading, reading_of
from neuroconv.brain.setting import as_inputs
from neuroconv.brain.updates import flop_per_second, sampled_flop_per_second
from neuroconv.core.arguments import NonNegative, Rule, Seed, as_argument, checked
from neuroconv.references import Source

READING = "reading"  # the choice of reading, which is an input of a mix
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


@dataclass(frozen=True, eq=False)
class Estimate:
    """The FLOP/s of a brain, under one reading or a weighted mix of them."""

    inputs: Inputs
    weights: Mapping[Reading, float]  # each reading's share of the samples, in sum 1
    samples: np.ndarray = field(repr=False)  # FLOP/s of each draw, (samples,)
    draws: Mapping[str, np.ndarray] = field(repr=False)  # of the inputs by name, (samples,) each
    seed: int

    @property
    def reading(self) -> Reading | None:
        """The reading; None for a mix."""
        return next(iter(self.weights)) if len(self.weights) == 1 else None

    @property
    def value(self) -> float | None:
        """FLOP/s with all inputs at their values, exact for integers; None for a mix."""
        return sum(self.by_cell.values()) if self.by_cell is not None else None

    @cached_property
    def by_cell(self) -> Mapping[str, float] | None:
        """`value`, cell type by cell type; None for a mix."""
        if self.reading is None:
            return None
        return MappingProxyType(flop_per_second(self.reading, self.inputs.values_at_point))

    def quantiles(self, *levels: float) -> tuple[float, ...]:
        """Returns quantiles of the samples in FLOP/s; by default 5, 50 and 95 %."""
        return tuple(np.quantile(self.samples, levels or (0.05, 0.5, 0.95)).tolist())

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the inputs with a distribution that the readings use."""
        used = {name for reading in self.weights for name in reading.uses}
        return tuple(name for name in self.inputs.random if name in used)

    @cached_property
    def sensitivities(self) -> tuple[Sensitivity, ...]:
        """Causes of the spread, the largest total index first.

        Sobol indices take the inputs as independent; rank correlations are of the samples.
        """
        names = self.free if self.reading else (*self.free, READING)
        if not names:
            return ()
        indices = sobol(self._log_flop, inputs=len(names), points=len(self.samples), seed=self.seed)
        rows = []
        for name, (first, total) in zip(names, indices.tolist(), strict=True):
            rank = None
            if name != READING and np.ptp(self.draws[name]) and np.ptp(self.samples):
                rank = float(stats.spearmanr(self.draws[name], self.samples).statistic)
            shares = (first[0], tuple(first[1:]), total[0], tuple(total[1:]))
            rows.append(Sensitivity(name, *shares, rank))
        return tuple(sorted(rows, key=lambda row: -row.total))

    def _log_flop(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns log10(FLOP/s) at probabilities (inputs, n) of the free inputs.

        A mix has one row more, which chooses the reading.
        """
        free = dict(zip((*self.free, READING), probabilities, strict=False))
        zeros = np.zeros(probabilities.shape[1])
        draws = {
            name: row.at(free[name]) if name in free else zeros + row.value
            for name, row in self.inputs.items()
        }
        return np.log10(_mixture(self.weights, free.get(READING, zeros), draws))

    def swings(self) -> tuple[Swing, ...]:
        """Returns how far each input alone moves the estimate, the widest first; not of a mix."""
        if self.reading is None:
            raise ValueError(
                "a mix of readings has no value to swing about; expected an estimate of one reading"
            )
        rows = []
        for name in self.free:
            ends, values = self.inputs[name].ends, self.inputs.values_at_point
            low, high = (
                sum(flop_per_second(self.reading, {**values, name: end}).values()) for end in ends
            )
            rows.append(Swing(name, self.inputs[name].quantity.unit, ends, (low, high)))
        return tuple(sorted(rows, key=lambda row: min(row.flop_per_s) / max(row.flop_per_s)))

    def to_dict(self, sensitivities: bool = True) -> dict[str, Any]:
        """Returns value, quantiles, weights and sensitivities as plain data."""
        names = ", ".join(f"`{row.name}`" for row in self.weights)
        point = f"all inputs at their values, read as {names}"
        draws = f"{len(self.samples)} draws of the inputs, seed {self.seed}, read as {names}"
        chosen = Source("chosen", f"weights of {names}")
        levels = (0.05, 0.25, 0.5, 0.75, 0.95)
        value, by_cell = self.value, self.by_cell or {}
        rows: dict[str, Any] = {
            "reading": self.reading.name if self.reading else "mix",
            "value": None if value is None else derived("estimate", value, "FLOP/s", point),
            "by_cell": [
                derived(f"{cell}.estimate", flops, "FLOP/s", point)
                for cell, flops in by_cell.items()
            ],
            "weights": [
                Quantity(f"{row.name}.weight", weight, "1", chosen)
                for row, weight in self.weights.items()
            ],
            "quantiles": [
                derived(f"quantile {level:.0%}", flops, "FLOP/s", draws)
                for level, flops in zip(levels, self.quantiles(*levels), strict=True)
            ],
        }
        if sensitivities:
            rows["sensitivities"] = [row.to_dict() for row in self.sensitivities]
        return plain(rows)


@checked
def estimate_brain(
    inputs: Inputs | Mapping[str, Any] | None = None,
    *,
    reading: str | Reading | None = None,
    weights: Mapping[Any, Any] | None = None,
    samples: Annotated[int, Rule("of at least 2", lambda number: 2 <= number < 2**31)] = 4096,
    seed: Seed = 0,
) -> Estimate:
    """Estimates the FLOP/s of a brain by the essay's method.

    Args:
        inputs: None for the essay's in their default ranges; {name: value or (low, high)} to set
            some; or `Inputs`, as `read_inputs` returns them.
        reading: a name of `READINGS` (default "essay"), or another `Reading`.
        weights: {reading: weight} instead: a mix, in which each draw of the inputs has one reading.
        samples: draws of the inputs, at least 2.
        seed: of the draws. The same arguments give the same estimate.

    Raises:
        ValueError: an unknown input or reading, numbers out of range, both a reading and weights,
            or weights that are negative or all zero.
    """
    if reading is not None and weights is not None:
        raise ValueError(f"reading={reading!r} with weights={weights!r}; expected one of the two")
    shares = _shares({reading or "essay": 1.0} if weights is None else weights)
    given, rng = as_inputs(inputs), np.random.default_rng(seed)
    draws = given.draw(samples, rng)
    flops = _mixture(shares, rng.random(samples), draws)
    return Estimate(given, shares, flops, MappingProxyType(draws), seed)


def _shares(weights: Mapping[Any, float]) -> Mapping[Reading, float]:
    """Returns the weights above zero, normalised to a sum of one."""
    for name, weight in weights.items():
        as_argument(f"weights: {name}", weight, NonNegative)
    total = sum(weights.values())
    if not total > 0:
        raise ValueError(f"weights={dict(weights)!r}; expected one above 0")
    return MappingProxyType(
        {reading_of(name): weight / total for name, weight in weights.items() if weight}
    )


def _mixture(
    weights: Mapping[Reading, float], probability: np.ndarray, draws: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Returns the FLOP/s of draws, each under the reading that its probability chooses."""
    chosen = np.searchsorted(np.cumsum(list(weights.values()))[:-1], probability, side="right")
    flops = np.empty(chosen.shape)
    for i, reading in enumerate(weights):
        mask = chosen == i
        if mask.any():
            part = {name: values[mask] for name, values in draws.items()}
            flops[mask] = sampled_flop_per_second(reading, part)
    return flops
