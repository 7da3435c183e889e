"""FLOP/s = sum over cell types of cells x updates per second x FLOP of one update.

The cost of an update is the modules' own `closed_form`, from sizes alone.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from neuroconv.brain.readings import SIZES, Reading
from neuroconv.core.cost import Cost
from neuroconv.layers import TreeShape
from neuroconv.layers.dendrite import DendriticConv
from neuroconv.neurons import CELL_CLASSES

_AXONS = 1_000  # inputs of a whole neuron: sparse wiring costs the same for any number


class Sizes(NamedTuple):
    """Sizes of a dendritic tree: its sheet, and a filter that spans all its dendrites."""

    synapses: int
    dendrites: int
    branches: int
    time_steps: int

    @property
    def sheet_shape(self) -> tuple[int, int]:
        """(sites, dendrites), with the fewest sites on a dendrite that hold the synapses."""
        return math.ceil(self.synapses / self.dendrites), self.dendrites

    @property
    def filter_shape(self) -> tuple[int, int, int]:
        """(branches, dendrites, time steps)."""
        return self.branches, self.dendrites, self.time_steps

    def tree(self, padding: str) -> dict[str, Any]:
        """Returns a population's argument `tree`."""
        shapes = {"sheet": self.sheet_shape, "filter": self.filter_shape}
        return {**shapes, "synapses": self.synapses, "mode": padding}


class Update(NamedTuple):
    """The cost of one update of one cell."""

    mac: int
    flop: int = 0  # of everything but multiply-adds; only for a whole neuron
    ran: str = ""  # family of most multiply-adds: "convolution", "fft", "matmul"


def sizes_of(cell: str, values: Mapping[str, float]) -> Sizes:
    """Returns the sizes of a cell's dendritic tree at values of the inputs.

    Raises:
        ValueError: a filter that is longer than a dendrite.
    """
    names = (*(f"{cell}.{size}" for size in SIZES), "time_steps")
    sizes = Sizes(*(int(values[name]) for name in names))
    if sizes.branches > sizes.sheet_shape[0]:
        raise ValueError(
            f"{cell}.branches={sizes.branches} is more than the {sizes.sheet_shape[0]} sites "
            f"that {cell}.synapses={sizes.synapses} take on each of {cell}.dendrites="
            f"{sizes.dendrites}; expected more synapses, or fewer dendrites or branches"
        )
    return sizes


def update_of(reading: Reading, cell: str, values: Mapping[str, float]) -> Update:
    """Returns the cost of one update of one cell at values of the inputs."""
    sizes = sizes_of(cell, values)
    tree = sizes_of("purkinje", values) if reading.borrows(cell) else sizes
    resumed = reading.steps == "last"
    if reading.algorithm == "linear":
        outputs = 1 if resumed else sizes.time_steps
        return Update(sizes.synapses * sizes.time_steps * outputs, ran="matmul")
    if reading.scope == "dendrites":
        costs = _tree_costs(tree, sizes.synapses, reading.padding, resumed)
    else:
        costs = _neuron_costs(cell, sizes, reading.padding, resumed)
    (dendrites,) = (cost for cost in costs if cost.essay is not None)
    others = [cost for cost in costs if cost is not dendrites]
    ran = "convolution" if reading.algorithm == "direct" else ""
    if reading.algorithm not in ("essay", "direct"):
        ran = max(dendrites.macs, key=lambda family: dendrites.macs[family])
    mac = getattr(dendrites, reading.algorithm) + sum(sum(cost.macs.values()) for cost in others)
    return Update(mac, sum(cost.pointwise for cost in others), ran)


def flop_per_second(reading: Reading, values: Mapping[str, float]) -> dict[str, float]:
    """Returns the FLOP/s of each cell type; inputs that are integers give an exact integer."""
    clock = reading.times * values[reading.clock_input]
    flop_per_mac = values["flop_per_mac"]
    costs = {cell: update_of(reading, cell, values) for cell in reading.cells}
    return {
        cell: values[f"{cell}.cells"] * clock * (flop_per_mac * cost.mac + cost.flop)
        for cell, cost in costs.items()
    }


def sampled_flop_per_second(reading: Reading, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the FLOP/s of all cells together for each draw of the inputs, (samples,)."""
    clock = reading.times * draws[reading.clock_input]
    flop_per_mac = draws["flop_per_mac"]
    total = np.zeros_like(clock)
    for cell in reading.cells:
        trees = (cell, "purkinje") if reading.borrows(cell) else (cell,)
        names = [*(f"{tree}.{size}" for tree in trees for size in SIZES), "time_steps"]
        # Equal trees are counted once.
        sizes, index = np.unique([draws[name] for name in names], axis=1, return_inverse=True)
        rows = (dict(zip(names, column, strict=True)) for column in sizes.T.tolist())
        costs = [update_of(reading, cell, row)[:2] for row in rows]
        mac, flop = np.array(costs, dtype=float)[index.reshape(-1)].T
        total += draws[f"{cell}.cells"] * clock * (flop_per_mac * mac + flop)
    return total


@lru_cache(1 << 18)
def _tree_costs(tree: Sizes, synapses: int, padding: str, resumed: bool) -> tuple[Cost, ...]:
    """Returns the dendrites' costs of a window, or of the one new step of a stream."""
    shape = TreeShape(tree.sheet_shape, tree.filter_shape, mode=padding)  # type: ignore[arg-type]
    with torch.device("meta"):
        layer = DendriticConv(1, shape, bias=False)
    sheet = torch.Size((1, 1, tree.time_steps, *tree.sheet_shape))
    return layer.closed_form(sheet, synapses, *((1,) if resumed else ()))


@lru_cache(1 << 18)
def _neuron_costs(cell: str, sizes: Sizes, padding: str, resumed: bool) -> tuple[Cost, ...]:
    """Returns all stages' costs of a window, or of the one new step of a stream."""
    axons = _AXONS + sizes.dendrites  # each dendrite of a granule cell has one axon
    with torch.device("meta"):
        neuron = CELL_CLASSES[cell](axons, 1, tree=sizes.tree(padding))
    window = torch.Size((1, axons, 1 if resumed else sizes.time_steps))
    return neuron.closed_form(window, resumed=resumed)
