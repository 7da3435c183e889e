"""Plots of plain data, as matplotlib figures without pyplot's state."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from neuroconv.core.text import drawable
from neuroconv.report.entry import Entry, scored
from neuroconv.report.style import COLOURS, INK, annotate, label_points, log_ticks, plain

ACCURACY_TICKS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


def learning_curves(entries: Sequence[Entry]) -> Figure:
    """Draws validation accuracy and loss against the epoch: each seed thin, their mean bold.

    A seed that failed is drawn to its last epoch, with a cross there, and is not in the mean.
    """
    figure = Figure(figsize=(8.2, 3.5), layout=ConstrainedLayoutEngine(wspace=0.05))
    left, right = figure.subplots(1, 2)
    for axes, key in ((left, "val_accuracy"), (right, "val_loss")):
        for number, entry in enumerate(entries):
            colour = COLOURS[number % len(COLOURS)]
            for run, marker in _curves(entry):
                axes.plot(
                    [record["epoch"] for record in run], [record[key] for record in run],
                    color=colour, linewidth=0.6, alpha=0.5, marker=marker, markevery=[-1],
                )  # fmt: skip
            shared = min(map(len, entry.histories), default=0)  # epochs that every seed has
            mean = [fmean(run[n][key] for run in entry.histories) for n in range(shared)]
            axes.plot(
                range(1, shared + 1), mean, color=colour, linewidth=2.2,
                label=drawable(entry.title),
                marker="o" if shared == 1 else "",
            )  # fmt: skip
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    left.set_ylabel("validation accuracy")
    runs = [run for entry in entries for run, _ in _curves(entry)]
    _accuracy_axis(left, [record["val_accuracy"] for run in runs for record in run] or [0.5])
    right.set_ylabel("validation loss (nats, log scale)")
    right.set_yscale("log")
    log_ticks(right.yaxis)
    longest = max(len(entry.title) for entry in entries)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", frameon=False,
        ncols=min(4, len(entries), 1 + 60 // (longest + 1)), fontsize=9.5, labelcolor=INK,
    )  # fmt: skip
    return figure


def _curves(entry: Entry) -> list[tuple[Sequence[Mapping[str, Any]], str]]:
    """Returns the seeds' epochs, and the marker of the last of them."""
    return [(run, "") for run in entry.histories] + [(run, "x") for run in entry.failed_histories]


def accuracy_against_flops(
    entries: Sequence[Entry], *, linear_accuracy: float | None, chance: float
) -> Figure:
    """Draws test accuracy (logit scale) against MFLOP per image, with 95 % intervals over seeds.

    A model of which no seed finished is left out.
    """
    rows = scored(entries)
    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    costs = [entry.mflop_per_image for entry in entries]
    axes.set_xlim(min(costs) / 3, max(costs) * 6)
    intervals = [(mean - (e.half_width or 0), mean + (e.half_width or 0)) for mean, e in rows]
    lines = {"chance": chance}
    if linear_accuracy is not None:
        lines["linear classifier"] = linear_accuracy
    low, high = _accuracy_axis(axes, [*lines.values(), *sum(intervals, ())])
    points = [(e.mflop_per_image, min(max(mean, low), high)) for mean, e in rows]
    colours = [COLOURS[n % len(COLOURS)] for n, e in enumerate(entries) if e.mean is not None]
    spans = np.clip(intervals, low, high).tolist()
    for (cost, mean), (bottom, top), colour in zip(points, spans, colours, strict=True):
        axes.errorbar(
            cost, mean, [[mean - bottom], [top - mean]], fmt="o", capsize=4, color=colour,
            markersize=7, elinewidth=1.6,
        )  # fmt: skip
    for name, accuracy in lines.items():
        axes.axhline(accuracy, color=INK, linewidth=1, linestyle="--", alpha=0.6)
        right = {"xycoords": ("axes fraction", "data"), "va": "center"}
        annotate(axes, f"{name}\n{accuracy * 100:.2f} %", (1, accuracy), (5, 0), **right)
    axes.set_xlabel("MFLOP per image (log scale)")
    axes.set_ylabel("test accuracy (logit scale)")
    log_ticks(axes.xaxis)
    plain(axes)
    label_points(axes, [entry.title for _, entry in rows], points, colours, spans=spans)
    return figure


def _accuracy_axis(axes: Axes, accuracies: Sequence[float]) -> tuple[float, float]:
    """Sets a logit scale around the accuracies and returns its ends; it ends at 0.9995."""
    low = max(0.02, min(accuracies) * 0.75)
    high = min(0.9995, 1 - (1 - min(max(accuracies), 1.0)) * 0.6)
    axes.set_yscale("logit", nonpositive="clip")
    axes.set_ylim(low, max(high, low + 0.01))
    axes.yaxis.set_major_locator(FixedLocator(ACCURACY_TICKS))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:g} %")
    axes.yaxis.set_minor_locator(NullLocator())
    return axes.get_ylim()
