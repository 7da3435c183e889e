"""The style of all plots: colours, markers and strokes, axes, texts, labels that do not overlap."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import Bbox

from neuroconv.core.text import drawable

# Okabe and Ito's palette, legible on white and on black and for the colour-blind.
COLOURS = ("#0079BF", "#D55E00", "#009E73", "#CC79A7", "#C98A00", "#56B4E9", "#8C8C8C")
INK = "#1c1d21"  # `inline_svg` replaces it by the text colour of the page
# Series differ by marker and stroke too, for print in grey.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STROKES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))


def log_ticks(axis: Axis) -> None:
    """Sets ticks at 1, 2, 5, 10 ..., written out."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def plain(axes: Axes) -> None:
    """Gives axes a light grid, no box, and the page's ink."""
    axes.grid(alpha=0.25, linewidth=0.6, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)


def annotate(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    offset: tuple[float, float] = (0, 0),
    **style: Any,
) -> Annotation:
    """Writes text beside a point, `offset` points of print from it, in the page's ink."""
    options = {"textcoords": "offset points", "fontsize": 8.5, "color": INK, **style}
    return axes.annotate(text, at, xytext=offset, **options)


def label_points(
    axes: Axes,
    labels: Sequence[str],
    points: Sequence[tuple[float, float]],
    colours: Sequence[str],
    *,
    spans: Sequence[Sequence[float]] | None = None,
    fontsize: float = 9.5,
) -> None:
    """Writes each point's name at the nearest free position beside it.

    Names overlap neither points, texts and lines that are already drawn nor one another. A name
    that is not level with its point is connected to it. The figure's layout is fixed from here on.

    Args:
        labels, points, colours: name, data coordinates and colour of each point.
        spans: bottom and top of each point's error bar; default none.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # another layout would move labels away from their points
    legend = axes.get_legend()
    drawn = axes.texts if legend is None else [*axes.texts, legend]
    occupied = [artist.get_window_extent() for artist in drawn]
    for line in axes.lines:
        occupied += _boxes_along(line, axes)
    for (x, y), (bottom, top) in zip(points, spans or [(y, y) for _, y in points], strict=True):
        left, low = axes.transData.transform((x, min(bottom, y)))
        high = axes.transData.transform((x, max(top, y)))[1]
        occupied.append(Bbox([[left - 7, low - 2], [left + 7, high + 2]]))
    for label, point, colour in zip(labels, points, colours, strict=True):
        style: dict[str, Any] = {"color": colour, "fontsize": fontsize, "fontweight": "bold"}
        text = annotate(axes, drawable(label), point, va="center", annotation_clip=False, **style)
        for offset, side in _offsets():
            text.set(position=offset, horizontalalignment=side)
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            inside = inside and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
            if inside and not any(box.overlaps(other) for other in occupied):
                break
        if abs(offset[1]) > 10:
            arrow = {"arrowstyle": "-", "color": INK, "alpha": 0.3, "linewidth": 0.8}
            annotate(axes, "", point, offset, arrowprops=arrow)
        occupied.append(box)


def _boxes_along(line: Line2D, axes: Axes) -> Iterator[Bbox]:
    """Yields small boxes, in pixels, that cover a drawn line inside the axes."""
    if line.get_linestyle() in ("None", "", " "):
        return
    corners = line.get_transform().transform(line.get_xydata())
    for start, end in pairwise(corners):
        for share in np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / 6)):
            x, y = start + share * (end - start)
            if axes.bbox.contains(x, y):
                yield Bbox([[x - 3, y - 1], [x + 3, y + 1]])


def _offsets() -> Iterator[tuple[tuple[float, float], Literal["left", "right"]]]:
    """Yields offsets in points from a point, nearest first, and the label's alignment there."""
    for height in [0.0] + [sign * 7.0 * step for step in range(1, 26) for sign in (1, -1)]:
        yield (9.0, height), "left"
        yield (-9.0, height), "right"
