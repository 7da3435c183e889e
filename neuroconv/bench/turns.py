"""Variants of one job timed in turns, and how many times as long one takes as another.

Each repeat times every variant once, so that a machine that slows down slows all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from neuroconv.flops.machine.timing import Timing, run_block

_MAX_ROUNDS = 20
_MAX_BLOCK = 500  # calls in one repeat
SLOW_S = 2.0  # a call that takes longer is timed once
_COLD = 4  # what a first call may take of that, and still be run again: it may have been cold
_COLD_S = 0.2  # nor does so short a first call say that a variant is hopeless


@dataclass(frozen=True)
class Job:
    """One variant.

    Attributes:
        call: does the work, and returns all of it: it is kept until its time is taken.
        weights: have their sign changed in place before each call, outside of the timed interval,
            so that nothing kept from an earlier call can help.
    """

    call: Callable[[], object]
    weights: Sequence[Tensor] = ()

    def change(self) -> None:
        with torch.no_grad():
            for weight in self.weights:
                weight.neg_()


@dataclass(frozen=True)
class Turns:
    """Times of one variant.

    Attributes:
        seconds: of one call, by round; a round is the mean of a block of calls.
        calls_per_round: length of such a block.
    """

    seconds: tuple[float, ...]
    calls_per_round: int

    @property
    def timing(self) -> Timing:
        low, middle, high = quartiles(self.seconds)
        return Timing(middle, low, high, len(self.seconds), self.calls_per_round)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, units in the keys."""
        return self.timing.to_dict()


@dataclass(frozen=True)
class Failure:
    """A variant that raised an error or was not run, and why."""

    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {"not_measured": self.reason}


Outcome = Turns | Failure


@dataclass(frozen=True)
class Ratio:
    """How many times as long one variant takes: the median, and the quartiles."""

    value: float
    lower: float
    upper: float


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; of one value, itself."""
    if len(values) == 1:
        return (values[0],) * 3
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return lower, median(values), upper


def ratio(long: Outcome, short: Outcome) -> Ratio | None:
    """`long` over `short`, by round where both took part in all; None if one was not measured.

    If they have different numbers of rounds, it is the ratio of the medians, and its quartiles the
    furthest that theirs allow.
    """
    if isinstance(long, Failure) or isinstance(short, Failure):
        return None
    if len(long.seconds) == len(short.seconds):
        rounds = [a / b for a, b in zip(long.seconds, short.seconds, strict=True)]
        low, middle, high = quartiles(rounds)
        return Ratio(middle, low, high)
    a, b = long.timing, short.timing
    return Ratio(
        a.seconds / b.seconds,
        a.lower_seconds / b.upper_seconds,
        a.upper_seconds / b.lower_seconds,
    )


def time_in_turns(
    jobs: Mapping[str, Job],
    device: torch.device,
    *,
    seconds: float = 1.0,
    slow: float = SLOW_S,
    hopeless: float | None = None,
) -> dict[str, Outcome]:
    """Times variants of one job in turns, after two calls each to warm up.

    A variant that raises is recorded with its message, and the others go on.

    Args:
        jobs: the variants by name.
        device: where they run; on CUDA they are timed by events, on the CPU by the clock.
        seconds: roughly how long to measure all of them; there are 3 to 20 rounds.
        slow: a call of more seconds than this is timed once; of more than four times this, it is
            its own warm-up.
        hopeless: a variant this many times slower than the fastest is not timed again either. So
            the one that is likely to be the fastest should come first.
    """
    outcomes: dict[str, Outcome] = {}
    once: dict[str, float] = {}
    for name, job in jobs.items():
        try:
            first = _block(job, 1, device)  # also chooses and loads kernels
            enough = _COLD * slow
            if hopeless is not None:
                hope = hopeless * min(once.values(), default=enough)
                enough = min(enough, max(_COLD_S, hope))
            once[name] = first if first > enough else min(first, _block(job, 1, device))
        except (RuntimeError, ValueError) as error:
            outcomes[name] = Failure(first_line(error))
            release(device)
    fastest = min(once.values(), default=0.0)
    again = {
        name: time
        for name, time in once.items()
        if time <= slow and (hopeless is None or time <= hopeless * fastest)
    }
    share = seconds / max(1, len(again))
    blocks = {
        name: max(1, min(_MAX_BLOCK, int(share / _MAX_ROUNDS / max(time, 1e-9))))
        for name, time in again.items()
    }
    one_round = sum(blocks[name] * time for name, time in again.items())
    rounds = max(3, min(_MAX_ROUNDS, int(seconds / max(one_round, 1e-9))))
    taken: dict[str, list[float]] = {name: [] for name in again}
    for _ in range(rounds):
        for name, times in taken.items():
            times.append(_block(jobs[name], blocks[name], device))
    for name, time in once.items():
        series = tuple(taken.get(name, ())) or (time,)
        outcomes[name] = Turns(series, blocks.get(name, 1))
    return {name: outcomes[name] for name in jobs}


def release(device: torch.device) -> None:
    """Gives cached memory back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def first_line(error: Exception) -> str:
    """An error's class and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _block(job: Job, calls: int, device: torch.device) -> float:
    return run_block(job.call, calls, device, job.change)
