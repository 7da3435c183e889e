"""Counts the zoo's units and connections, and sets them beside the neurons and synapses of animals.

A unit is an output of a layer with weights at one position, and its connections are the products
that it sums: shared weights count at every position at which they are used, as a synapse does that
each cell has for itself. Nothing is trained; of the counts, the wiring's seed changes only those of
`ncp`, by two connections, and the first seed's is shown. There is no threshold and no verdict: a
number of neurons is no measure of intelligence.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.essay.claim import number
from neuroconv.flops import count_closed_form
from neuroconv.report.style import COLOURS, INK, annotate, label_points, plain
from neuroconv.zoo import count_parameters, create_model, default_keywords

with (Path(__file__).parent / "species.toml").open("rb") as file:
    SPECIES: dict[str, dict[str, Any]] = {s["name"]: s for s in tomllib.load(file)["species"]}
NETWORKS = (
    "ncp", "elm", "dendritic_ann", "mlp", "lenet5", "plain_cnn", "lstm", "purkinje_classifier",
    "granule_convnet", "cerebellum_tiny", "cerebellum_small", "cerebellum_base", "resnet18_granule",
)  # fmt: skip
RECURRENT = ("ncp", "elm", "lstm")  # of one step, since at each step their units are the same


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]  # of the wiring
    networks: tuple[str, ...] = NETWORKS


SIZES = {
    "full": Size((16_000, 16_001, 16_002, 16_003, 16_004)),
    "quick": Size((16_050, 16_051, 16_052)),
    "test": Size((0, 1), ("mlp", "granule_convnet")),
}


def conditions(size: Size) -> list[dict[str, Any]]:
    return [{"network": name} for name in size.networks]


def measure(size: Size, *, seed: int, folder: Any, network: str) -> dict[str, Any]:
    keywords = default_keywords(network)
    changed = {"seed": seed} if "seed" in keywords else {}
    if network in RECURRENT:
        changed["time_steps"] = 1
    with torch.device("meta"):
        model = create_model(network, **changed)
    channels, *sides = keywords["image_shape"]
    time_steps = changed.get("time_steps", keywords["time_steps"])
    steps = () if time_steps == 1 else (time_steps,)
    counted = count_closed_form(model, torch.empty(1, channels, *steps, *sides, device="meta"))
    return {
        "units": sum(row.cost.neurons for row in counted.rows),
        "connections": sum(row.cost.synapses for row in counted.rows),
        "parameters": count_parameters(model),
    }


def quantities(rows: Rows) -> dict[str, Interval]:
    return {}


def middle(ends: list[float]) -> float:
    return float((ends[0] * ends[1]) ** 0.5)


def tables(rows: Rows) -> str:
    lines = [
        "| animal | part | neurons | synapses | synapses a neuron | sources |",
        "|---|---|---:|---:|---:|---|",
    ]
    for name, animal in SPECIES.items():
        counts = [animal["neurons"], animal.get("synapses", [])]
        texts = [" to ".join(dict.fromkeys(number(n) for n in ends)) for ends in counts]
        ratio = number(middle(counts[1]) / middle(counts[0])) if counts[1] else ""
        sources = "; ".join(filter(None, (animal["neurons_source"], animal["synapses_source"])))
        lines.append(
            f"| {name} | {animal['part']} | {texts[0]} | {texts[1]} | {ratio} "
            f"| {sources} (read: {animal['read']}) |"
        )
    lines += [
        "", "| network | units | connections | connections a unit | trained parameters |",
        "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name in dict.fromkeys(row["network"] for row in rows):
        row = rows.where(network=name)[0]
        ratio = number(row["connections"] / row["units"])
        lines.append(
            f"| `{name}` | {row['units']:,} | {row['connections']:,} | {ratio} "
            f"| {row['parameters']:,} |"
        )
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(7.4, 5.6), layout="constrained")
    axes.set(
        xscale="log", yscale="log", xlim=(8, 1e12), ylim=(50, 1e16),
        xlabel="neurons of animals (discs), units of networks (squares)",
        ylabel="synapses, connections",
    )  # fmt: skip
    plain(axes)
    axes.plot([1e1, 1e12], [1e4, 1e15], color=INK, lw=0.8, ls=":")
    annotate(axes, "1,000 for each", (3e8, 3e11), (-8, 2), ha="right", alpha=0.8)
    labels, points, colours = [], [], []
    for name, animal in SPECIES.items():
        (left, right), x = animal["neurons"], middle(animal["neurons"])
        if "synapses" not in animal:
            axes.plot([x, x], [50, 150], color=COLOURS[0], lw=2)
            annotate(axes, name, (x, 180), (0, 0), rotation=90, ha="center", color=COLOURS[0])
            continue
        (low, high), y = animal["synapses"], middle(animal["synapses"])
        axes.plot([left, right], [y, y], color=COLOURS[0], lw=1.5)
        axes.plot([x, x], [low, high], color=COLOURS[0], lw=1.5)
        axes.plot(x, y, "o", color=COLOURS[0], ms=7)
        labels.append(name)
        points.append((x, y))
        colours.append(COLOURS[0])
    for name in dict.fromkeys(row["network"] for row in rows):
        row = rows.where(network=name)[0]
        axes.plot(row["units"], row["connections"], "s", color=COLOURS[1], ms=6)
        labels.append(name.replace("_", " "))
        points.append((row["units"], row["connections"]))
        colours.append(COLOURS[1])
    label_points(axes, labels, points, colours, fontsize=8.5)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
