"""Comparisons on equal terms: networks matched in size or cost."""

from neuroconv.comparison.match import count_flops, match_flops, match_parameters

__all__ = ["count_flops", "match_flops", "match_parameters"]
