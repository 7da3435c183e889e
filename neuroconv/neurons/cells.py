"""The cells: a population each, with the presets of its type."""

from collections.abc import Mapping
from types import MappingProxyType

from neuroconv.neurons.population import Population


class Granule(Population):
    """Cerebellar granule cells: 4 dendrites, 15 synapses from 4 axons, a 3x4x5 filter.

    More than half of the brain's neurons, and its smallest: a dendrite's claw grips one mossy
    fibre, and the T-shaped axon runs on to the Purkinje cells. See `Population` for arguments and
    shapes.
    """

    cell = "granule"


class Purkinje(Population):
    """Purkinje cells: 1,000 dendrites, 100,000 synapses, a 10x1000x5 filter, linear summation.

    Smaller ones are made with `sheet_shape` and `filter_shape`. See `Population` for arguments and
    shapes.
    """

    cell = "purkinje"


class DeepNuclear(Population):
    """Neurons of the deep cerebellar nuclei, which bundle Purkinje cells and send the result on.

    See `Population` for arguments and shapes.
    """

    cell = "deep_nuclear"


class Golgi(Population):
    """Golgi cells, which listen to granule cells and inhibit them: the code stays sparse.

    See `Population` for arguments and shapes.
    """

    cell = "golgi"


class Pyramidal(Population):
    """Pyramidal cells of the cortex: 5,000 to 15,000 synapses by the essay.

    See `Population` for arguments and shapes.
    """

    cell = "pyramidal"


CELL_CLASSES: Mapping[str, type[Population]] = MappingProxyType(
    {each.cell: each for each in (Granule, Purkinje, DeepNuclear, Golgi, Pyramidal)}
)
