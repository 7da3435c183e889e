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
from neuroconv.comparison.train import Estimate, ModelResult, compare, mean_interval

__all__ = [
    "Estimate", "Matched", "ModelResult", "compare", "count_axons", "count_flops",
    "linear_baseline", "match_axons", "match_flops", "match_parameters", "mean_interval",
]  # fmt: skip
