"""Inputs of the estimate: each with its range, distribution, unit and source."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from scipy import stats

from neuroconv.brain.quantity import Quantity, plain, whole
from neuroconv.core.checks import check_choice, expected_one_of
from neuroconv.references import Source

Distribution = Literal["fixed", "uniform", "log-uniform", "normal", "log-normal"]
DISTRIBUTIONS: tuple[str, ...] = get_args(Distribution)
LARGEST = 1e30  # of any input: beyond it, products leave the range of floating point
_Z_90 = float(stats.norm.ppf(0.95))  # half of a 90 % interval, in standard deviations
# Units of counts: their values and draws are whole numbers, from 1 on.
_COUNTED = ("cells", "synapses", "dendrites", "branches", "steps")


class UnknownInput(ValueError, KeyError):
    """A name that no input has. Its message lists the names there are."""

    __str__ = ValueError.__str__


@dataclass(frozen=True, kw_only=True)
class Input:
    """A number that the estimate takes in: a value, and where it can lie.

    Cells, synapses, dendrites, branches and steps are whole numbers, and so are their bounds and
    draws: of 3 to 6 steps 3, 4, 5 and 6, the first and the last as likely as their neighbours.
    Bounds are the ends of a uniform or log-uniform distribution, the 5 % and 95 % quantiles of a
    normal or log-normal one.

    Raises:
        ValueError: a number not above zero, a count that is not whole, bounds that do not enclose
            the value or have no distribution, a normal one with more than 1 in 30,000 below zero.
    """

    quantity: Quantity
    distribution: Distribution = "fixed"
    low: Quantity | None = None
    high: Quantity | None = None

    def __post_init__(self) -> None:
        name, value, unit = self.name, self.value, self.quantity.unit
        check_choice(f"{name}: distribution", self.distribution, DISTRIBUTIONS)
        low, high = (None if end is None else end.value for end in (self.low, self.high))
        if {self.distribution == "fixed"} != {low is None, high is None}:
            raise ValueError(
                f"{name}: distribution={self.distribution!r} with low={low}, high={high}; "
                "expected both bounds, or 'fixed' and none"
            )
        if (largest := max(value, high or value)) > LARGEST:
            raise ValueError(f"{name}={largest:g}; expected at most {LARGEST:g}")
        if value <= 0 or (self.counted and value != int(value)):
            kind = "a whole number from 1 on" if self.counted else "a number above 0"
            raise ValueError(f"{name}={value!r}; expected {kind}, in {unit}")
        if low is None or high is None:
            return
        bounds = f"low={low!r}, high={high!r}"
        if self.counted and (low != int(low) or high != int(high)):
            raise ValueError(
                f"{name}: {bounds}; expected whole numbers, as its draws are, in {unit}"
            )
        if not 0 < low <= value <= high or low == high:
            raise ValueError(
                f"{name}={value!r} with {bounds}; expected 0 < low <= value <= high and low < high"
            )
        if self.distribution == "normal" and _law("normal", low, high).cdf(0) > 1 / 30_000:
            raise ValueError(
                f"{name}: a normal distribution with 90 % in {low!r} to {high!r} reaches below "
                "zero; expected 'log-normal' or a narrower range"
            )

    @property
    def name(self) -> str:
        return self.quantity.name

    @property
    def value(self) -> float:
        return self.quantity.value

    @property
    def counted(self) -> bool:
        """Whether it is a whole number."""
        return self.quantity.unit in _COUNTED

    @property
    def ends(self) -> tuple[float, float]:
        """The bounds; a fixed value twice."""
        if self.low is None or self.high is None:
            return self.value, self.value
        return self.low.value, self.high.value

    def at(self, probability: np.ndarray) -> np.ndarray:
        """Returns the distribution's quantiles at probabilities; those of a count are whole."""
        if self.low is None or self.high is None:
            return np.full(probability.shape, float(self.value))
        low, high = self.ends
        if self.counted and self.distribution in ("uniform", "log-uniform"):
            # A whole number stands for all that is rounded to it.
            wider = _law(self.distribution, low - 0.5, high + 0.5)
            return np.asarray(np.clip(np.rint(wider.ppf(probability)), low, high))
        law = _law(self.distribution, low, high)
        values = np.asarray(law.ppf(probability))
        return np.maximum(np.rint(values), 1) if self.counted else values

    def changed(
        self,
        source: Source,
        *,
        value: float | None = None,
        distribution: Distribution | None = None,
        **bounds: float,
    ) -> "Input":
        """Returns the input with other numbers, which have `source`.

        A value alone is fixed. Bounds alone (`low` and `high`) keep the distribution ("uniform" if
        there was none), and its median becomes the value. A distribution alone keeps the bounds.
        """
        if value is None and not bounds:
            if distribution is None:
                raise ValueError(f"{self.name}: nothing is given; expected a value or low and high")
            base = Input(quantity=self.quantity) if distribution == "fixed" else self
            return replace(base, distribution=distribution)
        present = "uniform" if self.distribution == "fixed" else self.distribution
        law = distribution or (present if bounds else "fixed")
        if value is None:
            low, high = bounds["low"], bounds["high"]
            value = low  # bounds that `Input` refuses have no median
            if 0 < low < high and law in DISTRIBUTIONS[1:]:
                value = float(_law(law, low, high).median())
            value = max(round(value), 1) if self.counted else value
        ends = {
            end: replace(self.quantity, name=f"{self.name}.{end}", value=whole(x), source=source)
            for end, x in bounds.items()
        }
        quantity = replace(self.quantity, value=whole(value), source=source)
        return Input(quantity=quantity, distribution=law, **ends)

    def to_dict(self) -> dict[str, Any]:
        bounds = {"distribution": self.distribution, "low": self.low, "high": self.high}
        return {**self.quantity.to_dict(), **plain(bounds)}


@dataclass(frozen=True)
class Correlation:
    """Spearman's correlation of two different inputs' draws, -1 to 1; counts that tie have less."""

    between: tuple[str, str]
    rank: float
    source: Source

    def __post_init__(self) -> None:
        if len(set(self.between)) != 2:
            raise ValueError(f"correlation between {self.between!r}; expected two different inputs")
        object.__setattr__(self, "between", tuple(sorted(self.between)))
        if not -1 < self.rank < 1:
            raise ValueError(f"{self.title}: rank={self.rank!r}; expected one between -1 and 1")

    @property
    def title(self) -> str:
        return f"correlation of {' and '.join(self.between)}"

    @property
    def quantity(self) -> Quantity:
        return Quantity(f"rank {self.title}", self.rank, "1", self.source)


class Inputs(Mapping[str, Input]):
    """All inputs of the estimate by name, and correlations between those with a distribution.

    Raises:
        ValueError: an unknown or fixed input in a correlation, or ones that cannot all hold.
    """

    def __init__(self, inputs: Iterable[Input], correlations: Iterable[Correlation] = ()) -> None:
        self._inputs = MappingProxyType({row.name: row for row in inputs})
        self.correlations = tuple(sorted(correlations, key=lambda row: row.between))
        self._factor = self._correlation_factor()

    def __getitem__(self, name: str) -> Input:
        if name not in self._inputs:
            raise UnknownInput(f"unknown input {name!r}; {expected_one_of(name, self._inputs)}")
        return self._inputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    @property
    def values_at_point(self) -> dict[str, float]:
        return {name: row.value for name, row in self._inputs.items()}

    def with_input(self, changed: Input) -> "Inputs":
        """Returns the inputs with `changed` in place of the input of that name."""
        return Inputs((self._inputs | {changed.name: changed}).values(), self.correlations)

    def with_correlations(self, correlations: Iterable[Correlation]) -> "Inputs":
        """Returns the inputs with these correlations instead."""
        return Inputs(self.values(), correlations)

    @property
    def random(self) -> tuple[str, ...]:
        """Names of the inputs with a distribution."""
        return tuple(name for name, row in self.items() if row.distribution != "fixed")

    def _correlation_factor(self) -> np.ndarray:
        """Returns the factor that correlates standard normal numbers, (random, random)."""
        names, pairs = self.random, set[tuple[str, ...]]()
        matrix = np.eye(len(names))
        for row in self.correlations:
            if row.between in pairs:
                raise ValueError(f"{row.title} is given twice; expected one rank for a pair")
            pairs.add(row.between)
            for name in row.between:
                if self[name].distribution == "fixed":
                    raise ValueError(f"{row.title}: {name} is fixed; expected low and high for it")
            i, j = (names.index(name) for name in row.between)
            # A Gaussian copula of linear correlation 2 sin(pi r / 6) has Spearman's r.
            matrix[i, j] = matrix[j, i] = 2 * math.sin(math.pi * row.rank / 6)
        try:
            return np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            involved = sorted({name for pair in pairs for name in pair})
            raise ValueError(
                f"the rank correlations of {', '.join(involved)} cannot all hold: their matrix is "
                "not positive definite; expected weaker ones, or one fewer"
            ) from None

    def draw(self, samples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns draws of every input, correlated by a Gaussian copula, (samples,) each."""
        names = self.random
        normal = self._factor @ rng.standard_normal((len(names), samples))
        draws = dict(zip(names, stats.norm.cdf(normal), strict=True))
        middle = np.full(samples, 0.5)
        return {name: row.at(draws.get(name, middle)) for name, row in self.items()}

    def to_dict(self) -> dict[str, Any]:
        rows = (self.values(), (row.quantity for row in self.correlations))
        inputs, correlations = ([row.to_dict() for row in part] for part in rows)
        return {"inputs": inputs, "correlations": correlations}

    @property
    def sha256(self) -> str:
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _law(distribution: str, low: float, high: float) -> Any:
    low, high = float(low), float(high)  # an integer may be too large for an array
    if distribution == "uniform":
        return stats.uniform(low, high - low)
    if distribution == "log-uniform":
        return stats.loguniform(low, high)
    if distribution == "normal":
        return stats.norm((low + high) / 2, (high - low) / (2 * _Z_90))
    return stats.lognorm(math.log(high / low) / (2 * _Z_90), scale=math.sqrt(low * high))
