"""The forecast plot: exponential trends, the machines built, and what a brain would take."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from neuroconv.brain.growth.trends import Trend, hpcg_records, trends
from neuroconv.brain.quantity import scientific
from neuroconv.report.style import COLOURS, INK, STROKES, annotate, plain

FIRST_YEAR, LAST_YEAR = 2010, 2100
ZOOM_YEARS = (2013.0, 2030.5)
_PAPER: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}  # behind names
_NEAR_YEARS = 1.5  # records whose names would touch
_LINE = 9.5  # points between the lines of labels that would touch

# Where along its line each trend's name stands, as a share of the way from its start to the top.
_NAME_AT = (0.62, 0.62, 0.80, 0.62, 0.50, 0.55)


def plot_trends(readings: Mapping[str, float]) -> Figure:
    """Draws when computers reach each of one or more readings, positive FLOP/s by name.

    Above, 2010 to 2100: the essay's lines, the HPCG record and its line with the 95 % interval of
    its growth, the AI clusters' line, and the readings across. Below, the years so far: each
    machine that held the HPCG record beside what the essay's lines predicted.
    """
    if not readings:
        raise ValueError("readings is empty; expected FLOP/s by name")
    for name, value in readings.items():
        if not 0 < value < np.inf:
            raise ValueError(f"readings[{name!r}]={value!r}; expected a positive number of FLOP/s")
    figure = Figure(figsize=(9.5, 10.5), layout="constrained")
    main, zoom = figure.subplots(2, 1, height_ratios=[1.9, 1])
    low, high = min(1e14, *readings.values()) / 3, max(1e22, *readings.values()) * 10
    main.set(xlim=(FIRST_YEAR, LAST_YEAR), ylim=(low, high), yscale="log")
    _decades(main)
    for trend, colour, stroke in zip(trends(), COLOURS, STROKES, strict=False):
        _line(main, trend, colour, stroke)
    _built(main)
    main.set(xlabel="year", ylabel="FLOP/s")
    _zoom(zoom)
    figure.draw_without_rendering()
    _name_readings(main, readings, figure.dpi / 72)
    figure.draw_without_rendering()
    # Names follow the slopes of lines, which another layout would change.
    figure.set_layout_engine("none")
    for trend, share in zip(trends(), _NAME_AT, strict=True):
        _name_line(main, trend, share)
    return figure


def _decades(axes: Axes) -> None:
    """Sets ticks at powers of ten, at every other one where there are many."""
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"1e{np.log10(value):.0f}"))
    plain(axes)


def _line(axes: Axes, trend: Trend, colour: str, stroke: Any) -> None:
    years = np.array([trend.start_year.value, LAST_YEAR])
    axes.plot(
        years, [trend.flop_per_s(year) for year in years],
        color=colour, linestyle=stroke, linewidth=1.8, gid=trend.name, zorder=3,
    )  # fmt: skip
    if trend.low is not None and trend.high is not None:
        fast, slow = (
            [trend.flop_per_s(year, pace.value) for year in years]
            for pace in (trend.low, trend.high)
        )
        axes.fill_between(years, slow, fast, color=colour, alpha=0.13, linewidth=0, zorder=1)


def _record_steps(axes: Axes, **style: Any) -> tuple[list[float], list[float]]:
    """Draws the HPCG record as steps, and returns its years and FLOP/s."""
    years = [record.year.value for record in hpcg_records()]
    results = [record.hpcg.value for record in hpcg_records()]
    axes.step(years, results, where="post", color=INK, linewidth=1.6, marker="o", zorder=4, **style)
    return years, results


def _built(axes: Axes) -> None:
    """Draws what was built, with names above and left of it: the HPCG record, other machines."""
    years, results = _record_steps(axes, markersize=4, gid="HPCG record")
    names: dict[str, tuple[float, float]] = {"HPCG\nrecord": (years[2], results[2])}
    for machine, year, peak in trends()[-1].machines:
        axes.plot(year.value, peak.value, "s", color=INK, markersize=6, zorder=4)
        names[machine] = (year.value, peak.value)
    for name, point in names.items():
        annotate(axes, name, point, (-6, 5), ha="right", va="bottom", zorder=5)


def _name_line(axes: Axes, trend: Trend, share: float) -> None:
    """Writes a trend's name along its line, as steep as it."""
    top = min(LAST_YEAR, trend.year_of(axes.get_ylim()[1]))
    year = trend.start_year.value + share * (top - trend.start_year.value)
    ends = [(end, trend.flop_per_s(end)) for end in (year - 1, year + 1)]
    name = f"{trend.name} (shaded: 95 %)" if trend.low is not None else trend.name
    (x0, y0), (x1, y1) = axes.transData.transform(ends)
    axes.text(
        year, trend.flop_per_s(year), name, color=INK, fontsize=9, fontweight="bold",
        rotation=float(np.degrees(np.arctan2(y1 - y0, x1 - x0))), rotation_mode="anchor",
        ha="center", va="bottom", zorder=2.5, bbox=_PAPER | {"pad": 0},
    )  # fmt: skip


def _name_readings(axes: Axes, readings: Mapping[str, float], pixels: float) -> None:
    """Draws a line across for each reading, named right of the frame; a point is `pixels` wide."""
    rows = sorted(readings.items(), key=lambda item: item[1])
    heights = [float(axes.transData.transform((LAST_YEAR, value))[1]) for _, value in rows]
    arrow = {"arrowstyle": "-", "color": INK, "alpha": 0.4, "linewidth": 0.6}
    shifted = _spread_out(heights, _LINE * pixels)
    for (name, value), height, position in zip(rows, heights, shifted, strict=True):
        axes.axhline(value, color=INK, linewidth=0.8, alpha=0.55, zorder=2)
        annotate(
            axes, f"{name}, {scientific(value, trim=True)}", (1, value),
            (12, (position - height) / pixels), xycoords=("axes fraction", "data"),
            va="center", fontsize=8, annotation_clip=False, arrowprops=arrow,
        )  # fmt: skip


def _spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Returns rising heights, moved as little as keeps each at least a gap above the one before.

    Neighbours that would touch form a block, centred on the mean of where they belong.
    """

    def start(block: list[float]) -> float:
        return float(np.mean(block)) - gap * (len(block) - 1) / 2

    blocks: list[list[float]] = []
    for height in heights:
        block = [height]
        while blocks and start(block) < start(blocks[-1]) + gap * len(blocks[-1]):
            block = blocks.pop() + block
        blocks.append(block)
    return [start(block) + gap * i for block in blocks for i in range(len(block))]


def _zoom(axes: Axes) -> None:
    """Draws the record so far: machines by name, beside the essay's lines."""
    last = ZOOM_YEARS[1]
    axes.set(xlim=ZOOM_YEARS, ylim=(2e14, 2e17), yscale="log", xlabel="year", ylabel="FLOP/s")
    _decades(axes)
    for trend, colour, stroke in zip(trends()[:-2], COLOURS, STROKES, strict=False):
        end = min(last, trend.year_of(2e17))
        span = np.array([trend.start_year.value, end])
        results = [trend.flop_per_s(year) for year in span]
        axes.plot(span, results, color=colour, linestyle=stroke, linewidth=1.8)
        # A line leaves the frame at its side, or at its top.
        offset, ha, va = ((4, 0), "left", "center") if end == last else ((-26, -3), "right", "top")
        annotate(
            axes, trend.name.removeprefix("essay, "), (end, results[-1]), offset, ha=ha, va=va,
            fontsize=9, fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    years, results = _record_steps(axes, markersize=6)
    for number, record in enumerate(hpcg_records()):
        offset, ha, va = _beside(number, years, results)
        text = f"{record.machine}\n{results[number] / 1e15:.3g} PFLOP/s"
        point = (years[number], results[number])
        annotate(axes, text, point, offset, ha=ha, va=va, zorder=6, bbox=_PAPER)
    title = "HPCG record (steps) and the essay's lines from 2015, years a doubling"
    axes.set_title(title, fontsize=10, color=INK, loc="left")


def _beside(
    number: int, years: Sequence[float], results: Sequence[float]
) -> tuple[tuple[int, int], Literal["left", "center", "right"], Literal["bottom", "top"]]:
    """Returns where a record's name is clear of its step and its neighbours: offset and sides."""
    before = years[number] - years[number - 1] if number else np.inf
    after = years[number + 1] - years[number] if number + 1 < len(years) else np.inf
    if number and results[number] > 2 * results[number - 1]:  # the step comes up from below
        return (-8, 12), "right", "bottom"
    if after < _NEAR_YEARS:
        return (4, -8), "right", "top"
    return ((4, -8), "left", "top") if before < _NEAR_YEARS else ((0, -8), "center", "top")
