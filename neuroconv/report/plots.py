"""Plots of plain data, as matplotlib figures without pyplot's state."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from neuroconv.report.entry import Entry
from neuroconv.report.style import COLOURS, INK, label_points, log_ticks, plain

ACCURACY_TICKS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


def plot_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw loss and accuracy against the epoch, validation solid and training dashed.

    Records of neurons also show how many of each population fire.

    Args:
        histories: by label, one record per epoch with the keys epoch, train_loss, val_loss,
            train_accuracy and val_accuracy (accuracies in [0, 1]), and perhaps activity, with an
            active_share by population.
        path: the picture; its ending chooses the format.
    """
    active = _active_shares(histories)
    panels = 3 if active else 2
    figure = Figure(figsize=(5 * panels, 4), layout="constrained")
    axes_row = figure.subplots(1, panels)
    for axes, quantity in zip(axes_row, ("loss", "accuracy"), strict=False):
        for number, (label, history) in enumerate(histories.items()):
            epochs = [record["epoch"] for record in history]
            for part, style in (("val", "o-"), ("train", ".--")):
                axes.plot(
                    epochs,
                    [record[f"{part}_{quantity}"] for record in history],
                    style,
                    color=f"C{number % 10}",
                    markersize=4,
                    label=f"{label}, {'validation' if part == 'val' else 'training'}",
                )
        axes.set_xlabel("epoch")
        axes.set_ylabel("cross entropy (nats)" if quantity == "loss" else quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.legend(fontsize="small")
    if active:
        for number, (label, (epochs, shares)) in enumerate(active.items()):
            axes_row[2].plot(
                epochs, shares, "o-", color=f"C{number % 10}", markersize=4, label=label
            )
        axes_row[2].set(xlabel="epoch", ylabel="neurons that fire (validation)", ylim=(0, 1))
        axes_row[2].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes_row[2].yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes_row[2].grid(alpha=0.3)
        axes_row[2].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _active_shares(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, tuple[list[int], list[float]]]:
    """By label and population, the epochs and the share of neurons that fired in each."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for label, history in histories.items():
        for record in history:
            for population, part in record.get("activity", {}).items():
                if "active_share" in part:
                    name = f"{label}, {population}" if len(histories) > 1 else population
                    epochs, shares = curves.setdefault(name, ([], []))
                    epochs.append(record["epoch"])
                    shares.append(part["active_share"])
    return curves


def learning_curves(entries: Sequence[Entry]) -> Figure:
    """Validation loss and accuracy against the epoch: each seed thin, the mean over seeds bold."""
    figure = Figure(figsize=(8.2, 3.5), layout=ConstrainedLayoutEngine(wspace=0.05))
    for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for number, entry in enumerate(entries):
            colour = COLOURS[number % len(COLOURS)]
            curves = [[record[f"val_{quantity}"] for record in run] for run in entry.histories]
            for run, curve in zip(entry.histories, curves, strict=True):
                epochs = [record["epoch"] for record in run]
                axes.plot(epochs, curve, color=colour, linewidth=0.6, alpha=0.5)
            shared = min(map(len, curves))  # epochs that every seed has
            mean = np.mean([curve[:shared] for curve in curves], axis=0)
            axes.plot(
                epochs[:shared], mean, color=colour, linewidth=2.2, label=entry.label,
                marker="o" if shared == 1 else "",
            )  # fmt: skip
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    left, right = figure.axes
    left.set_ylabel("validation accuracy")
    runs = [run for entry in entries for run in entry.histories]
    _accuracy_axis(left, [record["val_accuracy"] for run in runs for record in run])
    right.set_ylabel("validation loss (nats, log scale)")
    right.set_yscale("log")
    log_ticks(right.yaxis)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", frameon=False,
        ncols=min(4, len(entries)), fontsize=9.5, labelcolor=INK,
    )  # fmt: skip
    return figure


def accuracy_against_flops(
    entries: Sequence[Entry], *, linear_accuracy: float | None, chance: float
) -> Figure:
    """Test accuracy against MFLOP per image, with 95 % intervals over seeds.

    Both axes are stretched: cost is logarithmic, and accuracy is drawn on the logit scale, which
    gives 98 to 99 % the room that 50 to 67 % has.
    """
    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    costs = [entry.mflop_per_image for entry in entries]
    axes.set_xlim(min(costs) / 3, max(costs) * 6)
    spans = [(e.mean - (e.half_width or 0), e.mean + (e.half_width or 0)) for e in entries]
    lines = {"chance": chance}
    if linear_accuracy is not None:
        lines["linear classifier"] = linear_accuracy
    low, high = _accuracy_axis(axes, [*lines.values(), *(v for span in spans for v in span)])
    for number, (entry, span) in enumerate(zip(entries, spans, strict=True)):
        mean, bottom, top = np.clip([entry.mean, *span], low, high)
        axes.errorbar(
            entry.mflop_per_image, mean, [[mean - bottom], [top - mean]], fmt="o", capsize=4,
            color=COLOURS[number % len(COLOURS)], markersize=7, elinewidth=1.6,
        )  # fmt: skip
    for name, accuracy in lines.items():
        axes.axhline(accuracy, color=INK, linewidth=1, linestyle="--", alpha=0.6)
        axes.annotate(
            f"{name}\n{accuracy * 100:.2f} %", (1, accuracy), xycoords=("axes fraction", "data"),
            xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK,
        )  # fmt: skip
    axes.set_xlabel("MFLOP per image (log scale)")
    axes.set_ylabel("test accuracy (logit scale)")
    log_ticks(axes.xaxis)
    plain(axes)
    label_points(
        axes,
        [entry.label for entry in entries],
        [(entry.mflop_per_image, float(np.clip(entry.mean, low, high))) for entry in entries],
        [COLOURS[number % len(COLOURS)] for number in range(len(entries))],
        spans=np.clip(spans, low, high).tolist(),
    )
    return figure


def _accuracy_axis(axes: Axes, accuracies: Sequence[float]) -> tuple[float, float]:
    """A logit scale that holds the accuracies; those beyond 0.9995 are drawn there."""
    low = max(0.02, min(accuracies) * 0.75)
    high = min(0.9995, 1 - (1 - min(max(accuracies), 1.0)) * 0.6)
    axes.set_yscale("logit", nonpositive="clip")
    axes.set_ylim(low, max(high, low + 0.01))
    axes.yaxis.set_major_locator(FixedLocator(ACCURACY_TICKS))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:g} %")
    axes.yaxis.set_minor_locator(NullLocator())
    return axes.get_ylim()
