"""The tornado plot: a bar for each end of each range, told apart without colour."""

import io

import matplotlib.image
import pytest
from matplotlib.patches import Rectangle

from neuroconv.brain import Swing
from neuroconv.report.tornado import plot_tornado

SWINGS = (
    Swing("rate_hz", "1/s", (0.1, 5), (10**20, 5 * 10**21)),
    Swing("purkinje.cells", "cells", (15_000_000, 100_000_000), (15 * 10**19, 10**21)),
)
SHARES = {"rate_hz": 0.75, "purkinje.cells": 0.25}


def test_bars_reach_from_the_value_to_both_ends() -> None:
    figure = plot_tornado(SWINGS, 10**21, shares=SHARES, title="a title")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
    assert spans == [(1e20, 1e21), (1.5e20, 1e21), (1e21, 1e21), (1e21, 5e21)]
    assert {bool(bar.get_hatch()) for bar in bars} == {True, False}
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top


def test_ends_units_and_shares_are_written() -> None:
    figure = plot_tornado(SWINGS, 10**21, shares={"rate_hz": 0.75}, title="a title")
    (axes,) = figure.axes
    written = {text.get_text() for text in axes.texts}
    assert {"0.1", "5", "1.5e7", "1e8", "0.750", "-"} <= written
    assert "all at their values: 1.000e21 FLOP/s" in written
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["rate_hz\n(1/s)", "purkinje.cells\n(cells)"]


def test_it_is_drawn_and_differs_in_grey() -> None:
    stream = io.BytesIO()
    plot_tornado(SWINGS, 10**21, shares=SHARES, title="a title").savefig(stream, format="png")
    stream.seek(0)
    image = matplotlib.image.imread(stream)[..., :3].mean(2)
    assert image.std() > 0.05


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="no input has a range"):
        plot_tornado((), 10**21, shares={}, title="a title")
