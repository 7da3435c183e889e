"""The picture of what recordings say of a cable."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from neuroconv.comparison import estimate
from neuroconv.essay import Interval, Rows
from neuroconv.report.style import COLOURS, INK, MARKERS, annotate, log_ticks, plain


def last(rows: Rows) -> int:
    """Returns the largest number of recordings."""
    return int(max(row["recordings"] for row in rows))


def root_mean_square(values: Any) -> Any:
    return np.sqrt((values**2).mean(0))


def draw(rows: Rows, noise: float) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.9), layout="constrained")
    counts = sorted({row["recordings"] for row in rows})
    names = "length constant", "time constant"
    for k, name in enumerate(names):
        values = {
            key: [root_mean_square(rows.values(key, noise=noise, recordings=n))[k] for n in counts]
            for key in ("rms", "bound")
        }
        samples = [rows.values("samples", recordings=n)[0] for n in counts]
        style = {"color": COLOURS[k], "lw": 1.5}
        left.plot(samples, values["bound"], ls=("-", "--")[k], **style, label=f"bound, {name}")
        left.plot(samples, values["rms"], MARKERS[k], ms=7, **style, label=f"reached, {name}")
    left.axhline(5, color=INK, lw=0.8, ls=":")
    left.set(xscale="log", yscale="log", xlabel="recorded samples", ylabel="error, %")
    log_ticks(left.yaxis)
    left.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    shown = {
        "bias": "cable",
        "sealed_bias": "cable with\nsealed ends",
        "euler_bias": "Euler's\nscheme",
    }
    for k, name in enumerate(names):
        for place, key in enumerate(shown):
            values = rows.values(key, noise=noise, recordings=last(rows))[:, k]
            found = Interval.of(estimate(values))
            right.errorbar(
                place + 0.2 * k - 0.1, found.value, found.high - found.value, fmt=MARKERS[k],
                color=COLOURS[k], ms=7, capsize=3, label=name if place == 0 else None,
            )  # fmt: skip
            offset, side = ((-6, 4), "right") if k == 0 else ((6, 4), "left")
            annotate(
                right, f"{found.value:.1f}", (place + 0.2 * k - 0.1, found.value), offset, ha=side
            )
    right.axhline(0, color=INK, lw=0.8)
    right.set(ylabel="bias of what is learned, %", xlim=(-0.7, 2.7))
    right.set_xticks(range(3), list(shown.values()))
    right.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper left")
    for axes in (left, right):
        plain(axes)
    return figure
