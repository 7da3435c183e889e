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

from neuroconv.report.plots import INK

# Zero is a light grey, which neither a white nor a black page swallows.
DIVERGING = LinearSegmentedColormap.from_list(
    "inhibit_excite", ["#0b3c7d", "#3f86c6", "#e9e9ec", "#dd6b4f", "#8c1020"]
)
WIDE = 4  # dendrites per branch from which on a filter's time steps are stacked
SHOWN = 6
SHOWN_WIDE = 3


def dendritic_filters(weights: NDArray[Any], *, most: int | None = None) -> Figure:
    """Draw the filters of the neurons of largest norm: a panel for each time step, the last now.

    Red excites, blue inhibits, grey is zero; each neuron has a symmetric scale of its own, written
    beside it. A filter much wider than high (a Purkinje cell's) has its time steps one below the
    other, any other one side by side.

    Args:
        weights: a population's (N, K_T, P, D), or an image layer's (N, C, K_T, P, D), of which
            each neuron's channel of largest norm is drawn.
        most: neurons to draw; default 6, of wide filters 3.

    Raises:
        ValueError: weights of another number of axes, or of none at all.
    """
    if weights.ndim not in (4, 5) or weights.size == 0:
        raise ValueError(
            f"weights have shape {weights.shape}; expected (neurons, time_steps, branches, "
            "dendrites) or (units, channels, time_steps, branches, dendrites)"
        )
    order = np.argsort(-_norms(weights, 1), kind="stable")
    branches, dendrites = weights.shape[-2:]
    wide = dendrites >= WIDE * branches
    chosen = order[: most or (SHOWN_WIDE if wide else SHOWN)]
    pictures = [(_name(weights, neuron), _picture(weights[neuron])) for neuron in chosen]
    return _stacked(pictures) if wide else _side_by_side(pictures)


def _norms(weights: NDArray[Any], axes: int) -> NDArray[Any]:
    """Norms over all but the first axes."""
    flat = weights.reshape(*weights.shape[:axes], -1).astype(np.float64)
    return np.sqrt(np.square(flat).sum(-1))


def _picture(filters: NDArray[Any]) -> NDArray[Any]:
    """One neuron's filter as (K_T, P, D)."""
    return filters if filters.ndim == 3 else filters[np.argmax(_norms(filters, 1))]


def _name(weights: NDArray[Any], neuron: int) -> str:
    if weights.ndim == 4:
        return f"neuron {neuron}"
    channels = weights.shape[1]
    channel = f"\nchannel {np.argmax(_norms(weights[neuron], 1))}" if channels > 1 else ""
    return f"unit {neuron}{channel}"


def _side_by_side(pictures: list[tuple[str, NDArray[Any]]]) -> Figure:
    """A row for each neuron, a column for each time step."""
    steps, branches, dendrites = pictures[0][1].shape
    width = 0.55
    height = min(1.3, max(0.3, width * branches / dendrites))
    figure = Figure(
        figsize=(1.5 + steps * (width + 0.05), 0.6 + len(pictures) * (height + 0.08)),
        layout=_tight(),
    )
    grid = figure.subplots(len(pictures), steps, squeeze=False)
    for row, (name, picture) in zip(grid, pictures, strict=True):
        for step, axes in enumerate(row):
            _panel(axes, picture[step], np.abs(picture).max())
        row[0].set_ylabel(
            name, rotation=0, ha="right", va="center", labelpad=6, fontsize=8.5, color=INK
        )
        _scale(row[-1], picture)
    for step, axes in enumerate(grid[0]):
        axes.set_title(_time(step, steps), fontsize=8.5, color=INK, pad=4)
    middle = grid[-1][steps // 2]
    middle.set_xlabel(f"{dendrites} dendrites \u2192", fontsize=8.5, color=INK)
    grid[-1][0].set_xlabel(f"\u2195 {branches} branches", fontsize=8.5, color=INK)
    return figure


def _stacked(pictures: list[tuple[str, NDArray[Any]]]) -> Figure:
    """A block of wide images for each neuron, a line of it for each time step."""
    steps, branches, dendrites = pictures[0][1].shape
    width = 6.0
    height = min(0.6, max(0.22, width * branches / dendrites))
    figure = Figure(
        figsize=(width + 2.2, 0.45 + len(pictures) * (steps * (height + 0.04) + 0.25)),
        layout=_tight(),
    )
    blocks = figure.add_gridspec(len(pictures), 1)
    for number, (name, picture) in enumerate(pictures):
        block = GridSpecFromSubplotSpec(steps, 1, blocks[number])
        lines = [figure.add_subplot(block[step]) for step in range(steps)]
        for step, axes in enumerate(lines):
            _panel(axes, picture[step], np.abs(picture).max())
            axes.set_ylabel(
                _time(step, steps), rotation=0, ha="right", va="center", fontsize=8.5, color=INK
            )
        lines[0].set_title(name, fontsize=8.5, color=INK, pad=3, loc="left")
        _scale(lines[steps // 2], picture)
    lines[-1].set_xlabel(
        f"{dendrites} dendrites \u2192   (each line: {branches} branches high)",
        fontsize=8.5, color=INK,
    )  # fmt: skip
    return figure


def _tight() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.02, wspace=0.0, hspace=0.0)


def _panel(axes: Axes, image: NDArray[Any], limit: float) -> None:
    limit = float(limit) or 1.0  # a filter of zeros is grey
    axes.imshow(
        image, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _scale(axes: Axes, picture: NDArray[Any]) -> None:
    """The neuron's scale, to the right of a panel."""
    axes.annotate(
        f"\u00b1{np.abs(picture).max():#.2g}", (1, 0.5), xycoords="axes fraction", xytext=(6, 0),
        textcoords="offset points", va="center", fontsize=8.5, color=INK,
    )  # fmt: skip


def _time(step: int, steps: int) -> str:
    lag = steps - 1 - step
    return f"t \u2212 {lag}" if lag else "t"
