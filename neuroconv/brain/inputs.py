"""What goes into the estimate: every input with its range, its distribution, unit and source."""

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from scipy import stats

from neuroconv.brain.correlation import Correlation
from neuroconv.brain.quantity import Quantity, whole
from neuroconv.core.checks import check_choice
from neuroconv.references import Source

Distribution = Literal["fixed", "uniform", "log-uniform", "normal", "log-normal"]
DISTRIBUTIONS: tuple[str, ...] = get_args(Distribution)
_Z_90 = float(stats.norm.ppf(0.95))  # half of a 90 % interval, in standard deviations
# Units of what can only be counted: values and draws are whole numbers, from 1 on.
_COUNTED = ("cells", "synapses", "dendrites", "branches", "steps")


class UnknownInput(ValueError, KeyError):
    """A name that no input has. Says which names there are."""

    __str__ = ValueError.__str__


MOST = 1e30  # of any input: beyond it, products leave the range of floating point


@dataclass(frozen=True, kw_only=True)
class Input:
    """A number that the estimate takes in: a value, and where it can lie.

    Attributes:
        quantity: its name, value, unit and source. Cells, synapses, dendrites, branches and steps
            are whole numbers. Drawn between bounds they are the whole numbers from one to the
            other, the last as likely as its neighbours: of 2.4 to 6 steps 3, 4, 5 and 6.
        distribution: "fixed"; "uniform" or "log-uniform" between the bounds; "normal" or
            "log-normal", of which the bounds are the 5 % and the 95 % quantile.
        low, high: the bounds, each with its own source; None of what is fixed.

    Raises:
        ValueError: a value or bound that is not above zero, a count that is not whole, bounds that
            do not enclose the value, bounds without a distribution or the other way round, or a
            normal distribution with more than 1 in 30,000 below zero.
    """

    quantity: Quantity
    distribution: Distribution = "fixed"
    low: Quantity | None = None
    high: Quantity | None = None

    def __post_init__(self) -> None:
        name, value = self.name, self.value
        check_choice(f"{name}: distribution", self.distribution, DISTRIBUTIONS)
        if (self.distribution == "fixed") != (self.low is None) or (self.low is None) != (
            self.high is None
        ):
            raise ValueError(
                f"{name}: distribution={self.distribution!r} with low={_value(self.low)}, "
                f"high={_value(self.high)}; expected both bounds, or 'fixed' and none"
            )
        largest = value if self.high is None else max(value, self.high.value)
        if largest > MOST:
            raise ValueError(f"{name}={largest:g}; expected at most {MOST:g} {self.quantity.unit}")
        if value <= 0 or (self.counted and value != int(value)):
            kind = "a whole number from 1 on" if self.counted else "a number above 0"
            raise ValueError(f"{name}={value!r}; expected {kind}, in {self.quantity.unit}")
        if self.low is None or self.high is None:
            return
        low, high = self.low.value, self.high.value
        if self.counted and 0 < low < high and math.ceil(low) > math.floor(high):
            raise ValueError(
                f"{name}: low={low!r}, high={high!r}; expected bounds with a whole number between "
                f"them, in {self.quantity.unit}"
            )
        if not 0 < low <= value <= high or low == high:
            raise ValueError(
                f"{name}={value!r} with low={low!r}, high={high!r}; "
                "expected 0 < low <= value <= high and low < high"
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
        """A whole number."""
        return self.quantity.unit in _COUNTED

    @property
    def ends(self) -> tuple[float, float]:
        """The bounds; of a count the first and the last whole number between them.

        Of what is fixed, its value twice.
        """
        if self.low is None or self.high is None:
            return self.value, self.value
        low, high = self.low.value, self.high.value
        return (math.ceil(low), math.floor(high)) if self.counted else (low, high)

    def at(self, probability: np.ndarray) -> np.ndarray:
        """Values below which the given probabilities lie; those of a count are whole."""
        if self.distribution == "fixed":
            return np.full(probability.shape, float(self.value))
        assert self.low is not None
        assert self.high is not None
        if self.counted and self.distribution in ("uniform", "log-uniform"):
            low, high = self.ends
            # A whole number stands for all that is rounded to it.
            wider = _law(self.distribution, low - 0.5, high + 0.5)
            whole_numbers: np.ndarray = np.clip(np.rint(wider.ppf(probability)), low, high)
            return whole_numbers
        law = _law(self.distribution, self.low.value, self.high.value)
        values: np.ndarray = law.ppf(probability)
        return np.maximum(np.rint(values), 1) if self.counted else values

    def changed(
        self,
        source: Source,
        *,
        value: float | None = None,
        low: float | None = None,
        high: float | None = None,
        distribution: Distribution | None = None,
    ) -> "Input":
        """With other numbers, which have `source`.

        A value alone is fixed. Bounds alone keep the distribution ("uniform" if there was none),
        and its median becomes the value. A distribution alone is that of the bounds there are.
        """
        if value is None and low is None and high is None:
            if distribution is None:
                raise ValueError(f"{self.name}: nothing is given; expected a value or low and high")
            if distribution == "fixed":
                return replace(self, distribution=distribution, low=None, high=None)
            return replace(self, distribution=distribution)
        if low is None and high is None:
            given: float = value  # type: ignore[assignment]
            quantity = replace(self.quantity, value=whole(given), source=source)
            return Input(quantity=quantity, distribution=distribution or "fixed")
        law = distribution or ("uniform" if self.distribution == "fixed" else self.distribution)
        bounds = {
            end: replace(
                self.quantity, name=f"{self.name}.{end}", value=whole(bound), source=source
            )
            for end, bound in (("low", low), ("high", high))
            if bound is not None
        }
        if value is None:
            ends = [bound.value for bound in bounds.values()]
            value = ends[0]  # what `Input` refuses has no median
            if len(ends) == 2 and 0 < ends[0] < ends[1] and law in DISTRIBUTIONS[1:]:
                value = float(_law(law, *ends).median())
            value = max(round(value), 1) if self.counted else value
        quantity = replace(self.quantity, value=whole(value), source=source)
        return Input(quantity=quantity, distribution=law, **bounds)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the quantity's, its distribution, and the bounds as quantities."""
        return {
            **self.quantity.to_dict(),
            "distribution": self.distribution,
            "low": None if self.low is None else self.low.to_dict(),
            "high": None if self.high is None else self.high.to_dict(),
        }


class Inputs(Mapping[str, Input]):
    """All inputs of the estimate by name, and what is known of their correlations.

    Args:
        inputs: each with a name of its own.
        correlations: at most one for a pair; of inputs that have a distribution.

    Raises:
        ValueError: an unknown or fixed input in a correlation, a pair given twice, or correlations
            that no numbers can have together.
    """

    def __init__(self, inputs: Iterable[Input], correlations: Iterable[Correlation] = ()) -> None:
        self._inputs = MappingProxyType({each.name: each for each in inputs})
        self.correlations = tuple(sorted(correlations, key=lambda each: each.between))
        self._factor = self._check_correlations()

    def __getitem__(self, name: str) -> Input:
        if name not in self._inputs:
            near = difflib.get_close_matches(name, self._inputs, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownInput(
                f"unknown input {name!r}; {hint}expected one of {', '.join(self._inputs)}"
            )
        return self._inputs[name]

    def __contains__(self, name: object) -> bool:
        return name in self._inputs

    def __iter__(self) -> Any:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    @property
    def values_at_point(self) -> dict[str, float]:
        """Every input at its value."""
        return {name: each.value for name, each in self._inputs.items()}

    def with_input(self, changed: Input) -> "Inputs":
        """With another input under the same name."""
        kept = {**self._inputs, self[changed.name].name: changed}
        return Inputs(kept.values(), self.correlations)

    def with_correlations(self, correlations: Iterable[Correlation]) -> "Inputs":
        return Inputs(self._inputs.values(), correlations)

    @property
    def random(self) -> tuple[str, ...]:
        """Names of the inputs that have a distribution."""
        return tuple(name for name, each in self._inputs.items() if each.distribution != "fixed")

    def _check_correlations(self) -> np.ndarray:
        """The factor that correlates standard normal numbers, (random, random)."""
        names = self.random
        # Spearman's rank correlation r of a Gaussian copula comes of its linear 2 sin(pi r / 6).
        matrix = np.eye(len(names))
        pairs: set[frozenset[str]] = set()
        for each in self.correlations:
            title = f"correlation of {' and '.join(each.between)}"
            for name in each.between:
                if self[name].distribution == "fixed":
                    raise ValueError(
                        f"{title}: {name} is fixed; expected an input with a distribution: "
                        "give it low and high"
                    )
            if frozenset(each.between) in pairs:
                raise ValueError(f"{title} is given twice; expected one rank for a pair")
            pairs.add(frozenset(each.between))
            i, j = (names.index(name) for name in each.between)
            matrix[i, j] = matrix[j, i] = 2 * math.sin(math.pi * each.rank / 6)
        if not names:
            return matrix
        sizes, directions = np.linalg.eigh(matrix)
        if sizes[0] < 1e-9:
            involved = [
                name
                for name, share in zip(names, abs(directions[:, 0]), strict=True)
                if share > 0.05
            ]
            raise ValueError(
                f"the rank correlations of {', '.join(involved)} cannot all hold: their matrix is "
                f"not positive definite (smallest eigenvalue {sizes[0]:.3g}); "
                "expected weaker ones, or one fewer"
            )
        return np.linalg.cholesky(matrix)

    def draw(self, samples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """So many draws of every input, correlated by a Gaussian copula; each (samples,)."""
        names = self.random
        normal = self._factor @ rng.standard_normal((len(names), samples))
        draws = dict(zip(names, stats.norm.cdf(normal), strict=True))
        nothing = np.full(samples, 0.5)
        return {name: each.at(draws.get(name, nothing)) for name, each in self._inputs.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data: {"inputs": [...], "correlations": [...]}."""
        return {
            "inputs": [each.to_dict() for each in self._inputs.values()],
            "correlations": [each.to_dict() for each in self.correlations],
        }

    @property
    def sha256(self) -> str:
        """Hash of all that the inputs are, values, ranges and sources, in hexadecimal."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _law(distribution: Distribution, low: float, high: float) -> Any:
    if distribution == "uniform":
        return stats.uniform(low, high - low)
    if distribution == "log-uniform":
        return stats.loguniform(low, high)
    if distribution == "normal":
        return stats.norm((low + high) / 2, (high - low) / (2 * _Z_90))
    return stats.lognorm(math.log(high / low) / (2 * _Z_90), scale=math.sqrt(low * high))


def _value(bound: Quantity | None) -> float | None:
    return None if bound is None else bound.value
