"""The roofline plot: every run has its mark and its name, and no name covers another."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from neuroconv.flops.machine.roofline import Peak
from neuroconv.report.roofline import RooflinePoint, plot_roofline
from neuroconv.report.style import MARKERS

KINDS = ("cells", "networks", "baselines")


def runs(number: int) -> list[RooflinePoint]:
    """Runs under the roof, some of them close together."""
    places = np.random.default_rng(0)
    return [
        RooflinePoint(
            f"network_{n}",
            KINDS[n % 3],
            float(10 ** places.uniform(-0.5, 1.5)),
            float(10 ** places.uniform(8.5, 10.5)),
        )
        for n in range(number)
    ]


def names(figure: Figure, points: list[RooflinePoint]) -> dict[str, Annotation]:
    wanted = {point.name for point in points}
    texts = [each for each in figure.axes[0].texts if isinstance(each, Annotation)]
    return {each.get_text(): each for each in texts if each.get_text() in wanted}


@pytest.mark.parametrize("number", [1, 8, 16])
def test_names_are_there_and_do_not_overlap(machine: Peak, number: int) -> None:
    points = runs(number)
    figure = plot_roofline(points, machine)
    labels = names(figure, points)
    assert set(labels) == {point.name for point in points}
    figure.draw_without_rendering()
    boxes = {name: label.get_window_extent() for name, label in labels.items()}
    for one, other in combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one, other)
    bounds = figure.axes[0].bbox
    for name, box in boxes.items():
        assert bounds.x0 <= box.x0 <= box.x1 <= bounds.x1, name
        assert bounds.y0 <= box.y0 <= box.y1 <= bounds.y1, name


def test_kinds_differ_by_mark_and_colour(machine: Peak) -> None:
    points = runs(9)
    axes = plot_roofline(points, machine).axes[0]
    marked = {str(line.get_label()): line for line in axes.lines if line.get_marker() in MARKERS}
    assert set(marked) == set(KINDS)
    assert len({line.get_marker() for line in marked.values()}) == 3
    assert len({str(line.get_color()) for line in marked.values()}) == 3
    for kind, line in marked.items():
        own = [(p.flop_per_byte, p.flop_per_s) for p in points if p.kind == kind]
        assert np.array_equal(line.get_xydata(), np.array(own))
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(KINDS)


def test_the_roof_is_the_machine_s(machine: Peak) -> None:
    axes = plot_roofline(runs(3), machine).axes[0]
    roof, tenth = [line for line in axes.lines if line.get_marker() not in MARKERS]
    across, up = np.asarray(roof.get_xydata()).T
    assert across[1] == machine.ridge_flop_per_byte == 5.0
    assert up[1] == up[2] == machine.flop_per_s
    assert up[0] == pytest.approx(across[0] * machine.byte_per_s)
    assert np.allclose(np.asarray(tenth.get_xydata())[:, 1], 0.1 * up)
    said = " ".join(text.get_text() for text in axes.texts)
    assert "100 GFLOP/s: product of 512 x 512 matrices" in said
    assert "20 GB/s: copy" in said
    assert axes.get_title(loc="left") == "a machine, threads: 2, float32"


def test_every_point_and_both_roofs_are_in_sight(machine: Peak) -> None:
    far = [
        RooflinePoint("slow", "cells", 0.01, 1e4),
        RooflinePoint("cached", "networks", 0.5, 5e11),  # above the roof: a cache served its bytes
        RooflinePoint("dense", "baselines", 2000.0, 9e10),
    ]
    axes = plot_roofline(far, machine).axes[0]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for point in far:
        assert left < point.flop_per_byte < right
        assert bottom < point.flop_per_s < top
    assert left < machine.ridge_flop_per_byte < right
    assert bottom < machine.flop_per_s < top


def test_errors_name_the_point(machine: Peak) -> None:
    with pytest.raises(ValueError, match="points is empty"):
        plot_roofline([], machine)
    with pytest.raises(ValueError, match="idle: flop_per_byte=0"):
        RooflinePoint("idle", "cells", 0.0, 1.0)
