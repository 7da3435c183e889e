"""The essay's dates, recomputed from its paces and set against the records and brakes since.

Nothing is drawn at random: one row a part. The thresholds are the essay's own
figures; its records were read before the rule was written.
"""

import tomllib
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from neuroconv.brain.growth.trends import (
    essay_dates,
    hpcg_records,
    record_growth,
    scores,
    trends,
)
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.report.style import COLOURS, INK, MARKERS, STROKES, annotate, plain

BRAKES = tomllib.loads(Path(__file__).with_name("brakes.toml").read_text())["brake"]
BRAIN = 1.075e21  # FLOP/s, the essay


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...] = (0,)


SIZES = dict.fromkeys(("full", "quick", "test"), Size())


def conditions(size: Size) -> list[dict[str, Any]]:
    return [{"part": part} for part in ("dates", "growth", "brakes")]


def measure(size: Size, *, seed: int, folder: Path, part: str) -> dict[str, Any]:
    if part == "dates":
        dates = [date for date in essay_dates() if date.computed is not None]
        return {
            date.label: [date.printed.value, date.computed.value] for date in dates if date.computed
        }
    if part == "growth":
        paces = {key: growth.value for key, growth in record_growth().items()}
        return paces | {row["trend"]: row["ratio"].value for row in scores()}
    return {brake["name"]: rate(brake) for brake in BRAKES}


def rate(brake: dict[str, Any]) -> float:
    """Returns the doublings a year between a brake's two points."""
    first, last = brake["first"], brake["last"]
    return float(log2(last["value"] / first["value"]) / (last["year"] - first["year"]))


def quantities(rows: Rows) -> dict[str, Interval]:
    (dates, growth, brakes) = (rows.where(part=part)[0] for part in ("dates", "growth", "brakes"))
    errors = [row[1] - row[0] for row in dates.values() if isinstance(row, list)]
    exact = Interval.exact
    return {
        "dates": exact(max(errors, key=abs)),
        "pace": Interval(growth["fitted"], growth["low"], growth["high"], len(hpcg_records())),
        "moore": exact(growth["essay, 1.03 years"]),
        "network": exact(1 / brakes["network"]),
        "fab": exact(100 * (2 ** brakes["fab"] - 1)),
        "memory": exact(1 / brakes["memory"]),
    }


def tables(rows: Rows) -> str:
    (dates, growth, brakes) = (rows.where(part=part)[0] for part in ("dates", "growth", "brakes"))
    lines = ["| date | printed | at its stated pace |", "|---|---:|---:|"]
    for label, pair in dates.items():
        if isinstance(pair, list):
            lines.append(f"| {label} | {pair[0]:.0f} | {pair[1]:.1f} |")
    lines += ["", "| line from 2015 | record of 2026 / foretold |", "|---|---:|"]
    lines += [f"| {key} | {growth[key]:.3g} |" for key in growth if key.startswith("essay")]
    lines += [
        "",
        "| brake | the essay | first | latest | years a doubling |",
        "|---|---|---:|---:|---:|",
    ]
    for brake in BRAKES:
        ends = (
            f"{brake[end]['value']:.3g} ({int(brake[end]['year'])})" for end in ("first", "last")
        )
        speed = brakes[brake["name"]]
        lines.append(
            f"| {brake['title']} | {brake['says']} | {' | '.join(ends)} | {1 / speed:.1f} |"
        )
    recent = growth["recent"]
    lines += [
        "",
        f"Since November 2020 the HPCG record has grown by one doubling in {recent:.1f} years.",
    ]
    return "\n".join(lines).replace("e+", "e")


def draw(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(7.4, 4.4), layout="constrained")
    records = hpcg_records()
    years = np.array([2015.6, 2085.0])
    essay = [trend for trend in trends() if trend.name.startswith("essay")]
    for number, trend in enumerate(essay):
        ends = [trend.flop_per_s(year) for year in years]
        axes.plot(years, ends, color=INK, ls=STROKES[number], lw=1.2, label=trend.name)
    fitted = next(trend for trend in trends() if trend.name.startswith("HPCG"))
    axes.plot(
        years, [fitted.flop_per_s(year) for year in years], color=COLOURS[0], lw=2, label="fitted"
    )
    points = [(record.year.value, record.hpcg.value) for record in records]
    axes.plot(*zip(*points, strict=True), MARKERS[0], color=COLOURS[0], label="HPCG record")
    axes.axhline(BRAIN, color=COLOURS[1], lw=1)
    annotate(axes, "a brain, by the essay", (2014, BRAIN), (0, 4), color=COLOURS[1])
    axes.set(yscale="log", ylim=(1e14, 1e23), xlim=(2013, 2085), xlabel="year", ylabel="FLOP/s")
    axes.legend(frameon=False, fontsize=8.5, loc="lower right", labelcolor=INK)
    plain(axes)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
