"""A tornado plot: the effect of each input alone on an estimate."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatterMathtext, LogLocator, NullFormatter

from neuroconv.brain import Swing
from neuroconv.brain.quantity import scientific
from neuroconv.report.style import COLOURS, INK, annotate, plain

_LOW, _HIGH = COLOURS[0], COLOURS[1]
_HATCH = "////"  # of the high ends, for print in grey


def plot_tornado(
    swings: Sequence[Swing], value: float, *, shares: Mapping[str, float], title: str
) -> Figure:
    """Draws a bar for each input, the widest on top: FLOP/s at its low and at its high end.

    Args:
        swings: as `Estimate.swings` gives them, one or more.
        value: FLOP/s with all inputs at their values, where the bars meet.
        shares: total Sobol index of each input by name, written at the right.
    """
    if not swings:
        raise ValueError("no input has a range: there is nothing to draw; give one LOW..HIGH")
    figure = Figure(figsize=(9.5, 1.6 + 0.62 * len(swings)), layout="constrained")
    axes = figure.add_subplot()
    value = float(value)  # an exact integer may be too large for an array
    ends = [float(flops) for swing in swings for flops in (*swing.flop_per_s, value)]
    right: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 9}
    for row, swing in enumerate(swings):
        _draw(axes, row, swing, value)
        share = shares.get(swing.name)
        text = "-" if share is None else f"{share:.3f}".replace("-0.000", "0.000")
        annotate(axes, text, (1.01, row), **right)
    axes.axvline(value, color=INK, linewidth=1)
    side = "right" if value > (min(ends) * max(ends)) ** 0.5 else "left"
    annotate(
        axes, f"all at their values: {scientific(value)} FLOP/s", (value, 1.01),
        xycoords=("data", "axes fraction"), ha=side, va="bottom", fontsize=9,
    )  # fmt: skip
    above: dict[str, Any] = {"xycoords": "axes fraction", "va": "bottom", "fontsize": 9}
    annotate(axes, "total Sobol\nindex", (1.01, 1.01), **above)
    axes.set_xscale("log")
    axes.set_xlim(min(ends) / 12, max(ends) * 12)  # the ends' labels stand beside the bars
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_major_formatter(LogFormatterMathtext())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("FLOP/s")
    axes.set_ylim(len(swings) - 0.45, -0.55)
    units = ["" if swing.unit == "1" else f"({swing.unit})" for swing in swings]
    labels = [f"{swing.name}\n{unit}".strip() for swing, unit in zip(swings, units, strict=True)]
    axes.set_yticks(range(len(swings)), labels)
    plain(axes)
    axes.set_axisbelow(True)
    axes.grid(visible=False, axis="y")
    low = Patch(facecolor=_LOW, label="low end of the range")
    high = Patch(facecolor=_HIGH, edgecolor="white", hatch=_HATCH, label="high end")
    axes.legend(
        handles=[low, high], loc="upper left", bbox_to_anchor=(0, -0.1 - 0.35 / len(swings)),
        ncols=2, frameon=False, fontsize=9, labelcolor=INK,
    )  # fmt: skip
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _draw(axes: Axes, row: int, swing: Swing, value: float) -> None:
    # The low end's bar and the high end's may lie on the same side; each is drawn from the value.
    bars = sorted(
        zip(map(float, swing.flop_per_s), swing.ends, (_LOW, _HIGH), ("", _HATCH), strict=True),
        key=lambda bar: -abs(bar[0] - value),
    )
    labels: dict[bool, list[float]] = {True: [], False: []}
    for flops, end, colour, hatch in bars:
        left, right = sorted((flops, value))
        axes.barh(
            row, right - left, left=left, height=0.5, facecolor=colour, edgecolor="white",
            hatch=hatch, linewidth=0,
        )  # fmt: skip
        labels[flops >= value].append(end)
    reached = [bars[0][0], bars[1][0], value]
    for above, ends in labels.items():
        text = " to ".join(scientific(end, 3, trim=True) for end in sorted(ends))
        edge, side, offset = (max(reached), "left", 4) if above else (min(reached), "right", -4)
        if ends:
            annotate(axes, text, (edge, row), (offset, 0), ha=side, va="center", fontsize=9)
