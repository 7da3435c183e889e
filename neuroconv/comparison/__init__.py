"""Comparisons on equal terms: match a network's size or cost, train, count, and report.

`neuroconv.comparison.page`, which draws, is not imported here: matplotlib is slow to import.
"""

from neuroconv.comparison.linear import linear_baseline
from neuroconv.comparison.match import (
    Matched,
    count_axons,
    count_flops,
    match_axons,
    match_flops,
    match_parameters,
)
from neuroconv.comparison.statistics import Estimate, estimate, holm, verdict
from neuroconv.comparison.train import ModelResult, compare
from neuroconv.comparison.tune import Search, Trial, search_settings

__all__ = [
    "Estimate", "Matched", "ModelResult", "Search", "Trial", "compare", "count_axons",
    "count_flops", "estimate", "holm", "linear_baseline", "match_axons", "match_flops",
    "match_parameters", "search_settings", "verdict",
]  # fmt: skip
