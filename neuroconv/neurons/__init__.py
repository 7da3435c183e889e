"""Neurons: populations of cells, and granule cells as an image layer."""

from neuroconv.neurons.convert import Conversion, convert
from neuroconv.neurons.image import GranuleConv2d
from neuroconv.neurons.physiology import (
    GRANULE_DETTMERS2015,
    PURKINJE_DETTMERS2015,
    Physiology,
)
from neuroconv.neurons.population import Granule, Population, Purkinje

__all__ = [
    "GRANULE_DETTMERS2015",
    "PURKINJE_DETTMERS2015",
    "Conversion",
    "Granule",
    "GranuleConv2d",
    "Physiology",
    "Population",
    "Purkinje",
    "convert",
]
