"""The learning curves of a run, for its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuroconv.core.text import drawable


def plot_curves(history: Sequence[Mapping[str, Any]], path: Path, *, label: str) -> None:
    """Draws loss, accuracy and the share of each population that fires, against the epoch."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    active: dict[str, list[tuple[int, float]]] = {}
    for record in history:
        for population, activity in record.get("activity", {}).items():
            if "active_share" in activity:
                point = record["epoch"], activity["active_share"]
                active.setdefault(population or "neurons", []).append(point)
    panels = 3 if active else 2
    figure = Figure(figsize=(5 * panels, 4), layout="constrained")
    figure.suptitle(drawable(label))
    loss, accuracy, *firing = figure.subplots(1, panels)
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for split, key, style in (("validation", "val", "o-"), ("training", "train", ".--")):
            epochs = [record["epoch"] for record in history]
            values = [record[f"{key}_{quantity}"] for record in history]
            axes.plot(epochs, values, style, color="C0", markersize=4, label=split)
    loss.set_ylabel("cross entropy (nats)")
    accuracy.set_ylabel("accuracy")
    for axes in firing:
        for population, points in active.items():
            axes.plot(*zip(*points, strict=True), "o-", markersize=4, label=drawable(population))
        axes.set(ylabel="neurons that fire (validation)", ylim=(0, 1))
    for axes in (loss, accuracy, *firing):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    for axes in (accuracy, *firing):
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
