"""Counting what a model costs: `profile`, its three counters, and their tables.

The convention is stated once, in `neuroconv.flops.rules`.
"""

from neuroconv.flops.closed_forms import ClosedForm, StageRow, count_closed_form
from neuroconv.flops.exact import count_exact
from neuroconv.flops.fvcore_adapter import count_fvcore
from neuroconv.flops.profile import COUNTERS, Profile, profile
from neuroconv.flops.rules import CONTRACTIONS, OTHERS, Counts
from neuroconv.flops.table import stage_table, summary_table

__all__ = [
    "CONTRACTIONS",
    "COUNTERS",
    "OTHERS",
    "ClosedForm",
    "Counts",
    "Profile",
    "StageRow",
    "count_closed_form",
    "count_exact",
    "count_fvcore",
    "profile",
    "stage_table",
    "summary_table",
]
