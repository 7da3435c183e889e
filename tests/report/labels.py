"""Checks of the text in a figure."""

from collections.abc import Sequence
from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox


def assert_labels_are_legible(figure: Figure, names: Sequence[str]) -> list[Bbox]:
    """Asserts that each name is there once, inside the axes, and overlaps no other."""
    figure.draw_without_rendering()
    axes = figure.axes[0]
    texts = [text for text in axes.texts if isinstance(text, Annotation)]
    labels = {text.get_text(): text for text in texts if text.get_text() in names}
    assert sorted(labels) == sorted(names)
    boxes = [label.get_window_extent() for label in labels.values()]
    assert not any(box.overlaps(other) for box, other in combinations(boxes, 2))
    for box in boxes:
        assert axes.bbox.x0 <= box.x0 <= box.x1 <= axes.bbox.x1
        assert axes.bbox.y0 <= box.y0 <= box.y1 <= axes.bbox.y1
    return boxes
