"""A mean over seeds and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Estimate:
    """A mean and the half width of its 95 % interval, which takes two values or more."""

    mean: float
    half_width: float | None


def mean_interval(values: Sequence[float]) -> Estimate:
    """Returns the mean and its 95 % interval by Student's t; a single value has no interval.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values: expected one or more")
    if len(values) == 1:
        return Estimate(values[0], None)
    from scipy.special import stdtrit  # quantile of t; scipy.stats, which has it too, takes seconds

    quantile = float(stdtrit(len(values) - 1, 0.975))
    return Estimate(fmean(values), quantile * stdev(values) / len(values) ** 0.5)
