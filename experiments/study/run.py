"""The study's records, read as a claim: the primary comparison of each task, and the dendrites'.

Nothing is trained here: every interval is computed again from the recorded answers of five seeds
(six speakers). Margins and comparisons were fixed in configs/*_equal.toml before their records.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from neuroconv.comparison import Estimate
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.report.style import COLOURS, INK, plain

HERE = Path(__file__).resolve().parent
study = run_path(str(HERE / "table.py"))
TASKS = ("mnist", "fashion", "cifar10", "imagenette", "moving_digits", "spoken_digits")


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...] = (0,)


SIZES = dict.fromkeys(("full", "quick", "test"), Size())


def conditions(size: Size) -> list[dict[str, Any]]:
    return [{"task": task} for task in TASKS]


def measure(size: Size, *, seed: int, folder: Path, task: str) -> dict[str, Any]:
    record = study["checked"](json.loads((HERE / f"{task}_equal.json").read_text()))
    neurons, *others = record["models"]
    opponent = next(model for model in others if model["primary"])
    linear = next((m for m in others if m["label"] == "linear dendrites"), None)
    row = {
        "neurons": neurons["label"], "opponent": opponent["label"], "margin": record["margin"],
        "accuracy": plain_estimate(study["accuracy"](neurons)),
        "difference": plain_estimate(study["difference"](neurons, opponent)),
    }  # fmt: skip
    if task == "mnist":
        classifier = record["linear_test_accuracy_fraction"]
        lead = {s: right - classifier for s, right in study["right"](neurons).items()}
        tests = study["test_sets"](neurons)
        row["over_linear"] = plain_estimate(study["estimate_by_test_set"](lead, tests))
    if linear is not None:
        row["over_linear_dendrites"] = plain_estimate(study["difference"](neurons, linear))
    return row


def plain_estimate(estimate: Estimate) -> list[Any]:
    return [estimate.mean, estimate.half_width, estimate.seeds]


def interval(values: list[Any]) -> Interval:
    return Interval.of(Estimate(*values), 100)


def quantities(rows: Rows) -> dict[str, Interval]:
    by_task = {row["task"]: row for row in rows}
    return {
        "learns": interval(by_task["mnist"]["over_linear"]),
        **{task: interval(by_task[task]["difference"]) for task in TASKS},
        "dendrites": interval(by_task["mnist"]["over_linear_dendrites"]),
    }


def tables(rows: Rows) -> str:
    lines = [
        "| task | neurons | accuracy, % | opponent | points to it | points to linear dendrites |",
        "|---|---|---:|---|---:|---:|",
    ]
    for row in rows:
        cells = [points(row[key]) for key in ("difference", "over_linear_dendrites") if key in row]
        title = study["TASKS"][f"{row['task']}_equal"]
        lines.append(
            f"| {title} | {row['neurons']} | {points(row['accuracy'], '')} | {row['opponent']} "
            f"| {' | '.join([*cells, ''][:2])} |"
        )
    return "\n".join(lines)


def points(values: list[Any], sign: str = "+") -> str:
    text: str = study["points"](Estimate(*values), sign)
    return text


def draw(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(7.4, 3.2), layout="constrained")
    for height, row in enumerate(rows):
        for key, marker, colour, shift in (
            ("difference", "o", COLOURS[0], -0.14),
            ("over_linear_dendrites", "s", COLOURS[1], 0.14),
        ):
            if key in row:
                mean, half, _ = (100 * np.array(row[key], float)).tolist()
                axes.errorbar(mean, height + shift, xerr=half, fmt=marker, color=colour, capsize=3)
        margin = 100 * row["margin"]
        axes.fill_betweenx([height - 0.35, height + 0.35], -margin, margin, color=INK, alpha=0.12)
    axes.errorbar([], [], xerr=[], fmt="o", color=COLOURS[0], label="less the named opponent")
    axes.errorbar([], [], xerr=[], fmt="s", color=COLOURS[1], label="less linear dendrites")
    axes.fill_between([], [], color=INK, alpha=0.12, label="margin: equal")
    axes.axvline(0, color=INK, lw=0.8)
    names = [study["TASKS"][f"{row['task']}_equal"] for row in rows]
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="accuracy of the networks of neurons, points", ylim=(len(names) - 0.5, -0.5))
    figure.legend(frameon=False, ncol=3, loc="outside upper center", labelcolor=INK)
    plain(axes)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
