"""What all plots share: colours, marks that tell series apart without them, and axes."""

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator

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
