"""Presets: the numbers of a cell type, each with the place that it was read from.

The variant `dettmers2015` holds the numbers of Tim Dettmers, "The Brain vs Deep Learning, Part I:
Computational Complexity - Or Why the Singularity Is Nowhere Near", 27 July 2015. A source names the
essay's section; what the essay leaves open and this project had to choose is marked "chosen".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_FILTER = "Dettmers 2015, 'Estimating the cerebellar filter sizes'"
_DIMENSIONS = "Dettmers 2015, 'Estimating the cerebellar input/output dimensions'"
_TOGETHER = "Dettmers 2015, 'Putting it all together'"
_LNP = "Dettmers 2015, 'Back to the LNP model', figure of the Poisson(0.5) distribution"


@dataclass(frozen=True)
class Physiology:
    """The numbers of one cell type.

    Attributes:
        cell: name of the cell type.
        variant: name of the set of numbers.
        cells_in_brain: how many a human brain has.
        synapses: synapses of one cell.
        sheet_shape: (sites, dendrites), the places where synapses can sit.
        filter_shape: (branches, dendrites, time_steps) of the dendritic filter.
        soma_time_steps: taps of the soma's temporal filter.
        claw: whether the sites of a dendrite share one axon.
        outputs: output connections of one cell.
        mean_wait: mean waiting periods before firing, in time steps.
        sources: for each field above that holds a number, where it comes from.
    """

    cell: str
    variant: str
    cells_in_brain: int
    synapses: int
    sheet_shape: tuple[int, int]
    filter_shape: tuple[int, int, int]
    soma_time_steps: int
    claw: bool
    outputs: int
    mean_wait: float
    sources: Mapping[str, str]


GRANULE_DETTMERS2015 = Physiology(
    cell="granule",
    variant="dettmers2015",
    cells_in_brain=50_000_000_000,
    synapses=15,
    sheet_shape=(4, 4),
    filter_shape=(3, 4, 5),
    soma_time_steps=5,
    claw=True,
    outputs=100,
    mean_wait=0.5,
    sources=MappingProxyType(
        {
            "cells_in_brain": f"{_TOGETHER}: 50 of the brain's 86 billion neurons",
            "synapses": f"{_DIMENSIONS}: about four axons with 3 to 4 synapses each, about 15",
            "sheet_shape": f"{_TOGETHER}: about 4 dendrites; 4 sites on each are chosen, the "
            "fewest that hold 15 synapses, the last place left empty",
            "filter_shape": f"{_FILTER}: 3 branches on each of 4 dendrites, 5 time steps",
            "soma_time_steps": f"{_FILTER}: a 1x1x5 filter in the soma, the same for all neurons",
            "claw": f"{_DIMENSIONS}: an axon's synapses sit on one dendrite's claw",
            "outputs": f"{_DIMENSIONS}: about 100 synapses with Purkinje cells",
            "mean_wait": _LNP,
        }
    ),
)

PURKINJE_DETTMERS2015 = Physiology(
    cell="purkinje",
    variant="dettmers2015",
    cells_in_brain=100_000_000,
    synapses=100_000,
    sheet_shape=(100, 1000),
    filter_shape=(10, 1000, 5),
    soma_time_steps=5,
    claw=False,
    outputs=1000,
    mean_wait=0.5,
    sources=MappingProxyType(
        {
            "cells_in_brain": f"{_TOGETHER}: about 100 million Purkinje cells",
            "synapses": f"{_DIMENSIONS}: about 100,000 inputs (75,000 would be conservative)",
            "sheet_shape": f"{_TOGETHER}: about 1,000 dendrites; 100 sites on each are chosen, "
            "the synapses divided by the dendrites",
            "filter_shape": f"{_FILTER}: about 10x1000x5",
            "soma_time_steps": f"{_FILTER}: a 1x1x5 filter in the soma, the same for all neurons",
            "claw": f"{_DIMENSIONS}: each of the 100,000 inputs is a granule cell's own axon",
            "outputs": f"{_DIMENSIONS}: about 1,000 connections in the deep nuclei",
            "mean_wait": _LNP,
        }
    ),
)
