"""The stages of a neuron as layers: tensors in, tensors out."""

from neuroconv.core.cost import Cost
from neuroconv.kernels.conv import dendritic_conv
from neuroconv.layers.cable import Cable
from neuroconv.layers.dendrite import DendriticConv, DendriticRate
from neuroconv.layers.poisson import PoissonDropout, PoissonSpikes, ReleaseOrWait
from neuroconv.layers.readout import LastStep
from neuroconv.layers.soma import FiringRate, SomaFilter
from neuroconv.layers.spike import DendriticSpike, dendritic_spike
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses
from neuroconv.layers.threshold import ThresholdNorm
from neuroconv.layers.wiring import (
    dale_signs,
    parallel_fibre_wiring,
    parallel_wiring,
    receptive_field_wiring,
    sparse_wiring,
)

__all__ = [
    "Cable",
    "Cost",
    "DendriticConv",
    "DendriticRate",
    "DendriticSpike",
    "DendriticSummation",
    "DenseSynapses",
    "FiringRate",
    "LastStep",
    "PoissonDropout",
    "PoissonSpikes",
    "ReleaseOrWait",
    "SomaFilter",
    "SparseSynapses",
    "ThresholdNorm",
    "dale_signs",
    "dendritic_conv",
    "dendritic_spike",
    "parallel_fibre_wiring",
    "parallel_wiring",
    "receptive_field_wiring",
    "sparse_wiring",
]
