"""Dendritic filters as pictures.

Shapes: N neurons (units of an image layer), C channels, K_T time steps, P branches, D dendrites.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from neuroconv.report.style import INK, annotate

# Zero is a light grey, visible on a white and on a black page.
DIVERGING = LinearSegmentedColormap.from_list(
    "inhibit_excite", ["#0b3c7d", "#3f86c6", "#e9e9ec", "#dd6b4f", "#8c1020"]
)
WIDE = 4  # dendrites per branch from which on a filter's time steps are stacked
SHOWN = 6
SHOWN_WIDE = 3
_TEXT: dict[str, Any] = {"fontsize": 8.5, "color": INK}
_LEFT: dict[str, Any] = {**_TEXT, "rotation": 0, "ha": "right", "va": "center"}

Picture = tuple[str, NDArray[Any]]  # a neuron's name and its filter, (K_T, P, D)


def dendritic_filters(weights: NDArray[Any], *, most: int | None = None) -> Figure:
    """Draws the filters of the neurons of largest norm, a panel for each time step, the last now.

    Red excites, blue inhibits, grey is zero; each neuron has its own symmetric scale. The time
    steps of a filter much wider than high (a Purkinje cell's) are stacked, others side by side.

    Args:
        weights: a population's (N, K_T, P, D), or an image layer's (N, C, K_T, P, D), of which
            each neuron's channel of largest norm is drawn.
        most: number of neurons to draw; default 6, for wide filters 3.
    """
    if weights.ndim not in (4, 5) or weights.size == 0:
        raise ValueError(
            f"weights have shape {weights.shape}; expected (neurons, time_steps, branches, "
            "dendrites) or (units, channels, time_steps, branches, dendrites)"
        )
    order = np.argsort(-_norms(weights, 1), kind="stable")
    branches, dendrites = weights.shape[-2:]
    wide = dendrites >= WIDE * branches
    pictures = [
        _picture(weights, neuron) for neuron in order[: most or (SHOWN_WIDE if wide else SHOWN)]
    ]
    return _stacked(pictures) if wide else _side_by_side(pictures)


def _norms(weights: NDArray[Any], axes: int) -> NDArray[Any]:
    """Returns norms over all but the first axes."""
    flat = weights.reshape(*weights.shape[:axes], -1).astype(np.float64)
    return np.sqrt(np.square(flat).sum(-1))


def _picture(weights: NDArray[Any], neuron: int) -> Picture:
    """Returns a neuron's name and its filter; of an image layer, the channel of largest norm."""
    if weights.ndim == 4:
        return f"neuron {neuron}", weights[neuron]
    channel = np.argmax(_norms(weights[neuron], 1))
    name = f"unit {neuron}\nchannel {channel}" if weights.shape[1] > 1 else f"unit {neuron}"
    return name, weights[neuron, channel]


def _side_by_side(pictures: list[Picture]) -> Figure:
    """Draws a row for each neuron and a column for each time step."""
    steps, branches, dendrites = pictures[0][1].shape
    width = 0.55
    height = min(1.3, max(0.3, width * branches / dendrites))
    size = 1.5 + steps * (width + 0.05), 0.6 + len(pictures) * (height + 0.08)
    figure = Figure(figsize=size, layout=_tight_layout())
    grid = figure.subplots(len(pictures), steps, squeeze=False)
    for row, (name, picture) in zip(grid, pictures, strict=True):
        _panels(row, picture)
        row[0].set_ylabel(name, labelpad=6, **_LEFT)
        _scale(row[-1], picture)
    for step, axes in enumerate(grid[0]):
        axes.set_title(_time(step, steps), pad=4, **_TEXT)
    grid[-1][steps // 2].set_xlabel(f"{dendrites} dendrites \u2192", **_TEXT)
    grid[-1][0].set_xlabel(f"\u2195 {branches} branches", **_TEXT)
    return figure


def _stacked(pictures: list[Picture]) -> Figure:
    """Draws a block for each neuron: its time steps as wide images, one below the other."""
    steps, branches, dendrites = pictures[0][1].shape
    width = 6.0
    height = min(0.6, max(0.22, width * branches / dendrites))
    size = width + 2.2, 0.45 + len(pictures) * (steps * (height + 0.04) + 0.25)
    figure = Figure(figsize=size, layout=_tight_layout())
    blocks = figure.add_gridspec(len(pictures), 1)
    for number, (name, picture) in enumerate(pictures):
        block = GridSpecFromSubplotSpec(steps, 1, blocks[number])
        column = [figure.add_subplot(block[step]) for step in range(steps)]
        _panels(column, picture)
        for step, axes in enumerate(column):
            axes.set_ylabel(_time(step, steps), **_LEFT)
        column[0].set_title(name, pad=3, loc="left", **_TEXT)
        _scale(column[steps // 2], picture)
    column[-1].set_xlabel(
        f"{dendrites} dendrites \u2192   (each line: {branches} branches high)", **_TEXT
    )
    return figure


def _tight_layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.02, wspace=0.0, hspace=0.0)


def _panels(row: list[Axes], picture: NDArray[Any]) -> None:
    limit = float(np.abs(picture).max()) or 1.0  # a filter of zeros is grey
    for axes, image in zip(row, picture, strict=True):
        axes.imshow(
            image, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto"
        )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)


def _scale(axes: Axes, picture: NDArray[Any]) -> None:
    """Writes the neuron's scale to the right of a panel."""
    text = f"\u00b1{np.abs(picture).max():#.2g}"
    annotate(axes, text, (1, 0.5), (6, 0), xycoords="axes fraction", va="center")


def _time(step: int, steps: int) -> str:
    lag = steps - 1 - step
    return f"t \u2212 {lag}" if lag else "t"
