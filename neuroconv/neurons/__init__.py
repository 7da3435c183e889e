"""Neurons: populations of cells, and granule cells as an image layer."""

from neuroconv.neurons.cells import CELL_CLASSES, DeepNuclear, Golgi, Granule, Purkinje, Pyramidal
from neuroconv.neurons.convert import Conversion, convert
from neuroconv.neurons.fold import Folding, fold
from neuroconv.neurons.graphed import graphed
from neuroconv.neurons.image import GranuleConv2d
from neuroconv.neurons.population import MixedPopulation, Population
from neuroconv.neurons.presets import PRESETS, Physiology, Variant, preset
from neuroconv.neurons.state import NeuronState

__all__ = [
    "CELL_CLASSES", "PRESETS", "Conversion", "DeepNuclear", "Folding", "Golgi", "Granule",
    "GranuleConv2d", "MixedPopulation", "NeuronState", "Physiology", "Population", "Purkinje",
    "Pyramidal", "Variant", "convert", "fold", "graphed", "preset",
]  # fmt: skip
