"""Exponents: the best of a grid for a number of images or a cost, slopes, and their picture."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from neuroconv.comparison import estimate
from neuroconv.essay import Interval, Rows
from neuroconv.report.style import COLOURS, INK, MARKERS, STROKES, annotate, log_ticks, plain

NAMES = {"granule_convnet": "granule network", "plain_cnn": "plain CNN"}


def exponent(x: ArrayLike, wrong: NDArray[Any]) -> Interval:
    """Returns a in error ~ x^-a: by least squares, with an interval over seeds and test images.

    The slope is linear in the logarithms of the errors, whose changes with a seed or an image are
    those of the errors over their means: so it is the mean of one value for each seed and image.

    Shape:
        x (K,), wrong (K, S, N)
    """
    logs = np.log(np.asarray(x, float))
    weights = (logs.mean() - logs) / ((logs - logs.mean()) ** 2).sum()
    errors = np.maximum(wrong.mean((1, 2)), 0.5 / wrong[0].size)
    shares = (wrong - errors[:, None, None]) / errors[:, None, None]
    return Interval.of(estimate(np.tensordot(weights, shares, 1) + weights @ np.log(errors)))


def best(rows: Rows, network: str, **limits: Any) -> tuple[NDArray[Any], dict[str, Any]]:
    """Returns the wrong answers (S, N) of the lowest mean validation error, and its condition."""
    keys = "network", "width", "images", "presentations"
    grid = {tuple(row[key] for key in keys): row["flop"] for row in rows}
    candidates = [
        dict(zip(keys, values, strict=True))
        for values, flop in grid.items()
        if values[0] == network
        and values[2] == limits.get("images", values[2])
        and flop <= limits.get("flop", flop)
    ]
    condition = min(candidates, key=lambda c: rows.values("val_error", **c).mean())
    return ~rows.values("right", **condition), condition


def curves(rows: Rows, network: str) -> dict[str, tuple[list[Any], NDArray[Any]]]:
    """Returns the numbers of images, and the costs, with the wrong answers (K, S, N) at each."""
    curves = {}
    for key in ("images", "flop"):
        points = sorted({row[key] for row in rows if row["network"] == network})
        wrong = [best(rows, network, **{key: point})[0] for point in points]
        curves[key] = points, np.stack(wrong)
    return curves


def mean(wrong: NDArray[Any]) -> str:
    return f"{Interval.of(estimate(wrong), 100):.2f}"


def draw(rows: Rows) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(7.4, 3.9), sharey=True, layout="constrained")
    found = {network: curves(rows, network) for network in NAMES}
    labels = {"images": ("training images", -0.5), "flop": ("training FLOPs", -0.25)}
    for axes, (key, (label, slope)) in zip(panels, labels.items(), strict=True):
        for k, (network, by_key) in enumerate(found.items()):
            x, wrong = by_key[key]
            errors = [Interval.of(estimate(w), 100) for w in wrong]
            values = [e.value for e in errors]
            axes.errorbar(
                x, values, [e.high - e.value for e in errors], color=COLOURS[k], ls=STROKES[k],
                marker=MARKERS[k], ms=6, capsize=3, label=NAMES[network],
            )  # fmt: skip
        middle = np.array([x[0], x[-1]], float)
        height = values[0] * 1.4
        axes.plot(middle, height * (middle / middle[0]) ** slope, color=INK, lw=1, ls=":")
        annotate(axes, f"the claim: slope {slope}", (middle[0], height), (14, 2))
        axes.set(xscale="log", yscale="log", xlabel=label)
        plain(axes)
    panels[0].set_ylabel("test error, %")
    log_ticks(panels[0].yaxis)
    panels[0].legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower left")
    return figure
