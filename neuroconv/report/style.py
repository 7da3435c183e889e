"""What all plots share: colours, marks that tell series apart without them, and axes."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import Bbox

# Okabe and Ito's colours that stand out on white and on black, and for the colour-blind.
COLOURS = ("#0079BF", "#D55E00", "#009E73", "#CC79A7", "#C98A00", "#56B4E9", "#8C8C8C")
INK = "#1c1d21"  # `svg` lets the page choose the colour of what is drawn in it
# In print, in grey and to the colour-blind, series differ by mark and stroke too.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STROKES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))


def log_ticks(axis: Axis) -> None:
    """1, 2, 5, 10 ..., written out."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def plain(axes: Axes) -> None:
    """A light grid, no box, and everything in the page's ink."""
    axes.grid(alpha=0.25, linewidth=0.6, color=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)


def label_points(
    axes: Axes,
    labels: Sequence[str],
    points: Sequence[tuple[float, float]],
    colours: Sequence[str],
    *,
    spans: Sequence[Sequence[float]] | None = None,
    fontsize: float = 9.5,
) -> None:
    """Write each point's name beside it, at the first place where nothing else is.

    Points, texts and lines that are already drawn are kept free. A name that is not level with its
    point is joined to it. The layout is fixed from here on.

    Args:
        axes: where the points are drawn.
        labels, points, colours: of each point its name, its place in data coordinates, its colour.
        spans: bottom and top of each point's error bar; by default it has none.
        fontsize: of the names, in points.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    # Where things are now is where they stay: another layout would move labels and points apart.
    figure.set_layout_engine("none")
    taken = [text.get_window_extent() for text in axes.texts]
    legend = axes.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent())
    for line in axes.lines:
        taken += _boxes_along(line, axes)
    for (across, up), (bottom, top) in zip(
        points, spans if spans is not None else [(y, y) for _, y in points], strict=True
    ):
        x, low = axes.transData.transform((across, min(bottom, up)))
        high = axes.transData.transform((across, max(top, up)))[1]
        taken.append(Bbox([[x - 7, low - 2], [x + 7, high + 2]]))
    for label, point, colour in zip(labels, points, colours, strict=True):
        text = axes.annotate(
            label, point, xytext=(0, 0), textcoords="offset points", fontsize=fontsize,
            color=colour, fontweight="bold", annotation_clip=False,
        )  # fmt: skip
        for offset, side in _places():
            text.set_position(offset)
            text.set_horizontalalignment(side)
            text.set_verticalalignment("center")
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            inside = inside and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        if abs(text.get_position()[1]) > 10:  # not level with its point: join them
            axes.annotate(
                "", point, xytext=text.get_position(), textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": INK, "alpha": 0.3, "linewidth": 0.8},
            )  # fmt: skip
        taken.append(box)


def _boxes_along(line: Line2D, axes: Axes) -> Iterator[Bbox]:
    """Small boxes, in pixels, that cover a drawn line inside the axes."""
    if line.get_linestyle() in ("None", "", " "):
        return
    corners = line.get_transform().transform(line.get_xydata())
    for start, end in pairwise(corners):
        for share in np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / 6)):
            x, y = start + share * (end - start)
            if axes.bbox.contains(x, y):
                yield Bbox([[x - 3, y - 1], [x + 3, y + 1]])


def _places() -> list[tuple[tuple[float, float], Literal["left", "right"]]]:
    """Offsets in points from a point, nearest first, and the side of the label that is there."""
    heights = [0.0] + [sign * 7.0 * step for step in range(1, 26) for sign in (1, -1)]
    sides: tuple[tuple[int, Literal["left", "right"]], ...] = ((1, "left"), (-1, "right"))
    return [((sign * 9.0, height), side) for height in heights for sign, side in sides]
