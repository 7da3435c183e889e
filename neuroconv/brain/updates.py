"""The cost of one update of a neuron, and so of a brain in a second.

FLOP/s = sum over cell types of cells x updates per second x FLOP of one update. The modules
themselves state the cost of an update, from sizes alone (`closed_form`).
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from neuroconv.brain.readings import SIZES, Reading
from neuroconv.core.cost import Cost
from neuroconv.kernels.conv import Mode
from neuroconv.layers import TreeShape
from neuroconv.layers.dendrite import DendriticConv
from neuroconv.neurons import CELL_CLASSES

_AXONS = 1_000  # inputs of a whole neuron: sparse wiring costs the same for any number
_CACHED = 1 << 18


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
        return self.branches, self.dendrites, self.time_steps

    def check(self, cell: str) -> "Sizes":
        """Returns the sizes; raises ValueError for a filter that is longer than a dendrite."""
        if self.branches > self.sheet_shape[0]:
            raise ValueError(
                f"{cell}.branches={self.branches} is more than the {self.sheet_shape[0]} sites "
                f"that {cell}.synapses={self.synapses} take on each of {cell}.dendrites="
                f"{self.dendrites}; expected more synapses, or fewer dendrites or branches"
            )
        return self


class Update(NamedTuple):
    """The cost of one update of one cell.

    Attributes:
        mac: multiply-adds.
        flop: FLOP that are no multiply-adds; only for a whole neuron.
        ran: algorithm of most multiply-adds: "convolution", "fft", "matmul"; "" for the essay's.
    """

    mac: int
    flop: int = 0
    ran: str = ""


def update_cost(reading: Reading, cell: str, sizes: Sizes, through: Sizes | None = None) -> Update:
    """Returns the cost of one update of one cell, as its modules state it.

    Args:
        reading: what is counted.
        cell: "purkinje", "granule" or "pyramidal".
        sizes: of its dendritic tree.
        through: sizes of another tree, whose filter the inputs pass through.

    Raises:
        ValueError: sizes that do not fit together.
    """
    sizes.check(cell)
    if through is not None:
        through.check("purkinje")
    if reading.algorithm == "linear":
        outputs = sizes.time_steps if reading.steps == "window" else 1
        return Update(sizes.synapses * sizes.time_steps * outputs, ran="matmul")
    if reading.scope == "dendrites":
        tree = sizes if through is None else through
        costs = _tree_costs(tree, sizes.synapses, reading.padding)
    else:
        costs = _neuron_costs(cell, sizes, reading.padding)
    mac = flop = 0
    ran = ""
    for cost in costs[reading.steps == "last"]:
        if cost.essay is not None:
            mac += _column(cost, reading.algorithm)
            ran = _ran(cost, reading.algorithm)
        else:
            mac += sum(cost.macs.values())
            flop += cost.pointwise
    return Update(mac, flop, ran)


def update_of(reading: Reading, cell: str, values: Mapping[str, float]) -> Update:
    """Returns the cost of one update of one cell, the inputs at these values.

    Raises:
        ValueError: sizes that do not fit together.
    """
    through = _sizes("purkinje", values) if _borrows(reading, cell) else None
    return update_cost(reading, cell, _sizes(cell, values), through)


def flop_per_second(reading: Reading, values: Mapping[str, float]) -> dict[str, float]:
    """Returns the FLOP/s of each cell type; inputs that are integers give an exact integer.

    Raises:
        ValueError: sizes that do not fit together.
    """
    clock, flop_per_mac = values[reading.clock_input], values["flop_per_mac"]
    result = {}
    for cell in reading.cells:
        cost = update_of(reading, cell, values)
        result[cell] = values[f"{cell}.cells"] * clock * (flop_per_mac * cost.mac + cost.flop)
    return result


def sampled_flop_per_second(reading: Reading, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the FLOP/s of all cells together for each draw of the inputs, (samples,).

    Raises:
        ValueError: sizes that do not fit together.
    """
    clock, flop_per_mac = draws[reading.clock_input], draws["flop_per_mac"]
    total = np.zeros_like(clock)
    for cell in reading.cells:
        names = [f"{cell}.{what}" for what in SIZES] + ["time_steps"]
        if _borrows(reading, cell):
            names += [f"purkinje.{what}" for what in SIZES]
        # Equal trees are counted once.
        sizes = np.stack([draws[name] for name in names])
        kinds, kind = np.unique(sizes, axis=1, return_inverse=True)
        mac, flop = np.empty(kinds.shape[1]), np.empty(kinds.shape[1])
        for i, column in enumerate(kinds.T.tolist()):
            cost = update_of(reading, cell, dict(zip(names, column, strict=True)))
            mac[i], flop[i] = cost.mac, cost.flop
        kind = kind.reshape(-1)
        total += draws[f"{cell}.cells"] * clock * (flop_per_mac * mac[kind] + flop[kind])
    return total


def _sizes(cell: str, values: Mapping[str, float]) -> Sizes:
    steps = int(values["time_steps"])
    synapses, dendrites, branches = (int(values[f"{cell}.{what}"]) for what in SIZES)
    return Sizes(synapses, dendrites, branches, steps)


def _borrows(reading: Reading, cell: str) -> bool:
    return cell == "granule" and reading.granule_filter == "purkinje"


def _column(cost: Cost, algorithm: str) -> int:
    column: int | None = getattr(cost, algorithm)
    assert column is not None
    return column


def _ran(cost: Cost, algorithm: str) -> str:
    if algorithm == "executed":
        return max(cost.macs, key=lambda family: cost.macs[family])
    return "convolution" if algorithm == "direct" else ""


@lru_cache(_CACHED)
def _tree_costs(
    tree: Sizes, synapses: int, padding: Mode
) -> tuple[tuple[Cost, ...], tuple[Cost, ...]]:
    """Returns the costs of a window, and of the one new step of a stream.

    They are those of `Population.closed_form`: a Fourier transform reads the remembered steps once
    more for the new one.
    """
    with torch.device("meta"):
        layer = DendriticConv(
            1, TreeShape(tree.sheet_shape, tree.filter_shape, mode=padding), bias=False
        )
    sheet = torch.Size((1, 1, tree.time_steps, *tree.sheet_shape))
    return layer.closed_form(sheet, synapses), layer.closed_form(sheet, synapses, 1)


@lru_cache(_CACHED)
def _neuron_costs(
    cell: str, sizes: Sizes, padding: Mode
) -> tuple[tuple[Cost, ...], tuple[Cost, ...]]:
    """Returns the costs of all stages: of a window, and of the one new step of a stream."""
    with torch.device("meta"):
        neuron = CELL_CLASSES[cell](
            _AXONS + sizes.dendrites,  # each dendrite of a granule cell has one axon
            1,
            tree={
                "sheet": sizes.sheet_shape,
                "filter": sizes.filter_shape,
                "synapses": sizes.synapses,
                "mode": padding,
            },
        )
    shape: Any = (1, neuron.in_features)
    window = neuron.closed_form(torch.Size((*shape, sizes.time_steps)))
    return window, neuron.closed_form(torch.Size((*shape, 1)), resumed=True)
