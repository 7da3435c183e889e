"""The forecast's picture: what it draws, where, and that names keep apart."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from neuroconv.brain.growth.trends import hpcg_records, trends
from neuroconv.report.trends import _spread_out, plot_trends

READINGS = {"published": 1.075e21, "five steps": 1.0e21, "one step": 1.8e17, "collapse": 2.0e16}


@pytest.fixture(scope="module")
def figure() -> Figure:
    return plot_trends(READINGS)


def test_every_trend_is_drawn_from_its_start_at_its_pace(figure: Figure) -> None:
    lines = {line.get_gid(): line for line in figure.axes[0].lines}
    for trend in trends():
        years, values = lines[trend.name].get_data()
        assert years[0] == trend.start_year.value
        doublings = np.log2(values[-1] / values[0])
        assert (years[-1] - years[0]) / doublings == pytest.approx(trend.doubling_time.value)


def test_trends_differ_by_stroke_and_not_by_colour_alone(figure: Figure) -> None:
    named = {trend.name for trend in trends()}
    lines = [line for line in figure.axes[0].lines if line.get_gid() in named]
    strokes = {str((line.get_linestyle(), line._unscaled_dash_pattern)) for line in lines}
    assert len(strokes) == len(lines) == len(trends())


def test_the_record_is_drawn_as_points_in_both_panels(figure: Figure) -> None:
    expected = [(record.year.value, record.hpcg.value) for record in hpcg_records()]
    for axes in figure.axes:
        (record,) = (line for line in axes.lines if line.get_marker() == "o")
        assert list(zip(*record.get_data(orig=True), strict=True)) == expected


def test_every_reading_has_a_line_across_and_a_name_beside_it(figure: Figure) -> None:
    values = [line.get_ydata() for line in figure.axes[0].lines]
    heights = [ends[0] for ends in values if len(set(ends)) == 1]
    assert set(READINGS.values()) <= set(heights)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "published, 1.075e21" in texts
    assert all(any(text.startswith(f"{name}, ") for text in texts) for name in READINGS)


def test_names_of_readings_do_not_overlap(figure: Figure) -> None:
    figure.draw_without_rendering()
    names = [text for text in figure.axes[0].texts if text.get_text().split(",")[0] in READINGS]
    # The boxes of the words alone, without an arrow.
    boxes = sorted(map(Text.get_window_extent, names), key=lambda box: box.y0)
    assert len(boxes) == len(READINGS)
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)


def test_names_of_machines_do_not_overlap(figure: Figure) -> None:
    figure.draw_without_rendering()
    machines = {record.machine for record in hpcg_records()}
    texts = [text for text in figure.axes[1].texts if text.get_text().split("\n")[0] in machines]
    assert len(texts) == len(hpcg_records())
    for first, second in combinations(map(Text.get_window_extent, texts), 2):
        assert not first.overlaps(second), (first, second)


def test_the_frame_holds_all_readings() -> None:
    low, high = plot_trends({"small": 1e12, "large": 1e25}).axes[0].get_ylim()
    assert low < 1e12
    assert high > 1e25


def test_heights_apart_are_moved_no_more_than_they_must() -> None:
    assert _spread_out([0.0, 10.0, 20.0], 5.0) == [0.0, 10.0, 20.0]
    assert _spread_out([0.0, 1.0], 5.0) == [-2.0, 3.0]
    crowded = _spread_out([0.0, 1.0, 2.0, 30.0, 31.0], 5.0)
    assert crowded == [-4.0, 1.0, 6.0, 28.0, 33.0]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="readings is empty"):
        plot_trends({})
    with pytest.raises(ValueError, match=r"readings\['odd'\]=0"):
        plot_trends({"odd": 0})
