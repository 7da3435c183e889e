"""The roofline: what models reach, under what their machine can do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from neuroconv.flops.machine.roofline import OVERHEAD_BELOW, Peak
from neuroconv.report.style import COLOURS, INK, MARKERS, label_points, plain


@dataclass(frozen=True)
class RooflinePoint:
    """One measured run.

    Attributes:
        name: as it is written beside its mark.
        kind: "cells", "networks", "baselines" ...; each kind has a mark and a colour.
        flop_per_byte: arithmetic intensity.
        flop_per_s: what the run reached.

    Raises:
        ValueError: numbers that a logarithmic axis cannot show.
    """

    name: str
    kind: str
    flop_per_byte: float
    flop_per_s: float

    def __post_init__(self) -> None:
        if not (self.flop_per_byte > 0 and self.flop_per_s > 0):
            raise ValueError(
                f"{self.name}: flop_per_byte={self.flop_per_byte}, flop_per_s={self.flop_per_s}; "
                "expected both above 0"
            )


def plot_roofline(points: Sequence[RooflinePoint], peak: Peak) -> Figure:
    """Draw runs under the two roofs of the machine that ran them, both axes logarithmic.

    The slope is what the copy allows, the ceiling what the fastest kernel reached. Below the dashed
    line a run reaches less than a tenth of the roof above it: it waits for neither.

    Args:
        points: the runs.
        peak: of their machine.

    Raises:
        ValueError: no points.
    """
    if not points:
        raise ValueError("points is empty; expected at least one RooflinePoint")
    figure = Figure(figsize=(8.2, 6), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    ridge = peak.ridge_flop_per_byte
    left = min(ridge / 30, *(point.flop_per_byte / 3 for point in points))
    right = max(ridge * 30, *(point.flop_per_byte * 4 for point in points))
    lowest = min(point.flop_per_s for point in points)
    bottom = min(lowest / 3, peak.flop_per_s / 1e3)
    top = 4 * max(peak.flop_per_s, *(point.flop_per_s for point in points))
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)

    kinds = list(dict.fromkeys(point.kind for point in points))
    style = {kind: (COLOURS[n % 7], MARKERS[n % 7]) for n, kind in enumerate(kinds)}
    for kind, (colour, marker) in style.items():
        own = [point for point in points if point.kind == kind]
        axes.plot(
            [point.flop_per_byte for point in own], [point.flop_per_s for point in own],
            linestyle="None", marker=marker, color=colour, markersize=8, label=kind,
            markeredgecolor=INK, markeredgewidth=0.6, zorder=3,
        )  # fmt: skip
    _draw_roof(axes, peak, left, right)
    axes.set_xlabel("arithmetic intensity (FLOP per byte that operators move, log scale)")
    axes.set_ylabel("arithmetic reached (log scale)")
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_locator(LogLocator(numticks=12))
    axes.yaxis.set_major_formatter(EngFormatter("FLOP/s"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    plain(axes)
    threads = "" if peak.threads is None else f", threads: {peak.threads}"
    arithmetic = f", {peak.float32_arithmetic}" if peak.float32_arithmetic else ""
    axes.set_title(
        f"{peak.device}{threads}, {peak.dtype}{arithmetic}", fontsize=10, color=INK, loc="left"
    )
    axes.legend(frameon=False, loc="lower right", fontsize=9.5, labelcolor=INK)
    _name_roof(figure, axes, peak, left, right)
    label_points(
        axes,
        [point.name for point in points],
        [(point.flop_per_byte, point.flop_per_s) for point in points],
        [style[point.kind][0] for point in points],
        fontsize=8.5,
    )
    return figure


def _draw_roof(axes: Axes, peak: Peak, left: float, right: float) -> None:
    corners = np.array([left, peak.ridge_flop_per_byte, right])
    heights = np.array([peak.attainable(corner) for corner in corners])
    axes.plot(corners, heights, color=INK, linewidth=2)
    axes.plot(corners, OVERHEAD_BELOW * heights, color=INK, linewidth=1, linestyle="--", alpha=0.7)


def _name_roof(figure: Figure, axes: Axes, peak: Peak, left: float, right: float) -> None:
    """Write what the roof is made of along it."""
    ridge = peak.ridge_flop_per_byte
    gflop_per_s, gb_per_s = peak.flop_per_s / 1e9, peak.byte_per_s / 1e9
    axes.annotate(
        f"{gflop_per_s:,.3g} GFLOP/s: {peak.kernel}", (right, peak.flop_per_s),
        xytext=(-4, 5), textcoords="offset points", ha="right", fontsize=8.5, color=INK,
    )  # fmt: skip
    figure.draw_without_rendering()  # the slope's angle on paper is known from here on
    ends = axes.transData.transform([(left, peak.attainable(left)), (ridge, peak.flop_per_s)])
    angle = float(np.degrees(np.arctan2(*(ends[1] - ends[0])[::-1])))
    low = max(left, axes.get_ylim()[0] / peak.byte_per_s)  # where the slope comes into sight
    middle = float(np.sqrt(low * ridge))
    for share, text in ((1.0, f"{gb_per_s:,.3g} GB/s: copy"), (OVERHEAD_BELOW, _overhead())):
        start = middle if share == 1 else max(left, axes.get_ylim()[0] / (share * peak.byte_per_s))
        axes.annotate(
            text, (start, share * peak.attainable(start)), xytext=(0, 5 if share == 1 else -4),
            textcoords="offset points", rotation=angle, rotation_mode="anchor", color=INK,
            ha="center" if share == 1 else "left", va="bottom" if share == 1 else "top",
            fontsize=8.5,
        )  # fmt: skip


def _overhead() -> str:
    return f"{OVERHEAD_BELOW:.0%} of the roof; below it, overhead"
