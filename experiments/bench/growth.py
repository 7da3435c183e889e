"""How time grows with neurons, batch, time steps, sites and dendrites."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from neurons import words
from recording import Bench, Row, figure, row
from scipy.stats import linregress
from timer import TimedRun
from variants import TASKS
from workloads import AXES, CELLS, QUICK_CELLS, Cell

# The exponent is at most this: linear at a fixed filter, quasilinear in the sheet's own sides.
BARS = {"neurons": 1.05, "batch": 1.05, "time_steps": 1.05, "sites": 1.15, "dendrites": 1.15}


class Exponent(NamedTuple):
    """The growth of time: seconds = seconds_at_one x size ** value."""

    value: float
    standard_error: float
    seconds_at_one: float


def fit_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> Exponent:
    """Fits a power of the size by least squares on logarithms.

    Raises:
        ValueError: fewer than three points, or a number that has no logarithm.
    """
    if len(sizes) < 3 or len(sizes) != len(seconds) or min(*sizes, *seconds) <= 0:
        raise ValueError(
            f"sizes={list(sizes)}, seconds={list(seconds)}; expected three or more of each, all "
            "above 0"
        )
    line = linregress(np.log(sizes), np.log(seconds))
    return Exponent(float(line.slope), float(line.stderr), float(np.exp(line.intercept)))


def growth(bench: Bench) -> Iterator[Row]:
    """Times whole cells, axons to rates, at the points of each axis by turns."""
    for name, cell in bench.pick(CELLS, QUICK_CELLS).items():
        for axis in AXES:
            for task in TASKS:
                yield _axis(bench, name, cell, axis, task)


def _axis(bench: Bench, name: str, cell: Cell, axis: str, task: str) -> Row:
    start, points = cell.axes[axis]
    variants = {
        str(point): cell.build(start._replace(**{axis: point}), task, bench.device)
        for point in points
    }
    times = bench.times(variants, slow=0.7)  # the largest sizes are timed once
    seconds = {
        point: outcome.median
        for point in points
        if isinstance(outcome := times[str(point)], TimedRun)
    }
    series = {"cell": name, "axis": axis, "task": task, "sizes": list(seconds),
              "seconds": list(seconds.values())}  # fmt: skip
    figures, label_of_axis = {}, axis.replace("_", " ")
    if len(seconds) >= 3:
        exponent = fit_exponent(list(seconds), list(seconds.values()))
        series |= {
            "exponent": exponent.value, "exponent_standard_error": exponent.standard_error,
            "seconds_at_one": exponent.seconds_at_one,
        }  # fmt: skip
        text = f"exponent in {label_of_axis} (standard error {exponent.standard_error:.3f})"
        figures = {"time_exponent": figure(text, exponent.value, at_most=BARS[axis])}
    sizes = {**start._asdict(), axis: list(points), "branches": cell.branches, "taps": cell.taps}
    name = f"{name}, growth with {label_of_axis}, {words(task)}"
    return row(name, sizes, times, figures, series=series)


def lines(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the fitted lines of a record's growth section."""
    rows = record["sections"].get("growth", {"rows": []})["rows"]
    return [item["series"] for item in rows if "exponent" in item.get("series", {})]


def plot_growth(fitted: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws seconds against size, both logarithmic: a panel for each cell type and task.

    Sizes are multiples of the smallest, so that all axes of the work start at one. Marks are
    medians; the straight lines are the fits, whose exponents stand in the legend.

    Raises:
        ValueError: no lines.
    """
    if not fitted:
        raise ValueError("no lines of growth to draw; expected at least one")
    panels = list(dict.fromkeys((line["cell"], line["task"]) for line in fitted))
    drawing = Figure(figsize=(12.8, 4.9 * -(-len(panels) // 2)), layout="constrained")
    all_axes = drawing.subplots(-(-len(panels) // 2), 2, squeeze=False).flat
    for (cell, task), axes in zip(panels, all_axes, strict=False):
        axes.set_title(f"{cell}, {words(task)}", fontsize=11, loc="left")
        axes.set_xlabel("size, as a multiple of the smallest (log scale)")
        axes.set_ylabel("milliseconds (log scale)")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        for line, marker in zip(
            [line for line in fitted if (line["cell"], line["task"]) == (cell, task)], "osD^v",
            strict=False,
        ):  # fmt: skip
            sizes = np.array(line["sizes"], float)
            fit = 1e3 * line["seconds_at_one"] * sizes ** line["exponent"]
            label = (
                f"{line['axis'].replace('_', ' ')}  {line['exponent']:.2f} ± "
                f"{line['exponent_standard_error']:.2f}"
            )
            (drawn,) = axes.plot(sizes / sizes[0], fit, label=label)
            milliseconds = 1e3 * np.array(line["seconds"])
            axes.plot(sizes / sizes[0], milliseconds, marker, color=drawn.get_color())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.legend(frameon=False, fontsize=8.5)
        axes.spines[["top", "right"]].set_visible(False)
    return drawing
