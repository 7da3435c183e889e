"""The cost of a model: three counters, memory, time, energy. The convention is in `rules`."""

from neuroconv.flops.axons import Axons, count_axons
from neuroconv.flops.closed_forms import count_closed_form
from neuroconv.flops.energy import NODES, Energy, estimate_energy
from neuroconv.flops.exact import count_exact
from neuroconv.flops.fvcore_counter import analyse_fvcore, count_fvcore
from neuroconv.flops.machine.firing import firing_shares
from neuroconv.flops.machine.roofline import Peak, Placement, measure_peak, place
from neuroconv.flops.machine.timing import Timing, measure_time
from neuroconv.flops.machine.traffic import Traffic, measure_traffic
from neuroconv.flops.metrics import in_units
from neuroconv.flops.profile import Profile, UncountedWarning, profile
from neuroconv.flops.record import COUNTERS, Amounts
from neuroconv.flops.rules import Counts
from neuroconv.flops.table import operator_rules, operators_table, stage_table, summary_table

__all__ = [
    "COUNTERS", "NODES", "Amounts", "Axons", "Counts", "Energy", "Peak", "Placement", "Profile",
    "Timing", "Traffic", "UncountedWarning", "analyse_fvcore", "count_axons", "count_closed_form",
    "count_exact", "count_fvcore", "estimate_energy", "firing_shares", "in_units", "measure_peak",
    "measure_time", "measure_traffic", "operator_rules", "operators_table", "place", "profile",
    "stage_table", "summary_table",
]  # fmt: skip
