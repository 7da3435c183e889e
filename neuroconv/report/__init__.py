"""Plots and the HTML page, drawn from plain data."""

from neuroconv.report.entry import DendriteCost, Entry, against_linear, counting, finding, findings
from neuroconv.report.filters import dendritic_filters
from neuroconv.report.page import inline_svg, write_report
from neuroconv.report.plots import error_against_cost, learning_curves

__all__ = [
    "DendriteCost", "Entry", "against_linear", "counting", "dendritic_filters",
    "error_against_cost", "finding", "findings", "inline_svg", "learning_curves", "write_report",
]  # fmt: skip
