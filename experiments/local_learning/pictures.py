"""Draws the circuit, and what learning does to the branches of one cell.

    python experiments/local_learning/pictures.py             circuit.svg
    python experiments/local_learning/pictures.py RUN         and branches.svg, of a finished run

RUN is a folder of `neuroconv train` or `compare` with `purkinje_classifier` on images.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse

from neuroconv.report.style import COLOURS, INK
from neuroconv.training.runs import build, rebuild

HERE = Path(__file__).parent
BLUE, ORANGE, GREEN = COLOURS[:3]
BRANCHES = 7  # that are drawn
OPEN = (1, 3, 4)  # of those in the drawing of the circuit, the ones above threshold


def circuit() -> Figure:
    """Draws fibres, the branches that they cross, the soma, its nucleus and the climbing fibre."""
    figure, axes = plt.subplots(figsize=(7.4, 4.3))
    axes.set(xlim=(0, 14.8), ylim=(-0.4, 8.2), aspect="equal")
    axes.axis("off")
    active = (0, 2, 3)
    for fibre, height in enumerate(np.linspace(4.1, 6.3, 5)):
        on = fibre in active
        axes.plot([1.6, 10.6], [height, height], color=GREEN, lw=2.2 if on else 0.8, zorder=1)
        axes.add_patch(Circle((1.6, height), 0.13, color=GREEN, fill=on))
        for branch in range(BRANCHES):
            x = 3.4 + branch
            learns = on and branch in OPEN
            axes.plot(
                x,
                height,
                "o",
                ms=7 if learns else 3.5,
                zorder=3,
                color=ORANGE if learns else INK,
                mfc=ORANGE if learns else "white",
            )
    for branch in range(BRANCHES):
        x, opens = 3.4 + branch, branch in OPEN
        axes.plot(
            [x, x, 6.4],
            [6.7, 3.3, 2.0],
            color=BLUE,
            lw=2.6 if opens else 1.1,
            ls="-" if opens else (0, (3, 2)),
            zorder=2,
        )
    axes.add_patch(Ellipse((6.4, 1.7), 1.3, 0.9, color=BLUE, zorder=4))
    axes.plot([7.05, 11.2], [1.7, 1.7], color=BLUE, lw=1.6)
    axes.plot([11.2, 11.2], [1.45, 1.95], color=BLUE, lw=3)
    axes.add_patch(Circle((11.9, 1.7), 0.55, fc="white", ec=INK, lw=1.6))
    axes.plot(
        [4.4, 5.5, 5.5, 6.25, 6.25], [0.3, 0.6, 2.3, 2.75, 6.7], color=ORANGE, lw=1.6, zorder=5
    )
    axes.add_patch(Circle((4.1, 0.25), 0.35, color=ORANGE))
    text: Any = {"fontsize": 8.5, "color": INK, "va": "center"}
    axes.text(0.0, 7.0, "parallel fibres,\nx (filled: active)", **text)
    axes.text(
        3.3,
        7.2,
        "branches of one Purkinje cell\n(solid: open, its weighted sum is above 0)",
        **text,
    )
    axes.text(12.6, 1.7, "nucleus:\nthe class", **text)
    axes.text(8.2, 2.05, "inhibits", **text)
    axes.text(0.6, 0.6, "climbing fibre:\nthe cell's error,\none number", **text)
    axes.plot(11.0, 6.1, "o", ms=7, color=ORANGE)
    axes.text(
        11.3, 5.35, "learns: its fibre is\nactive, its branch\nopen, and the cell\nerrs", **text
    )
    return figure


def weights(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Returns a cell's synapses (branches, synapses) before and after, and their pixels."""
    config, trained, _ = rebuild(run)
    cells: Any = [build(config), trained]
    purkinje = cells[0].purkinje
    sites, branches = purkinje.dendrites.sheet_shape
    before, after = (
        (
            c.purkinje.synapses.effective_weight()
            * c.purkinje.dendrites.taps()[:, -1].transpose(1, 2).flatten(1)
        )
        .detach()
        .unflatten(1, (branches, sites))
        .numpy()
        for c in cells
    )
    wiring = purkinje.synapses.wiring.unflatten(1, (branches, sites)).numpy()
    return before, after, wiring, tuple(config.model["image_shape"][1:])


def image(values: np.ndarray, pixels: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Lays synapses on the pixels that they receive; several on one pixel add up."""
    canvas = np.zeros(sides[0] * sides[1])
    np.add.at(canvas, pixels.ravel() % canvas.size, values.ravel())
    return canvas.reshape(sides)


def branches(run: Path, cell: int = 3) -> Figure:
    """Draws some branches of a cell, and the sum of all, before and after learning."""
    before, after, wiring, sides = weights(run)
    change = np.linalg.norm(after[cell] - before[cell], axis=1)
    shown = np.argsort(-change)[:BRANCHES]
    figure, grid = plt.subplots(2, BRANCHES + 1, figsize=(7.4, 2.2), layout="constrained")
    limit = np.quantile(np.abs(after[cell, shown]), 0.98)
    for row, (name, values) in enumerate((("before", before[cell]), ("after", after[cell]))):
        for axes, branch in zip(grid[row], shown, strict=False):
            drawn = image(values[branch], wiring[cell, branch], sides)
            picture(axes, drawn, limit)
            axes.set_title(f"branch {branch}" if row == 0 else "", fontsize=7, color=INK)
        whole = image(values, wiring[cell], sides)
        picture(grid[row, -1], whole, np.quantile(np.abs(whole), 0.99) or 1)
        grid[row, -1].set_title("all branches" if row == 0 else "", fontsize=7, color=INK)
        grid[row, 0].set_ylabel(name, fontsize=9, color=INK)
    return figure


def picture(axes: Axes, values: np.ndarray, limit: float) -> None:
    axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


@plt.rc_context({"svg.hashsalt": "local_learning"})
def main(words: list[str]) -> None:
    drawn = {"circuit": circuit()} | ({"branches": branches(Path(words[0]))} if words else {})
    for name, figure in drawn.items():
        path = HERE / f"{name}.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        print(path)


if __name__ == "__main__":
    with torch.no_grad():
        main(sys.argv[1:])
