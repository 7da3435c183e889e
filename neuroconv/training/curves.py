"""The learning curves of a run, for its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuroconv.core.files import write_atomically
from neuroconv.core.text import drawable


def plot_curves(history: Sequence[Mapping[str, Any]], path: Path, *, label: str) -> None:
    """Draws loss, metrics and the share of each population that fires, against the epoch."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    epochs = [record["epoch"] for record in history]
    names = [key.removeprefix("val_") for key in history[0] if key.startswith("val_")]
    activity = history[0].get("activity", {})
    populations = [name for name, rates in activity.items() if "active_share" in rates]
    count = len(names) + bool(populations)
    figure = Figure(figsize=(5 * count, 4), layout="constrained")
    figure.suptitle(drawable(label))
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=False):
        for split, key, style in (("validation", "val", "o-"), ("training", "train", ".--")):
            values = [record[f"{key}_{name}"] for record in history]
            axes.plot(epochs, values, style, color="C0", markersize=4, label=split)
        is_nats = name == "loss" and "accuracy" in names
        axes.set_ylabel("cross entropy (nats)" if is_nats else name)
    for population in populations:
        shares = [record["activity"][population]["active_share"] for record in history]
        name = drawable(population or "neurons")
        panels[-1].plot(epochs, shares, "o-", markersize=4, label=name)
        panels[-1].set(ylabel="neurons that fire (validation)", ylim=(0, 1))
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        if axes.get_ylabel().startswith(("accuracy", "neurons")):
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    kind = path.suffix[1:]
    write_atomically(path, lambda file: figure.savefig(file, format=kind, dpi=120))
