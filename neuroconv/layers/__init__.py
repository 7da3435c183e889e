"""The stages of a neuron as layers: tensors in, tensors out."""

from neuroconv.core.cost import Cost
from neuroconv.kernels.conv import dendritic_conv
from neuroconv.layers.cable import Cable, cable_taps
from neuroconv.layers.dendrite import DendriticConv, DendriticRate, Taps
from neuroconv.layers.poisson import PoissonDropout, PoissonSpikes
from neuroconv.layers.readout import LastStep
from neuroconv.layers.release import ReleaseOrWait
from neuroconv.layers.soma import FiringRate, SomaFilter
from neuroconv.layers.spike import DendriticSpike, dendritic_spike
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses, Synapse, TransmitterSum
from neuroconv.layers.threshold import ThresholdNorm
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.layers.wiring import (
    AllToAll,
    DendriticFields,
    InOrder,
    ParallelFibres,
    Random,
    ReceptiveField,
    dale_signs,
)

__all__ = [
    "AllToAll", "Cable", "Cost", "DendriticConv", "DendriticFields", "DendriticRate",
    "DendriticSpike", "DendriticSummation", "DenseSynapses", "FiringRate", "InOrder", "LastStep",
    "ParallelFibres", "PoissonDropout", "PoissonSpikes", "Random", "ReceptiveField",
    "ReleaseOrWait", "SomaFilter", "SparseSynapses", "Synapse", "Taps", "ThresholdNorm",
    "TransmitterSum", "TreeShape", "cable_taps", "dale_signs", "dendritic_conv", "dendritic_spike",
]  # fmt: skip
