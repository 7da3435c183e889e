"""The neural circuit policy beside the neuron network and others of its size, on two tasks in time.

All sizes read the study's records, experiments/study/*_equal.json, which say for each seed which
test images a network has right; nothing is trained here. A smaller training beside them would need
the optional package ncps, and could only repeat on fewer images what is recorded; so a quick run
reads three seeds. The records, and with them what is compared here, were known before this rule was
written.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from neuroconv.comparison.statistics import Estimate, estimate_by_test_set, unpack
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.report.style import COLOURS, INK, MARKERS, plain

STUDY = Path(__file__).resolve().parent.parent / "study"
TASKS = ("moving digits", "spoken digits")
NEURON, CIRCUIT = "neuron network", "circuit policy"
MODELS = {  # by their names in the records, of which the first of a name is meant
    NEURON: ("granule_convnet", "cerebellum_small"),
    CIRCUIT: ("ncp",),
    "GRU": ("gru",),
    "LSTM": ("lstm",),
    "spiking (LIF)": ("lif",),
    "temporal CNN": ("temporal_cnn",),
}


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]  # of the records: spoken digits have six, one for each speaker


SIZES = {
    "full": Size((10, 11, 12, 13, 14, 15)),
    "quick": Size((10, 11, 12)),
    "test": Size((10, 11)),
}


@cache
def recorded(task: str, model: str) -> dict[str, Any]:
    text = (STUDY / f"{task.replace(' ', '_')}_equal.json").read_text(encoding="utf-8")
    entries = json.loads(text)["models"]
    return next(entry for entry in entries if entry["name"] in MODELS[model])


def conditions(size: Size) -> list[dict[str, Any]]:
    return [{"task": task, "model": model} for task in TASKS for model in MODELS]


def measure(size: Size, *, seed: int, folder: Any, task: str, model: str) -> dict[str, Any]:
    entry, key = recorded(task, model), str(seed)
    images = entry["test_images_by_seed"].get(key, 0)  # 0: the record has no such seed
    answers = entry["right_answers_by_seed"].get(key, "")
    return {
        "right": unpack(answers, images) if images else np.zeros(0, dtype=bool),
        "images": images, "test_set": entry["test_set_sha256_by_seed"].get(key),
        "parameters": entry["parameters_trained"], "neurons": entry["neurons_per_image"],
        "width": entry["keywords"].get("width"),
    }  # fmt: skip


def by_seed(rows: Rows, task: str, model: str) -> dict[int, NDArray[np.float64]]:
    """Returns which test images are right, (N,) of 0 and 1, for the seeds of the record."""
    chosen = Rows(row for row in rows if row["images"]).where(task=task, model=model)
    flags = [unpack(row["right"]["flags"], row["images"]).astype(float) for row in chosen]
    return {row["seed"]: right for row, right in zip(chosen, flags, strict=True)}


def difference(rows: Rows, task: str, model: str, other: str | None = None) -> Estimate:
    """Returns a model's accuracy, or what it has more than another, paired by seed and image."""
    values = by_seed(rows, task, model)
    if other is not None:
        values = {seed: values[seed] - right for seed, right in by_seed(rows, task, other).items()}
    chosen = rows.where(task=task, model=model)
    return estimate_by_test_set(values, {row["seed"]: row["test_set"] for row in chosen})


def quantities(rows: Rows) -> dict[str, Interval]:
    return {
        task.split()[0]: Interval.of(difference(rows, task, CIRCUIT, NEURON), 100) for task in TASKS
    }


def tables(rows: Rows) -> str:
    lines = [
        "| task | network | parameters | neurons | right, % | points to the neuron network |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for task in TASKS:
        for model in MODELS:
            row = rows.where(task=task, model=model)[0]
            cells = [f"{row[key]:,}" for key in ("parameters", "neurons")]
            shown = [difference(rows, task, model), difference(rows, task, model, NEURON)]
            cells += [f"{Interval.of(e, 100):.1f}" for e in shown]
            cells[-1] = "" if model == NEURON else cells[-1]
            lines.append(f"| {task} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(7.4, 4.2), sharey=True, layout="constrained")
    for axes, task in zip(panels, TASKS, strict=True):
        for model, colour, marker in zip(MODELS, COLOURS, MARKERS, strict=False):
            value = Interval.of(difference(rows, task, model), 100)
            neurons = rows.where(task=task, model=model)[0]["neurons"]
            axes.errorbar(
                neurons, value.value, value.high - value.value, color=colour, marker=marker,
                ms=8, capsize=3, ls="", label=model,
            )  # fmt: skip
        axes.set(xscale="log", xlabel="neurons, at all steps and positions", title=task)
        axes.title.set_color(INK)
        plain(axes)
    panels[0].set(ylabel="test items right, %", ylim=(0, 100))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9.5,
        labelcolor=INK,
    )  # fmt: skip
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
