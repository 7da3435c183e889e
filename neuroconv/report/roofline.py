"""The roofline plot: the performance of models under the peaks of their machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from neuroconv.core.text import drawable
from neuroconv.flops.machine.roofline import OVERHEAD_BELOW, Peak
from neuroconv.report.style import COLOURS, INK, MARKERS, annotate, label_points, plain


@dataclass(frozen=True)
class RooflinePoint:
    """One measured run; raises ValueError for what a logarithmic axis cannot show."""

    name: str
    kind: str  # "cells", "networks", "baselines" ...; each kind has a mark and a colour
    flop_per_byte: float  # arithmetic intensity
    flop_per_s: float

    def __post_init__(self) -> None:
        if not (self.flop_per_byte > 0 and self.flop_per_s > 0):
            raise ValueError(
                f"{self.name}: flop_per_byte={self.flop_per_byte}, flop_per_s={self.flop_per_s}; "
                "expected both above 0"
            )


def plot_roofline(points: Sequence[RooflinePoint], peak: Peak) -> Figure:
    """Draws one run or more under the two roofs of the machine that ran them, on logarithmic axes.

    The slope is the copy's bandwidth, the ceiling the fastest kernel's arithmetic. Below the dashed
    line a run reaches less than a tenth of the roof above it, so neither of the two bounds it.
    """
    if not points:
        raise ValueError("points is empty; expected at least one RooflinePoint")
    figure = Figure(figsize=(8.2, 6), layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    ridge = peak.ridge_flop_per_byte
    left = min(ridge / 30, *(point.flop_per_byte / 3 for point in points))
    right = max(ridge * 30, *(point.flop_per_byte * 4 for point in points))
    reached = [point.flop_per_s for point in points]
    bottom = min(min(reached) / 3, peak.flop_per_s / 1e3)
    axes.set(xlim=(left, right), ylim=(bottom, 4 * max(peak.flop_per_s, *reached)))

    kinds = list(dict.fromkeys(point.kind for point in points))
    style = {kind: (COLOURS[n % 7], MARKERS[n % 7]) for n, kind in enumerate(kinds)}
    for kind, (colour, marker) in style.items():
        members = [point for point in points if point.kind == kind]
        axes.plot(
            [point.flop_per_byte for point in members], [point.flop_per_s for point in members],
            linestyle="None", marker=marker, color=colour, markersize=8, label=drawable(kind),
            markeredgecolor=INK, markeredgewidth=0.6, zorder=3,
        )  # fmt: skip
    corners = np.array([left, ridge, right])
    roof = np.array([peak.attainable(corner) for corner in corners])
    axes.plot(corners, roof, color=INK, linewidth=2)
    axes.plot(corners, OVERHEAD_BELOW * roof, color=INK, linewidth=1, linestyle="--", alpha=0.7)

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
    title = drawable(f"{peak.device}{threads}, {peak.dtype}{arithmetic}")
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.legend(frameon=False, loc="lower right", fontsize=9.5, labelcolor=INK)
    figure.draw_without_rendering()  # fixes the slope's angle on paper, which its text follows
    _name_roof(axes, peak)
    positions = [(point.flop_per_byte, point.flop_per_s) for point in points]
    colours = [style[point.kind][0] for point in points]
    label_points(axes, [point.name for point in points], positions, colours, fontsize=8.5)
    return figure


def _name_roof(axes: Axes, peak: Peak) -> None:
    """Writes along the roof what limits it."""
    (left, right), bottom = axes.get_xlim(), axes.get_ylim()[0]
    ridge = peak.ridge_flop_per_byte
    ceiling = f"{peak.flop_per_s / 1e9:,.3g} GFLOP/s: {peak.kernel}"
    annotate(axes, ceiling, (right, peak.flop_per_s), (-4, 5), ha="right")
    ends = axes.transData.transform([(left, peak.attainable(left)), (ridge, peak.flop_per_s)])
    angle = float(np.degrees(np.arctan2(*(ends[1] - ends[0])[::-1])))
    slope: dict[str, Any] = {"rotation": angle, "rotation_mode": "anchor"}
    middle = (max(left, bottom / peak.byte_per_s) * ridge) ** 0.5  # of the visible slope
    bandwidth = f"{peak.byte_per_s / 1e9:,.3g} GB/s: copy"
    point = (middle, peak.attainable(middle))
    annotate(axes, bandwidth, point, (0, 5), ha="center", va="bottom", **slope)
    start = max(left, bottom / (OVERHEAD_BELOW * peak.byte_per_s))
    overhead = f"{OVERHEAD_BELOW:.0%} of the roof; below it, overhead"
    point = (start, OVERHEAD_BELOW * peak.attainable(start))
    annotate(axes, overhead, point, (0, -4), ha="left", va="top", **slope)
