"""One neuron against a point neuron and against the two-layer network that it is said to be.

Takes in ../local_learning/single_neuron.py: the full form reads its record if there is one, else
trains it, and goes on where it was interrupted.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from runpy import run_path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from neuroconv.comparison import Estimate, estimate
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.report.style import COLOURS, INK, STROKES, plain

LOCAL = Path(__file__).resolve().parent.parent / "local_learning"
single = run_path(str(LOCAL / "single_neuron.py"))
QUICK = single["QUICK"]
TASKS = ("even_odd", "splits", "boolean")


@dataclass(frozen=True)
class Size:
    plan: Any  # of single_neuron.py, with the seeds of its training
    seeds: tuple[int, ...] = (0,)


SIZES = {
    "full": Size(single["Plan"]()),
    "quick": Size(replace(QUICK, seeds=(10, 11, 12), splits=("random", *single["PRIMARY"]))),
    "test": Size(replace(
        QUICK, images=60, even_odd=((12, ("random", *single["PRIMARY"])),), epochs=(1, 1),
        splits=("random", *single["PRIMARY"]), inputs=(2,), branches=(2,), functions=3, steps=2,
        primary=(12, (2, 2)),
    )),
}  # fmt: skip


def conditions(size: Size) -> list[dict[str, Any]]:
    return [
        {"task": task, "entrant": name} for task in TASKS for name in ("random", *single["PRIMARY"])
    ]


def measure(size: Size, *, seed: int, folder: Path, task: str, entrant: str) -> dict[str, Any]:
    record = recorded(size, folder)
    branches, (inputs, width) = size.plan.primary
    group = f"boolean/{inputs}/{width}" if task == "boolean" else f"{task}/{branches}"
    share, cell = (single["rights"](record, group, name) for name in (entrant, "random"))
    lead = estimate(cell - share)
    row = {"accuracy": share.mean(), "lead": lead.mean, "half_width": lead.half_width or 0.0,
           "trainings": len(share)}  # fmt: skip
    if task == "splits":
        row["by_split"] = np.sort(single["by_split"](record, entrant)).round(4)
    if task == "boolean":
        groups = {d: f"boolean/{d}/{width}" for d in size.plan.inputs}
        row["learned"] = {d: single["rights"](record, g, entrant).mean() for d, g in groups.items()}
    return row


def recorded(size: Size, folder: Path) -> dict[str, Any]:
    """Returns the record of the plan, after training what it does not have yet."""
    file, record = LOCAL / "single_neuron.json", dict[str, Any]()
    if file.exists():
        record = json.loads(file.read_text())
    if record.get("plan") != json.loads(json.dumps(asdict(size.plan))) or record["missing"]:
        file = folder / "single_neuron.json"
        single["Study"](size.plan, file, None).run()
        record = json.loads(file.read_text())
    return record


def quantities(rows: Rows) -> dict[str, Interval]:
    def lead(task: str, opponent: str) -> Interval:
        row = rows.where(task=task, entrant=opponent)[0]
        return Interval.of(Estimate(row["lead"], row["half_width"], row["trainings"]), 100)

    points = {task: lead(task, "point") for task in TASKS}
    return points | {"two_layers": lead("splits", "mlp")}


def tables(rows: Rows) -> str:
    lines = ["| task | entrant | right, % | the cell's lead, points |", "|---|---|---:|---:|"]
    for row in rows:
        name, lead = single["ENTRANTS"][row["entrant"]], ""
        if row["entrant"] != "random":
            lead = f"{100 * row['lead']:+.2f} ± {100 * row['half_width']:.2f}"
        lines.append(f"| {row['task']} | {name} | {100 * row['accuracy']:.2f} | {lead} |")
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    figure, (splits, boolean) = plt.subplots(1, 2, figsize=(7.4, 3.4), layout="constrained")
    for number, name in enumerate(("random", *single["PRIMARY"])):
        style = {"color": COLOURS[number], "ls": STROKES[number], "label": single["ENTRANTS"][name]}
        by_split = rows.where(task="splits", entrant=name)[0]["by_split"]
        splits.plot(100 * np.array(by_split), lw=2, **style)
        learned = rows.where(task="boolean", entrant=name)[0]["learned"]
        boolean.plot([int(d) for d in learned], [100 * share for share in learned.values()],
                     marker="o", lw=2, **{**style, "label": None})  # fmt: skip
    splits.set(xlabel="126 splits of ten digits, sorted", ylabel="test images right, %")
    boolean.set(xlabel="inputs of a Boolean function", ylabel="learned exactly, %", ylim=(-3, 103))
    figure.legend(frameon=False, ncol=2, loc="outside upper center", labelcolor=INK)
    for axes in (splits, boolean):
        plain(axes)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
