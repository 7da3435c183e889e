"""The cells: every preset builds a population that has its numbers, the full Purkinje cell too."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.layers import PoissonDropout
from neuroconv.layers.poisson import DropoutState
from neuroconv.neurons import CELL_CLASSES, PRESETS, Granule, Population
from neuroconv.neurons.stages import is_absent


def test_a_class_for_every_cell_and_a_cell_for_every_class() -> None:
    assert {cell for cell, _ in PRESETS} == set(CELL_CLASSES)
    assert all(kind.cell == cell for cell, kind in CELL_CLASSES.items())


@pytest.mark.parametrize("key", PRESETS, ids="-".join)
def test_a_cell_is_built_with_its_presets_numbers(key: tuple[str, Any]) -> None:
    cell, variant = key
    numbers = PRESETS[key]
    with torch.device("meta"):
        cells = CELL_CLASSES[cell](300, 2, variant=variant)
    sites, dendrites = numbers.sheet_shape
    branches, across, k_time = numbers.filter_shape
    assert cells.physiology(variant) is numbers
    assert cells.synapses.sheet_shape == cells.dendrites.sheet_shape == (sites, dendrites)
    assert cells.dendrites.weight.shape == (2, k_time, branches, across)
    assert cells.soma.weight.shape == (numbers.soma_time_steps,)
    assert cells.summation.law == numbers.summation
    assert cells.dendritic_rate.law == numbers.site_summation
    assert cells.summation.scale == 1 / dendrites
    assert (cells.output.mean_wait, cells.output.mode) == (numbers.mean_wait, "wait")
    assert cells.synapses.wiring.shape == (2, numbers.synapses)
    # Off by default: what the essay's text does not give a number for.
    assert cells.synapses.signs is None
    assert is_absent(cells.threshold_norm)
    assert is_absent(cells.spike)
    taps = branches * across * k_time
    trained = numbers.synapses + taps + dendrites + 1
    assert sum(p.numel() for p in cells.parameters()) == 2 * trained + numbers.soma_time_steps
    with torch.device("meta"):
        rate, state = cells.stream(torch.empty(1, 300, 1))
        later, _ = cells.stream(torch.empty(1, 300, 1), state)
    assert rate.shape == later.shape == (1, 2, 1)


def test_a_pyramidal_cells_branches_sum_sigmoidally_and_add_up() -> None:
    """As in Polsky et al. 2004: inputs to one dendrite by a Hill function, dendrites linearly."""
    cells: Any = CELL_CLASSES["pyramidal"](20, 1, variant="literature", tree={"sheet": (4, 7)})

    def current(*active: tuple[int, int]) -> float:
        potential = torch.zeros(1, 1, 1, 4, 7, dtype=torch.float64)
        for site, dendrite in active:
            potential[..., site, dendrite] = 1.2
        return cells.summation(cells.dendritic_rate(potential)).item()

    def hill(mean: float) -> float:
        return 2 * mean**4 / (1 + mean**4)

    alone = current((0, 0))
    assert alone == pytest.approx(hill(1.2 / 4) / 7, rel=1e-12)
    assert current((0, 0), (0, 1)) == pytest.approx(2 * alone, rel=1e-12)  # two dendrites
    assert current((0, 0), (1, 0)) == pytest.approx(hill(2 * 1.2 / 4) / 7, rel=1e-12)
    every = [(site, 0) for site in range(4)]
    assert current(*every, *((s, 1) for s, _ in every)) == pytest.approx(2 * current(*every))


@pytest.mark.parametrize(
    ("stages", "within", "across"),
    [
        ({}, "sigmoidal", "linear"),
        ({"rate": {"reduction": "max"}}, "sigmoidal", "linear"),
        ({"rate": {"law": "sublinear"}}, "sublinear", "linear"),
        ({"rate": {"linear": True}}, "linear", "linear"),
        ({"summation": "supralinear"}, "linear", "supralinear"),  # across dendrites, as ever
        ({"summation": "bistable", "rate": {"law": "bistable"}}, "sigmoidal", "sigmoidal"),
    ],
    ids=str,
)
def test_laws_over_a_presets(stages: Any, within: str, across: str) -> None:
    cells = CELL_CLASSES["pyramidal"](9, 1, variant="literature", tree={"sheet": (4, 7)}, **stages)
    assert (cells.dendritic_rate.law, cells.summation.law) == (within, across)


def test_a_population_of_no_cell_type() -> None:
    with pytest.raises(TypeError, match=r"Population is no cell type; expected .* such as Granule"):
        Population(30, 2)


def test_a_cell_type_of_ones_own_takes_anothers_numbers() -> None:
    class Basket(Population):
        cell = "golgi"

    cells = Basket(20, 3, tree={"sheet": (4, 3), "filter": (2, 3, 3)})
    assert cells.synapses.synapses == 12  # a sheet of one's own is full
    assert cells(torch.rand(2, 20, 5)).shape == (2, 3, 5)


# --- what leaves the neuron


def test_unit_scope_drops_places_of_the_sheet_and_no_neuron() -> None:
    cells = Granule(8, 60, unit_dropout={})
    nn.init.constant_(cells.get_parameter("bias"), 1.0)
    sheets: list[Tensor] = []
    cells.dendrites.register_forward_pre_hook(lambda module, args: sheets.append(args[0]))
    activity = torch.rand(4, 8, 5) + 0.5
    rate, state = cells.stream(activity)
    assert isinstance(cells.output, PoissonDropout)
    assert cells.output.mean_wait == 0  # nothing is dropped twice
    assert isinstance(state.unit_dropout, DropoutState)
    assert state.unit_dropout.waiting.shape == (4, 60, 4, 4)
    assert (rate > 0).double().mean() > 0.9
    synaptic = cells.synapses(activity)
    filled = synaptic != 0
    dropped = (sheets[0][filled] == 0).double().mean().item()
    # The first step fires with probability exp(-1/2), a long run with 2/3.
    assert dropped == pytest.approx(0.35, abs=0.03)
    first, expected = sheets[0][:, :, 0], synaptic[:, :, 0] * torch.tensor(0.5).exp()
    torch.testing.assert_close(first[first != 0], expected[first != 0])
    # Positions of one neuron are drawn apart from one another.
    share = (first == 0).double().mean((2, 3))
    assert ((share > 1 / 16) & (share < 1)).all()
    rest = cells.eval()(activity)
    assert torch.equal(sheets[-1], synaptic)
    assert torch.equal(rest, cells(activity))
