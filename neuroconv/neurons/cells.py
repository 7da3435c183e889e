"""The cell types, each a `Population` with the presets of its type."""

from collections.abc import Mapping
from types import MappingProxyType

from neuroconv.neurons.population import Population


class Granule(Population):
    """Cerebellar granule cells: 4 dendrites, 15 synapses from 4 axons, a 3x4x5 filter.

    More than half of the brain's neurons, and its smallest: a dendrite's claw grips one mossy
    fibre, and the T-shaped axon runs on to the Purkinje cells.
    """

    cell = "granule"


class Purkinje(Population):
    """Purkinje cells: 1,000 dendrites, 100,000 synapses, a 10x1000x5 filter, linear summation."""

    cell = "purkinje"


class DeepNuclear(Population):
    """Neurons of the deep cerebellar nuclei, on which Purkinje cells converge: the output."""

    cell = "deep_nuclear"


class Golgi(Population):
    """Golgi cells: excited by granule cells, which they inhibit, so that the code is sparse."""

    cell = "golgi"


class Pyramidal(Population):
    """Pyramidal cells of the cortex: 5,000 to 15,000 synapses according to the essay."""

    cell = "pyramidal"


CELL_CLASSES: Mapping[str, type[Population]] = MappingProxyType(
    {kind.cell: kind for kind in (Granule, Purkinje, DeepNuclear, Golgi, Pyramidal)}
)
