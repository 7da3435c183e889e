"""Times variants of one task side by side, and writes what was measured.

One repeat times every variant in the same order (A B A B), so that a machine that slows down slows
all of them. Each variant is warmed up right before each of its repeats: what ran in between, often
for seconds and on other tensors, has emptied the caches and reshaped the allocator's pools.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Protocol

MAX_REPEATS = 20
MIN_REPEATS = 3
MAX_CALLS = 500  # in one repeat
SLOW_S = 2.0  # a call that takes longer is timed once
_COLD = 4  # times SLOW_S: a first call up to here may have been cold, and is run again
_COLD_S = 0.2  # a first call up to here is run again even beside a much faster variant


class Timed(Protocol):
    """Something that can be called and timed."""

    def block(self, calls: int) -> float:
        """Returns the mean seconds of one call over a block of calls."""


@dataclass(frozen=True)
class TimedRun:
    """Times of one variant.

    Attributes:
        seconds: of one call, by repeat; a repeat is the mean over a block of calls.
        calls_per_repeat: length of such a block.
    """

    seconds: tuple[float, ...]
    calls_per_repeat: int = 1

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles as a share of the median."""
        low, middle, high = quartiles(self.seconds)
        return (high - low) / middle

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, units in the keys."""
        low, middle, high = quartiles(self.seconds)
        return {
            "seconds": middle,
            "lower_seconds": low,
            "upper_seconds": high,
            "least_seconds": min(self.seconds),
            "repeats": len(self.seconds),
            "calls_per_repeat": self.calls_per_repeat,
            "quartile_distance_share": self.spread,
        }


@dataclass(frozen=True)
class Failure:
    """A variant that raised an error or was not run, with the reason."""

    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {"not_measured": self.reason}


Outcome = TimedRun | Failure


@dataclass(frozen=True)
class Ratio:
    """How many times as long one variant takes as another: median and quartiles."""

    value: float
    lower: float
    upper: float


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns lower quartile, median and upper quartile; for a single value, that value."""
    if len(values) == 1:
        return (values[0],) * 3
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return lower, median(values), upper


def ratio(long: Outcome, short: Outcome) -> Ratio | None:
    """Returns `long` over `short`, repeat by repeat; None if one of them was not measured.

    Variants with different numbers of repeats are compared by their medians, with the widest
    quartiles that theirs allow.
    """
    if isinstance(long, Failure) or isinstance(short, Failure):
        return None
    if len(long.seconds) == len(short.seconds):
        low, middle, high = quartiles(
            [a / b for a, b in zip(long.seconds, short.seconds, strict=True)]
        )
        return Ratio(middle, low, high)
    (low_a, a, high_a), (low_b, b, high_b) = quartiles(long.seconds), quartiles(short.seconds)
    return Ratio(a / b, low_a / high_b, high_a / low_b)


def interleaved(
    variants: Mapping[str, Timed],
    *,
    seconds: float = 1.0,
    slow: float = SLOW_S,
    hopeless: float | None = None,
    min_repeats: int = MIN_REPEATS,
) -> dict[str, Outcome]:
    """Times variants of one task by turns, each warmed up before each repeat.

    A variant that raises is recorded with its message, and the others go on.

    Args:
        variants: by name, in the order of the turns.
        seconds: roughly how long to measure all of them, in `min_repeats` to 20 repeats.
        slow: a call longer than this many seconds is timed once; one longer than four times this
            is its own warm-up.
        hopeless: a variant this many times slower than the fastest is not timed again either, so
            the one that is likely to be the fastest should come first.
    """
    outcomes: dict[str, Outcome] = {}
    estimates: dict[str, float] = {}
    for name, variant in variants.items():
        try:
            first = variant.block(1)  # also chooses and loads kernels
            enough = _COLD * slow
            if hopeless is not None:
                fastest = min(estimates.values(), default=enough)
                enough = min(enough, max(_COLD_S, hopeless * fastest))
            estimates[name] = first if first > enough else min(first, variant.block(1))
        except (RuntimeError, ValueError) as error:
            outcomes[name] = Failure(first_line(error))
    fastest = min(estimates.values(), default=0.0)
    repeated = {
        name: estimate
        for name, estimate in estimates.items()
        if estimate <= slow and (hopeless is None or estimate <= hopeless * fastest)
    }
    share = seconds / max(1, len(repeated)) / MAX_REPEATS
    calls = {
        name: max(1, min(MAX_CALLS, int(share / max(estimate, 1e-9))))
        for name, estimate in repeated.items()
    }
    one_repeat = sum((calls[name] + _warm_up(calls[name])) * repeated[name] for name in repeated)
    repeats = max(min_repeats, min(MAX_REPEATS, int(seconds / max(one_repeat, 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in repeated}
    for _ in range(repeats):
        for name, series in times.items():
            variants[name].block(_warm_up(calls[name]))
            series.append(variants[name].block(calls[name]))
    for name, estimate in estimates.items():
        series = times.get(name, [estimate])
        outcomes[name] = TimedRun(tuple(series), calls.get(name, 1))
    return {name: outcomes[name] for name in variants}


def _warm_up(calls: int) -> int:
    """Returns the number of calls that are not timed before a block of timed ones."""
    return 1 + calls // 10


def first_line(error: Exception) -> str:
    """Returns an error's class and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def write_json(path: Path, plain: Mapping[str, Any]) -> None:
    """Replaces the file in one step, so that a reader always finds it whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
