"""Means and differences of accuracies: their intervals, p-values and verdicts.

Of S seeds and N test images an array (S, N) says which answers are right, or is the difference of
two such arrays. Seeds and images are both samples, crossed: every seed meets every image.
"""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats, which has them too, is slow to import

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean, the half width of its 95 % interval, and the p-value of a true mean of zero."""

    mean: float | None  # None without a seed
    half_width: float | None  # None for fewer than two
    seeds: int
    p: float | None = None


def estimate(values: ArrayLike) -> Estimate:
    """Returns the mean of values by seed (S,), or by seed and image (S, N), and its interval.

    The variance of the mean is what resampling seeds and images together, each independently, gives
    after infinitely many resamples (Owen 2007, doi:10.1214/07-AOAS122), without its two biases: it
    counts the interaction of seeds and images three times, and divides by n where n - 1 is due. It
    is the sum of three parts, of seeds, of images and of their interaction, by a two-way analysis
    of variance, negative ones as zero. Interval and p-value are Student's, with the degrees of
    freedom of Satterthwaite (1946, doi:10.2307/3002019). Without images it is Student's t over the
    seeds.
    """
    table = np.asarray(values, dtype=np.float64)
    table = table.reshape(len(table), -1) if table.size else np.empty((0, 1))
    seeds, images = table.shape
    if seeds < 2:
        return Estimate(float(table.mean()) if table.size else None, None, seeds)
    mean, by_seed, by_image = table.mean(), table.mean(1), table.mean(0)
    of_seeds, of_images, of_both = by_seed.var(ddof=1) / seeds, 0.0, 0.0
    terms = [(of_seeds, seeds - 1)]
    if images > 1:
        rest = table - by_seed[:, None] - by_image + mean
        freedom = (seeds - 1) * (images - 1)
        of_images = by_image.var(ddof=1) / images
        of_both = (rest**2).sum() / freedom / table.size
        terms += [(of_images, images - 1), (of_both, freedom)]
    variance = max(of_seeds - of_both, 0) + max(of_images - of_both, 0) + of_both
    if variance < 1e-30:  # rounding: all seeds give the same
        return Estimate(float(mean), 0.0, seeds, float(abs(mean) < 1e-12))
    freedom = variance**2 / sum(term**2 / degrees for term, degrees in terms)
    error = variance**0.5
    p = 2 * stdtr(freedom, -abs(mean) / error)
    return Estimate(float(mean), float(stdtrit(freedom, 0.975) * error), seeds, float(p))


def estimate_by_test_set(
    values: Mapping[int, NDArray[np.float64]], test_sets: Mapping[int, Any]
) -> Estimate:
    """Returns the estimate of values by seed, each a number or (N,) by image.

    Where seeds have test sets of their own, such as the speaker that each leaves out, images are
    not crossed with seeds: the mean over each test set is one value, and the interval over them.
    """
    seeds_of: dict[Any, list[int]] = {}
    for seed in values:
        seeds_of.setdefault(test_sets.get(seed), []).append(seed)
    if len(seeds_of) < 2:
        return estimate(np.array([*values.values()]))
    means = [[values[seed].mean() for seed in group] for group in seeds_of.values()]
    return estimate(np.array([*map(np.mean, means)]))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns p-values corrected for their number (Holm 1979, Scand. J. Stat. 6, 65-70).

    None, of a comparison without a p-value, stays None and does not count.
    """
    values = np.array([p for p in p_values if p is not None])
    order = np.argsort(values)
    factors = len(order) - np.arange(len(order))
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    rest = iter(corrected)
    return [None if p is None else float(next(rest)) for p in p_values]


def verdict(difference: Estimate, margin: float | None, p: float | None = None) -> str:
    """Returns "better", "worse", "equal" or "inconclusive" for a difference of accuracies.

    "equal" is one whose 95 % interval lies within the margin on either side; if it excludes zero
    all the same, that is said: "equal (slightly better)". "better" and "worse" need a p-value below
    0.05: the difference's own or, of several comparisons, one corrected for their number.
    """
    mean, half_width, p = difference.mean, difference.half_width, difference.p if p is None else p
    if mean is None or half_width is None or p is None:
        return "inconclusive"
    side = "" if p >= SIGNIFICANT else "better" if mean > 0 else "worse"
    if margin is not None and abs(mean) + half_width <= margin:
        return f"equal (slightly {side})" if side else "equal"
    return side or "inconclusive"


def pack(right: NDArray[np.bool_]) -> str:
    """Returns flags (N,) as text: their bits, compressed, in base64."""
    return b64encode(zlib.compress(np.packbits(right).tobytes(), 9)).decode()


def unpack(text: str, images: int) -> NDArray[np.bool_]:
    """Returns the flags (N,) that `pack` has written."""
    bits = np.frombuffer(zlib.decompress(b64decode(text)), np.uint8)
    return np.unpackbits(bits, count=images).astype(bool)
