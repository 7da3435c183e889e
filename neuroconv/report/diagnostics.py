"""Diagnostics of a classifier as a page, from the numbers of `neuroconv evaluate --json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from neuroconv.core.files import write_text
from neuroconv.core.text import drawable
from neuroconv.report.page import TEMPLATES, inline_svg
from neuroconv.report.style import COLOURS, INK, plain

Numbers = Mapping[str, Any]
UNITS = {
    "noise_sigma": "σ of noise (intensities are 0 to 1)",
    "shift_pixels": "shift (pixels)",
    "rotation_degrees": "rotation (degrees)",
}


def write_diagnostics(path: Path, numbers: Numbers) -> None:
    """Writes a self-contained page."""
    figures = {"confusion": confusion_matrix(numbers), "reliability": reliability_diagram(numbers)}
    figures |= {kind: accuracy_curve(numbers, kind) for kind in UNITS}
    html = TEMPLATES.get_template("diagnostics.html").render(
        numbers, title=f"{numbers['model']} on {numbers['data']}", errors=_errors(numbers),
        units=UNITS, plots={
            name: inline_svg(figure, alt=f"{name}: its numbers are those of --json", name=name)
            for name, figure in figures.items()
        },
    )  # fmt: skip
    write_text(path, html)


def _errors(numbers: Numbers) -> list[tuple[int, int, int]]:
    """Returns the ten most frequent (true class, predicted class, images)."""
    errors = np.array(numbers["confusion_matrix"])
    np.fill_diagonal(errors, 0)
    cells = np.argsort(-errors, axis=None, kind="stable")[:10]
    pairs = [divmod(int(cell), len(errors)) for cell in cells]
    return [(*pair, int(errors[pair])) for pair in pairs if errors[pair]]


def confusion_matrix(numbers: Numbers) -> Figure:
    """Draws true classes down and predicted ones across, with counts up to 20 classes."""
    matrix = np.array(numbers["confusion_matrix"])
    names = [drawable(row["name"]) for row in numbers["classes"]]
    pixels = np.where(np.eye(len(names))[..., None], to_rgba(COLOURS[0]), to_rgba(COLOURS[1]))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    pixels[..., 3] = 0.75 * np.sqrt(shares)  # ink is legible on it, on light and on dark pages
    side = min(9.0, 1 + 0.45 * len(names) + 0.075 * max(map(len, names)))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(pixels, interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class", xticks=[], yticks=[])
    plain(axes)
    axes.grid(visible=False)
    size = min(9, 0.8 * 72 * (side - 1) / len(names))  # points
    if size >= 4:  # names are legible
        turn = 90 * (max(map(len, names)) > 3)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        axes.set_xticks(range(len(names)), names, fontsize=size, rotation=turn)
    size = min(9, 75 * side / len(names) / len(f"{matrix.max():,}"))
    for i, j in np.argwhere(matrix) if len(names) <= 20 else ():
        label = f"{matrix[i, j]:,}"
        axes.text(j, i, label, ha="center", va="center", color=INK, fontsize=size)
    return figure


def reliability_diagram(numbers: Numbers) -> Figure:
    """Draws each bin's accuracy against its mean confidence, and its images below."""
    bins = numbers["reliability"]
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot((0, 1), (0, 1), color=INK, linestyle="--", alpha=0.6)
    filled = [row for row in bins if row["images"]]
    _errorbars(axes, [row["confidence"] for row in filled], [row["accuracy"] for row in filled])
    edges, images = np.arange(len(bins)) / len(bins), [row["images"] for row in bins]
    histogram.bar(edges, images, 0.9 / len(bins), align="edge", color=COLOURS[0])
    histogram.set(yscale="log", xlabel="confidence", ylabel="images", xlim=(0, 1))
    histogram.xaxis.set_major_formatter(PercentFormatter(1))
    plain(histogram)
    return figure


def accuracy_curve(numbers: Numbers, kind: str) -> Figure:
    """Draws the accuracy against the level of a perturbation, and that of the largest class."""
    rows = numbers["perturbed"][kind]
    figure = Figure(figsize=(3, 2.8), layout="constrained")
    axes = figure.subplots()
    chance = max(row["images"] for row in numbers["classes"]) / numbers["images"]
    axes.axhline(chance, color=INK, linestyle="--", alpha=0.6)
    _errorbars(axes, [row["level"] for row in rows], rows, "-")
    axes.set_xlabel(UNITS[kind])
    return figure


def _errorbars(axes: Axes, x: Sequence[float], shares: Sequence[Numbers], line: str = "") -> None:
    """Draws accuracies with their intervals."""
    value, low, high = ([row[key] for row in shares] for key in ("value", "low", "high"))
    axes.plot(x, value, color=COLOURS[0], marker="o", markersize=5, linestyle=line)
    axes.vlines(x, low, high, color=COLOURS[0], linewidth=1.5)
    axes.set(ylim=(0, 1.03), ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    plain(axes)
