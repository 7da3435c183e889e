"""FLOP/s of a brain by every reading: the essay's total, its interval, what it rests on.

The thresholds are the essay's own; the numbers are those of `neuroconv brain`, which were known
before this rule was written.
"""

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from neuroconv.brain import READINGS, estimate_brain
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.report.style import COLOURS, INK, annotate, plain

PRINTED = 1.075e21  # the essay, "estimating the cerebellum's input and output dimensions"


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]
    samples: int


SIZES = {
    "full": Size((0, 1, 2, 3, 4), 4096),
    "quick": Size((0, 1, 2), 1024),
    "test": Size((0, 1), 4),
}


def conditions(size: Size) -> list[dict[str, Any]]:
    return [{"reading": name} for name in READINGS]


def measure(size: Size, *, seed: int, folder: Any, reading: str) -> dict[str, Any]:
    estimate = estimate_brain(reading=reading, samples=size.samples, seed=seed)
    low, median, high = estimate.quantiles()
    above = float((estimate.samples >= 1e21).mean())
    return {"value": float(estimate.value or 0), "low": low, "median": median, "high": high,
            "share_above_1e21": above}  # fmt: skip


def quantities(rows: Rows) -> dict[str, Interval]:
    def value(reading: str) -> Interval:
        return Interval.exact(float(rows.values("value", reading=reading)[0]))

    drawn = {key: rows.values(key, reading="essay") for key in ("low", "median", "high")}
    spread = Interval(*(float(drawn[key].mean()) for key in ("median", "low", "high")))
    return {
        "essay": value("essay"),
        "backpropagating": value("backpropagating"),
        "ranges": spread,
        "least": value("cached"),
    }


def tables(rows: Rows) -> str:
    lines = [
        "| reading | FLOP/s | 90 % over the ranges | of draws, at or above 1e21, % |",
        "|---|---:|---:|---:|",
    ]
    for name, reading in READINGS.items():
        value, low, high, above = (
            rows.values(key, reading=name).mean()
            for key in ("value", "low", "high", "share_above_1e21")
        )
        lines.append(
            f"| `{name}`: {reading.title} | {value:.3g} | {low:.2g} to {high:.2g} "
            f"| {100 * above:.1f} |"
        )
    return "\n".join(lines).replace("e+", "e")


def draw(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(7.4, 4.6), layout="constrained")
    names = sorted(READINGS, key=lambda name: rows.values("value", reading=name)[0])
    for height, name in enumerate(names):
        value, low, high = (rows.values(k, reading=name).mean() for k in ("value", "low", "high"))
        axes.plot(
            [low, high], [height] * 2, color=COLOURS[0], lw=5, alpha=0.35, solid_capstyle="butt"
        )
        axes.plot(value, height, "o", color=COLOURS[0], ms=6)
    axes.axvline(PRINTED, color=COLOURS[1], ls="--")
    annotate(axes, "the essay's 1.075e21", (PRINTED, 0), (-6, 0), ha="right", color=COLOURS[1])
    axes.set(xscale="log", xlabel="FLOP/s: value (dot) and 90 % over the ranges of the inputs")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    plain(axes)
    axes.tick_params(axis="y", colors=INK)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
