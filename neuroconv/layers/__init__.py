"""The stages of a neuron as layers: tensors in, tensors out."""

from neuroconv.layers.conv import dendritic_conv
from neuroconv.layers.cost import Cost
from neuroconv.layers.dendrite import DendriticConv, DendriticRate, DendriticSummation
from neuroconv.layers.poisson import PoissonDropout
from neuroconv.layers.readout import LastStep
from neuroconv.layers.soma import SomaFilter
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses
from neuroconv.layers.wiring import parallel_wiring, receptive_field_wiring, sparse_wiring

__all__ = [
    "Cost",
    "DendriticConv",
    "DendriticRate",
    "DendriticSummation",
    "DenseSynapses",
    "LastStep",
    "PoissonDropout",
    "SomaFilter",
    "SparseSynapses",
    "dendritic_conv",
    "parallel_wiring",
    "receptive_field_wiring",
    "sparse_wiring",
]
