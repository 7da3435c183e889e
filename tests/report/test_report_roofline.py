"""The roofline plot: every run has its mark and its name, under the roofs of its machine."""

import numpy as np
import pytest

from neuroconv.flops.machine.roofline import Peak
from neuroconv.report.roofline import RooflinePoint, plot_roofline
from neuroconv.report.style import MARKERS
from tests.report.labels import assert_labels_are_legible

KINDS = ("cells", "networks", "baselines")


def runs(number: int) -> list[RooflinePoint]:
    """Runs under the roof, some of them close together."""
    rng = np.random.default_rng(0)
    numbers = (10 ** rng.uniform((-0.5, 8.5), (1.5, 10.5)) for _ in range(number))
    return [RooflinePoint(f"network_{n}", KINDS[n % 3], *row) for n, row in enumerate(numbers)]


@pytest.mark.parametrize("number", [1, 16])
def test_names_are_there_and_do_not_overlap(machine: Peak, number: int) -> None:
    points = runs(number)
    assert_labels_are_legible(plot_roofline(points, machine), [point.name for point in points])


def test_kinds_differ_by_mark_and_colour_under_the_machines_roof(machine: Peak) -> None:
    points = runs(9)
    axes = plot_roofline(points, machine).axes[0]
    marked = {str(line.get_label()): line for line in axes.lines if line.get_marker() in MARKERS}
    assert set(marked) == set(KINDS)
    assert len({line.get_marker() for line in marked.values()}) == 3
    assert len({str(line.get_color()) for line in marked.values()}) == 3
    for kind, line in marked.items():
        expected = [(p.flop_per_byte, p.flop_per_s) for p in points if p.kind == kind]
        assert np.array_equal(line.get_xydata(), np.array(expected))
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(KINDS)

    roof, tenth = [line for line in axes.lines if line.get_marker() not in MARKERS]
    intensity, attainable = np.asarray(roof.get_xydata()).T
    assert intensity[1] == machine.ridge_flop_per_byte == 5.0
    assert attainable[1] == attainable[2] == machine.flop_per_s
    assert attainable[0] == pytest.approx(intensity[0] * machine.byte_per_s)
    assert np.allclose(np.asarray(tenth.get_xydata())[:, 1], 0.1 * attainable)
    texts = " ".join(text.get_text() for text in axes.texts)
    assert "100 GFLOP/s: product of 512 x 512 matrices" in texts
    assert "20 GB/s: copy" in texts
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
