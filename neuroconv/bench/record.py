"""What a section of the bench is given, and the rows that it returns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from neuroconv.bench.turns import SLOW_S, Failure, Job, Outcome, Ratio, time_in_turns

_T = TypeVar("_T")


@dataclass(frozen=True)
class Bench:
    """Where, how large and how long to measure.

    Attributes:
        device: "cpu" or "cuda".
        quick: small shapes and few repeats, to see that everything runs: no bar is judged.
        seconds: that a comparison is measured for, roughly; what takes longer is timed once.
        data: folder of MNIST for whole training runs; None trains on synthetic frames.
    """

    device: torch.device
    quick: bool = False
    seconds: float = 1.0
    data: Path | None = None

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def pick(self, full: _T, quick: _T) -> _T:
        """The size for a full run, or the small one."""
        return quick if self.quick else full

    def on_cpu(self, bar: float) -> float | None:
        """A bar that is set for the CPU alone."""
        return None if self.on_cuda else bar

    def for_cuda(self, bar: float) -> float | None:
        """A bar that is set for CUDA alone."""
        return bar if self.on_cuda else None

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device)

    def turns(
        self,
        jobs: Mapping[str, Job],
        *,
        share: float = 1.0,
        slow: float = SLOW_S,
        hopeless: float | None = None,
    ) -> dict[str, Outcome]:
        """`time_in_turns` for this share of the time of one comparison."""
        seconds = self.seconds * share * self.pick(1.0, 0.02)
        return time_in_turns(jobs, self.device, seconds=seconds, slow=slow, hopeless=hopeless)


@dataclass(frozen=True)
class Figure:
    """A number that a comparison is about, with the bar that it is held to, if there is one.

    Attributes:
        name: its key in the JSON file, the unit in it.
        text: in words, for the table.
        value, lower, upper: median and quartiles; None where nothing was measured, or there is no
            spread.
        at_least, at_most: the bar.
    """

    name: str
    text: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @classmethod
    def of(
        cls,
        name: str,
        text: str,
        found: Ratio | None,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> "Figure":
        """A ratio of two variants' times."""
        if found is None:
            return cls(name, text, None, at_least=at_least, at_most=at_most)
        return cls(name, text, found.value, found.lower, found.upper, at_least, at_most)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without a bar or a number."""
        if self.value is None or (self.at_least is None and self.at_most is None):
            return None
        low = -math.inf if self.at_least is None else self.at_least
        return low <= self.value <= (math.inf if self.at_most is None else self.at_most)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is not there is left out, but for the value itself."""
        spread = {"lower_quartile": self.lower, "upper_quartile": self.upper}
        bar = {"at_least": self.at_least, "at_most": self.at_most, "met": self.met}
        given = {key: number for key, number in {**spread, **bar}.items() if number is not None}
        return {"value": self.value, **given}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        comparison: what is compared, in words.
        sizes: of the work, by name, with units where there are any.
        times: by variant.
        figures: what follows.
        notes: what the numbers hold under.
        series: further plain data, such as the points of a line.
    """

    comparison: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, Outcome] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    series: Mapping[str, Any] = field(default_factory=dict)

    def unjudged(self) -> "Row":
        """The same without bars."""
        plain = [replace(each, at_least=None, at_most=None) for each in self.figures]
        return replace(self, figures=plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, units in the keys."""
        return {
            "comparison": self.comparison,
            "sizes": dict(self.sizes),
            "times": {name: outcome.to_dict() for name, outcome in self.times.items()},
            "figures": {figure.name: figure.to_dict() for figure in self.figures},
            "notes": list(self.notes),
            **({"series": dict(self.series)} if self.series else {}),
        }


def fastest(times: Mapping[str, Outcome], names: Sequence[str]) -> str | None:
    """Of these variants the one of the smallest median; None if none was measured."""
    medians = {
        name: outcome.timing.seconds
        for name in names
        if not isinstance(outcome := times[name], Failure)
    }
    return min(medians, key=lambda name: medians[name], default=None)
