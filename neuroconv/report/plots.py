"""Plots of plain data, as matplotlib figures without pyplot's state.

Each is small enough for a telephone. An entry is a colour and a number, its position from 1 on,
which the page's legend and tables have too.
"""

from collections.abc import Mapping, Sequence
from math import log10
from statistics import fmean
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from neuroconv.report.entry import CURRENCIES, Currency, Entry, short
from neuroconv.report.style import COLOURS, INK, MARKERS, STROKES, label_points, plain

SIZE = (3.7, 3.1)  # inches, of one chart; three stand side by side on a wide page


def colour(number: int) -> str:
    """Returns the colour of the entry at this index; with many entries several have the same."""
    return COLOURS[number % len(COLOURS)]


def _marker(number: int) -> str:
    return MARKERS[number // len(COLOURS) % len(MARKERS)]


def learning_curves(entries: Sequence[Entry], key: Literal["error", "loss"] = "error") -> Figure:
    """Draws the validation error or loss (log scale) by epoch: each seed thin, their mean bold.

    A seed that failed is drawn to its last epoch, with a cross there, and is not in the mean.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for number, entry in enumerate(entries):
        style: dict[str, Any] = {"color": colour(number)}
        style["linestyle"] = STROKES[number // len(COLOURS) % len(STROKES)]
        runs = [(run, "") for run in entry.histories]
        for run, marker in runs + [(run, "x") for run in entry.failed_histories]:
            axes.plot(
                [record["epoch"] for record in run], [_validation(record, key) for record in run],
                **style, linewidth=0.6, alpha=0.5, marker=marker, markevery=[-1],
            )  # fmt: skip
        shared = min(map(len, entry.histories), default=0)  # epochs that every seed has
        mean = [fmean(_validation(run[n], key) for run in entry.histories) for n in range(shared)]
        axes.plot(
            range(1, shared + 1), mean, **style, linewidth=2.2, marker="o" if shared == 1 else ""
        )
    axes.set(xlabel="epoch", title="validation " + key + (" (nats)" if key == "loss" else ""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _log_axis(axes, "y", np.concatenate([line.get_ydata() for line in axes.lines] or [[]]).tolist())
    _finish(axes)
    return figure


def _validation(record: Mapping[str, Any], key: Literal["error", "loss"]) -> float:
    return float(1 - record["val_accuracy"] if key == "error" else record["val_loss"])


def tuning(entries: Sequence[Entry]) -> Figure | None:
    """Draws the validation error of each entry's trials against their learning rate (log scales).

    Lines are at the first weight decay, small points at others, the large point is the best trial;
    trials that failed are left out. None without trials.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    best: dict[int, tuple[float, float]] = {}
    for number, entry in enumerate(entries):
        style: dict[str, Any] = {"color": colour(number)}
        trials = [
            (trial["learning_rate"], 1 - trial["val_accuracy"], trial["weight_decay"])
            for trial in entry.trials
            if trial["val_accuracy"] is not None
        ]
        if not trials:
            continue
        lines = [row[:2] for row in sorted(trials) if row[2] == entry.trials[0]["weight_decay"]]
        others = [row[:2] for row in trials if row[:2] not in lines]
        axes.plot(*zip(*lines, strict=True), **style, linewidth=1.2, alpha=0.8)
        axes.plot([x for x, _ in others], [y for _, y in others], ".", **style, markersize=4)
        best[number] = entry.settings["learning_rate"], min(error for _, error, _ in trials)
        axes.plot(*best[number], _marker(number), **style, markersize=7)
    if not best:
        return None
    for side in ("x", "y"):
        drawn = [getattr(line, f"get_{side}data")() for line in axes.lines]
        _log_axis(axes, side, np.concatenate(drawn).tolist())
    axes.set(xlabel="learning rate", title="validation error of a trial")
    _finish(axes)
    label_points(axes, [f"{n + 1}" for n in best], [*best.values()], [*map(colour, best)])
    return figure


def error_against_cost(
    entries: Sequence[Entry],
    currency: Currency = "mac_executed",
    *,
    linear_accuracy: float | None = None,
) -> Figure | None:
    """Draws the test error against a cost, both on log scales, with 95 % intervals over seeds.

    An entry without that cost, or of which no seed finished, is left out; None without any.
    """
    rows = [
        (number, cost, 1 - entry.mean, entry.half_width or 0.0)
        for number, entry in enumerate(entries)
        if (cost := getattr(entry, currency)) and entry.mean is not None
    ]
    if not rows:
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    bars = [] if linear_accuracy is None else [1 - linear_accuracy]
    ends = [error + sign * half for _, _, error, half in rows for sign in (-1, 0, 1)]
    least = min([error for _, _, error, _ in rows if error > 0], default=0.0) / 2.5
    low, high = _log_axis(axes, "y", [*ends, *bars], least)  # longer intervals are cut there
    _log_axis(axes, "x", [cost for _, cost, _, _ in rows])
    axes.set(xlabel=CURRENCIES[currency], title="test error")
    for error in bars:
        axes.axhline(error, color=INK, linewidth=1, linestyle="--", alpha=0.6)
    points, spans = [], []
    for number, cost, error, half in rows:
        mean, bottom, top = np.clip([error, error - half, error + half], low, high).tolist()
        axes.errorbar(
            cost, mean, [[mean - bottom], [top - mean]], color=colour(number), capsize=3,
            fmt=_marker(number), markersize=6, elinewidth=1.4,
        )  # fmt: skip
        points.append((cost, mean))
        spans.append((bottom, top))
    _finish(axes)
    numbers = [row[0] for row in rows]
    label_points(
        axes, [str(number + 1) for number in numbers], points, [*map(colour, numbers)], spans=spans
    )
    return figure


def _finish(axes: Axes) -> None:
    """Gives axes the page's style, errors in per cent, and the title, which names the values."""
    plain(axes)
    if "error" in axes.get_title():
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.3g} %")
    axes.set_title(axes.get_title(), fontsize=9.5, color=INK, loc="left")
    axes.set_title("")


def _log_axis(
    axes: Axes, side: Literal["x", "y"], values: Sequence[float], least: float = 0.0
) -> tuple[float, float]:
    """Sets a log scale from the smallest of the values, and at `least`; returns its ends.

    What is not above zero is left out. Ticks are few enough not to touch.
    """
    positive = [max(value, least) for value in values if value > 0] or [0.5]
    low, high = min(positive) / 1.25, max(positive) * 1.25
    axes.set(**{f"{side}scale": "log", f"{side}lim": (low, high)})
    axis = axes.xaxis if side == "x" else axes.yaxis
    decades = log10(high / low)
    ticks = ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,))  # in a decade
    subs = ticks[sum(decades > most for most in (0.8, 1.7, 2.6))]
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: short(value))
    return low, high
