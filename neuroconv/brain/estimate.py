"""The estimate: a value, its spread over the inputs' ranges, and the causes of the spread."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import stats

from neuroconv.brain.inputs import Inputs
from neuroconv.brain.quantity import Quantity, derived, plain
from neuroconv.brain.readings import Reading, reading_of
from neuroconv.brain.sensitivity import Sensitivity, Swing, sobol
from neuroconv.brain.setting import as_inputs
from neuroconv.brain.updates import flop_per_second, sampled_flop_per_second
from neuroconv.references import Source

READING = "reading"  # the choice of reading, which is an input of a mix


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
        for name, ((first, *first_ends), (total, *total_ends)) in zip(
            names, indices.tolist(), strict=True
        ):
            rank = None
            if name != READING and np.ptp(self.draws[name]) and np.ptp(self.samples):
                rank = float(stats.spearmanr(self.draws[name], self.samples).statistic)
            rows.append(Sensitivity(name, first, tuple(first_ends), total, tuple(total_ends), rank))
        return tuple(sorted(rows, key=lambda row: -row.total))

    def _log_flop(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns log10(FLOP/s) at probabilities (inputs, n) of the free inputs."""
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


def estimate_brain(
    inputs: Inputs | Mapping[str, Any] | None = None,
    *,
    reading: str | Reading | None = None,
    weights: Mapping[str, float] | Mapping[Reading, float] | None = None,
    samples: int = 4096,
    seed: int = 0,
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
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise ValueError(f"samples={samples!r}; expected an integer of at least 2")
    shares = _shares({reading or "essay": 1.0} if weights is None else weights)
    given, rng = as_inputs(inputs), np.random.default_rng(seed)
    draws = given.draw(samples, rng)
    flops = _mixture(shares, rng.random(samples), draws)
    return Estimate(given, shares, flops, MappingProxyType(draws), seed)


def _shares(weights: Mapping[Any, float]) -> Mapping[Reading, float]:
    """Returns the weights above zero, normalised to a sum of one."""
    for name, weight in weights.items():
        if isinstance(weight, bool) or not 0 <= weight < float("inf"):
            title = name.name if isinstance(name, Reading) else name
            raise ValueError(f"weight {weight!r} of reading {title!r}; expected 0 or more")
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
