"""How time grows: a line for each axis of the work, with its fitted exponent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from neuroconv.report.style import COLOURS, INK, MARKERS, label_points, plain

_TASKS = {"forward": "forward", "forward_backward": "forward and backward"}


def plot_growth(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw seconds against size, both logarithmic: a panel for each cell type and task.

    Sizes are multiples of the smallest, so that all axes of the work start at one. Marks are
    medians; the straight lines are the fits, whose exponents stand beside them.

    Args:
        lines: each with cell, axis, task, sizes, seconds, exponent and exponent_standard_error,
            and seconds_at_one, the fit at size 1.

    Raises:
        ValueError: no lines.
    """
    if not lines:
        raise ValueError("lines is empty; expected at least one")
    cells = list(dict.fromkeys(line["cell"] for line in lines))
    tasks = list(dict.fromkeys(line["task"] for line in lines))
    axes_names = list(dict.fromkeys(line["axis"] for line in lines))
    style = {axis: (COLOURS[n % 7], MARKERS[n % 7]) for n, axis in enumerate(axes_names)}
    figure = Figure(figsize=(6.4 * len(tasks), 4.9 * len(cells)), layout="constrained")
    panels = figure.subplots(len(cells), len(tasks), squeeze=False)
    for row, cell in enumerate(cells):
        for column, task in enumerate(tasks):
            own = [line for line in lines if line["cell"] == cell and line["task"] == task]
            _panel(panels[row, column], own, style)
            title = f"{cell}, {_TASKS.get(task, task)}"
            panels[row, column].set_title(title, fontsize=11, color=INK, loc="left")
    for panel in panels[-1]:
        panel.set_xlabel("size, as a multiple of the smallest (log scale)")
    for panel in panels[:, 0]:
        panel.set_ylabel("milliseconds (log scale)")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for row, cell in enumerate(cells):
        for column, task in enumerate(tasks):
            own = [line for line in lines if line["cell"] == cell and line["task"] == task]
            _name(panels[row, column], own, style)
    return figure


def _panel(
    axes: Axes, lines: Sequence[Mapping[str, Any]], style: Mapping[str, tuple[str, str]]
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    widest = 1.0
    for line in lines:
        sizes, seconds = np.array(line["sizes"], float), np.array(line["seconds"])
        colour, marker = style[line["axis"]]
        multiple = sizes / sizes[0]
        widest = max(widest, float(multiple[-1]))
        axes.plot(
            multiple, 1e3 * seconds, linestyle="None", marker=marker, color=colour, markersize=6,
            markeredgecolor=INK, markeredgewidth=0.5, zorder=3,
        )  # fmt: skip
        axes.plot(multiple, _fit(line), color=colour, linewidth=1.5)
    axes.set_xlim(0.85, widest * 5.5)  # room for the names
    ticks = [2.0**power for power in range(int(np.log2(widest)) + 1)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    plain(axes)


def _fit(line: Mapping[str, Any]) -> Any:
    """The fitted milliseconds at the line's sizes."""
    return 1e3 * line["seconds_at_one"] * np.array(line["sizes"], float) ** line["exponent"]


def _name(
    axes: Axes, lines: Sequence[Mapping[str, Any]], style: Mapping[str, tuple[str, str]]
) -> None:
    """Each line's axis and exponent at its end, the highest first."""
    ordered = sorted(lines, key=lambda line: -float(_fit(line)[-1]))
    ends = [(line["sizes"][-1] / line["sizes"][0], float(_fit(line)[-1])) for line in ordered]
    label_points(
        axes,
        [
            f"{line['axis'].replace('_', ' ')}  {line['exponent']:.2f} ± "
            f"{line['exponent_standard_error']:.2f}"
            for line in ordered
        ],
        ends,
        [style[line["axis"]][0] for line in ordered],
        fontsize=8.5,
    )
