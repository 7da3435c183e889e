"""Threshold normalisation beside batch normalisation and none: batch size, contrast, dead units.

Three layers of rectified units, each a weighted sum, the arm's normalisation and the firing rate,
and a linear readout. All batch sizes see the same number of images. The running statistics, which
are what evaluation uses, are set apart from the statistics of the batch: each network is evaluated
with both, by test batches of its training's size. The arm "initial" has threshold norm's bounds but
statistics from before training, which stay: the essay's neuron, whose potential is relative to its
initial one. Learning rates are chosen for each arm, batch size and seed by validation images, with
running statistics.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from normalised_network import ARMS, constant, right_by_batch, splits, trained
from numpy.typing import NDArray

from neuroconv.comparison import estimate
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.essay.networks import right
from neuroconv.report.style import COLOURS, MARKERS, STROKES, log_ticks, plain

CONTRASTS = (0.5, 1.0, 1.5)
LABELS = {
    "none": "none", "initial": "initial statistics", "batch": "batch norm",
    "threshold": "threshold norm",
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]
    data: str
    batches: tuple[int, ...]
    epochs: int
    images: int | None = None  # for training, all by default
    units: int = 128
    rates: tuple[float, ...] = (0.0005, 0.0015, 0.005, 0.015, 0.05, 0.15)  # for batches of 16


SIZES = {
    "full": Size((3600, 3601, 3602, 3603, 3604), "fashion_mnist", (4, 16, 64, 256), 4, 5000),
    "quick": Size((3605, 3606, 3607), "digits", (4, 16, 64, 256), 6, units=64),
    "test": Size((0, 1), "digits", (4, 256), 1, 64, units=4, rates=(0.015,)),
}


def conditions(size: Size) -> list[dict[str, Any]]:
    return [{"batch": batch, "arm": arm} for batch in size.batches for arm in ARMS]


def measure(size: Size, *, seed: int, folder: Any, batch: int, arm: str) -> dict[str, Any]:
    training, validation, (pixels, labels) = splits(size.data, size.images)
    candidates = {}
    for rate in size.rates:
        network = trained(arm, batch, rate * (batch / 16) ** 0.5, training, size, seed)
        candidates[rate] = network, right(network, *validation).mean()
    rate = max(candidates, key=lambda rate: candidates[rate][1])
    network = candidates[rate][0]
    with torch.no_grad():
        shares = np.array([constant(layer) for layer in network.rates(pixels)]).mean(0)
    row: dict[str, Any] = {"rate": rate, "dead": shares[0], "saturated": shares[1]}
    for contrast in CONTRASTS:
        shifted = pixels * contrast
        row[f"right_{contrast:g}"] = right(network, shifted, labels)
        row[f"by_batch_{contrast:g}"] = right_by_batch(network, shifted, labels, batch)
    return row


def weighted(rows: Rows, key: str, batch: int, weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Returns the sum of the arms' flags, each times its weight, (S, N)."""
    flags = {arm: rows.values(key, batch=batch, arm=arm).astype(np.float64) for arm in weights}
    total: NDArray[np.float64] = np.sum([w * flags[arm] for arm, w in weights.items()], 0)
    return total


def batches(rows: Rows) -> list[int]:
    return sorted({row["batch"] for row in rows})


def quantities(rows: Rows) -> dict[str, Interval]:
    def over_batches(weights: Mapping[str, float], key: str) -> Interval:
        parts = [weighted(rows, key, b, weights) for b in batches(rows)]
        return Interval.of(estimate(np.mean(parts, 0)), 100)

    kin, half = {"threshold": 1.0, "batch": -1.0}, {"batch": -0.5, "none": -0.5}
    at_four = weighted(rows, "right_1", 4, kin)
    return {
        "batch_norm": over_batches({"batch": 1, "none": -1}, "right_1"),
        "gain": over_batches({"threshold": 1, "none": -1}, "right_1"),
        "half": over_batches({"threshold": 1, **half}, "right_1"),
        "initial": over_batches({"initial": 1, **half}, "right_1"),
        "small_batch": Interval.of(estimate(at_four), 100),
        "dark": over_batches(kin, "right_0.5"),
        "bright": over_batches(kin, "right_1.5"),
    }


def tables(rows: Rows) -> str:
    lines = [
        "| batch | normalisation | test accuracy, % | points over none | contrast x 0.5, % | "
        "contrast x 1.5, % | by the test batch's statistics, contrast x 1, 0.5, 1.5, % | "
        "dead units, % | always at the threshold, % | learning rates chosen |",
        "|---:|---|---:|---:|---:|---:|---|---:|---:|---|",
    ]
    for batch in batches(rows):
        for arm in ARMS:
            these = {"arm": arm, "batch": batch}
            gain = Interval.of(
                estimate(weighted(rows, "right_1", batch, {"none": -1, arm: 1})), 100
            )
            running, dark, bright = (
                f"{100 * rows.values(f'right_{c}', **these).mean():.2f}"
                for c in ("1", "0.5", "1.5")
            )
            own = ", ".join(
                f"{100 * rows.values(f'by_batch_{c}', **these).mean():.2f}"
                for c in ("1", "0.5", "1.5")
            )
            over = "" if arm == "none" else f"{gain:+.2f}"
            dead, full = (100 * rows.values(key, **these).mean() for key in ("dead", "saturated"))
            chosen = ", ".join(f"{rate:g}" for rate in rows.values("rate", **these))
            lines.append(
                f"| {batch} | {arm} | {running} | {over} | {dark} | {bright} | {own} "
                f"| {dead:.1f} | {full:.1f} | {chosen} |"
            )
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    figure, (sizes, contrasts) = plt.subplots(1, 2, figsize=(7.4, 4), layout="constrained")
    for number, arm in enumerate(ARMS):
        style: dict[str, Any] = {
            "color": COLOURS[number], "marker": MARKERS[number], "ls": STROKES[number],
            "lw": 1.2, "ms": 6, "capsize": 2,
        }  # fmt: skip
        by_batch = [estimate(weighted(rows, "right_1", b, {arm: 1})) for b in batches(rows)]
        by_contrast = [
            estimate(
                np.mean([weighted(rows, f"right_{c:g}", b, {arm: 1}) for b in batches(rows)], 0)
            )
            for c in CONTRASTS
        ]
        label = LABELS[arm]
        for axes, places, values in (
            (sizes, np.array(batches(rows)) * 1.06 ** (number - 1), by_batch),
            (contrasts, np.array(CONTRASTS) + 0.015 * (number - 1), by_contrast),
        ):
            means, widths = ([100 * getattr(v, k) for v in values] for k in ("mean", "half_width"))
            axes.errorbar(places, means, widths, label=label, **style)
    sizes.set(xscale="log", xlabel="images in a training batch", ylabel="test accuracy, %")
    log_ticks(sizes.xaxis)
    sizes.set_xticks(batches(rows))
    contrasts.set_xticks(CONTRASTS)
    contrasts.set(xlabel="contrast of test images (training: 1)")
    for axes in (sizes, contrasts):
        plain(axes)
    figure.legend(
        *sizes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9
    )
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
