"""A claim, what is expected if it holds, and the verdict that follows from what was measured.

A folder's claim.toml fixes both before the first recorded run:

    number = 2
    title = "Dendritic spikes do the work of max-pooling"
    claim = "..."                 # in the project's own words
    place = "Dendritic spikes"    # the section of the essay, or the text beside it
    picture = "..."               # what picture.svg shows, for those who cannot see it
    why = "..."                   # after the record: why the verdict is what it is
    minutes = { quick = 1, full = 30 }  # of one core
    known = true                  # the numbers were known when the rule was written; else left out

    [quantities.correlation]
    states = "..."                # a sentence that is true if the value is as expected
    unit = "points"
    expected = [1.0, inf]         # the smallest effect and the threshold
    null = 0.0                    # the value of no effect

A claim without quantities gets no verdict.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from neuroconv.comparison.statistics import Estimate
from neuroconv.core.arguments import Positive, Rule, Size
from neuroconv.training.tables import ConfigError, Table, Text

Verdict = Literal["holds", "holds in part", "does not hold", "inconclusive", "no verdict"]


def _rises(ends: tuple[Any, Any]) -> bool:
    return all(type(end) in (int, float) for end in ends) and ends[0] < ends[1]


Range = Annotated[
    tuple[Any, Any], Rule("numbers, low and high, of which one may be infinite", _rises)
]
Minutes = Annotated[
    Mapping[str, Positive], Rule("{ quick, full }", lambda table: {*table} == {"quick", "full"})
]


@dataclass(frozen=True)
class Interval:
    """A measured value with the ends of its interval, 95 % unless the claim says otherwise.

    Attributes:
        seeds: the number of repetitions behind it; 1 for what is computed and not drawn.
    """

    value: float
    low: float
    high: float
    seeds: int = 1

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):  # NumPy's numbers become Python's
            object.__setattr__(self, name, float(getattr(self, name)))

    @classmethod
    def of(cls, estimate: Estimate, scale: float = 1.0) -> Self:
        """Returns the interval of a mean, times a `scale` above zero; ValueError for one seed."""
        mean, half_width = estimate.mean, estimate.half_width
        if mean is None or half_width is None:
            raise ValueError(f"{estimate.seeds} seeds: expected two or more, for an interval")
        ends = (mean - half_width) * scale, (mean + half_width) * scale
        return cls(mean * scale, *ends, estimate.seeds)

    @classmethod
    def exact(cls, value: float) -> Self:
        """Returns the interval of a value that is computed, without error."""
        return cls(value, value, value)

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} ± {self.high - self.value:{spec.lstrip('+')}}"


@dataclass(frozen=True)
class Quantity(Table):
    """What is measured, and the range in which it lies if the claim holds.

    Attributes:
        states: a sentence that is true if the value is as expected.
        expected: the ends of the range, which may be infinite.
        null: the value of no effect; a quick run agrees with the record on its side of it.
    """

    header = "[quantities]"
    states: Text
    unit: str
    expected: Range
    null: float = 0.0

    def outcome(self, measured: Interval) -> Verdict:
        """Returns "holds" if the whole interval is as expected, "does not hold" if none of it."""
        low, high = self.expected
        if low <= measured.low and measured.high <= high:
            return "holds"
        return "does not hold" if measured.high < low or high < measured.low else "inconclusive"

    def agrees(self, measured: Interval, recorded: Interval) -> bool:
        """Whether two values lie on the same side of no effect."""
        sides = [(m.value > self.null) - (m.value < self.null) for m in (measured, recorded)]
        return sides[0] == sides[1]


@dataclass(frozen=True)
class Claim(Table):
    """A claim.toml: see above."""

    header = "the claim"
    number: Size
    title: Text
    claim: Text
    place: Text
    picture: Text
    minutes: Minutes
    why: str = ""
    known: bool = False
    quantities: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        tables = {}
        for name, table in self.quantities.items():
            if not isinstance(table, dict):
                raise ConfigError(f"[quantities] {name} = {table!r}: expected [quantities.{name}]")
            tables[name] = Quantity.read(table)
        object.__setattr__(self, "quantities", tables)  # the way into a frozen dataclass


def read_claim(folder: Path) -> Claim:
    """Reads FOLDER/claim.toml.

    Raises:
        ValueError: a key that is missing, unknown or of another form; it names file and key.
    """
    path = folder / "claim.toml"
    try:
        return Claim.read(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def verdict(claim: Claim, measured: Mapping[str, Interval]) -> Verdict:
    """Returns the verdict on a claim: that of its quantities if they agree.

    Of several, it holds in part if some hold; it does not hold if none does and one is refuted.

    Raises:
        ValueError: a quantity that was not measured, or one that the claim does not name.
    """
    if set(measured) != set(claim.quantities):
        raise ValueError(f"measured {sorted(measured)}: expected {sorted(claim.quantities)}")
    outcomes = {claim.quantities[name].outcome(value) for name, value in measured.items()}
    if not outcomes:
        return "no verdict"
    if "holds" in outcomes:
        return "holds" if len(outcomes) == 1 else "holds in part"
    return "does not hold" if "does not hold" in outcomes else "inconclusive"


def number(value: float) -> str:
    """Returns a number with three digits, or whole from 1,000 to a million."""
    text = f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("e+", "e")
