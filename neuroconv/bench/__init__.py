"""How fast the neuron is: every comparison in one run, with the tools that time it.

The convention: variants of a job are timed in turns in one process; results are returned whole,
gradients included, and kept; weights change before each call.
"""

from neuroconv.bench.growth import Exponent, fit_exponent
from neuroconv.bench.memory import peak_bytes
from neuroconv.bench.record import Bench, Figure, Row
from neuroconv.bench.replay import CONVOLUTIONS, TRANSFORMS, operators_alone
from neuroconv.bench.run import CUDA_SECTIONS, SECTIONS, BenchReport, run_bench, section_names
from neuroconv.bench.table import section_table, verdict
from neuroconv.bench.turns import Failure, Job, Ratio, Turns, first_line, ratio, time_in_turns

__all__ = [
    "CONVOLUTIONS",
    "CUDA_SECTIONS",
    "SECTIONS",
    "TRANSFORMS",
    "Bench",
    "BenchReport",
    "Exponent",
    "Failure",
    "Figure",
    "Job",
    "Ratio",
    "Row",
    "Turns",
    "first_line",
    "fit_exponent",
    "operators_alone",
    "peak_bytes",
    "ratio",
    "run_bench",
    "section_names",
    "section_table",
    "time_in_turns",
    "verdict",
]
