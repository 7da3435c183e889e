"""The essay's estimate of the brain, from the modules' own counts, and the evidence against it."""

from neuroconv.brain.estimate import Estimate, Sensitivity, Swing, estimate_brain
from neuroconv.brain.inputs import Correlation, Input, Inputs
from neuroconv.brain.quantity import Quantity
from neuroconv.brain.readings import READINGS, Reading
from neuroconv.brain.report import BrainReport
from neuroconv.brain.setting import default_inputs, read_inputs

__all__ = [
    "READINGS", "BrainReport", "Correlation", "Estimate", "Input", "Inputs", "Quantity", "Reading",
    "Sensitivity", "Swing", "default_inputs", "estimate_brain", "read_inputs",
]  # fmt: skip
