"""The cells: every preset builds a population that has its numbers, the full Purkinje cell too."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.layers import (
    Cable,
    LastStep,
    PoissonDropout,
    PoissonSpikes,
    ReleaseOrWait,
    SparseSynapses,
    Taps,
    TreeShape,
)
from neuroconv.layers.poisson import DropoutState
from neuroconv.neurons import (
    CELL_CLASSES,
    PRESETS,
    DeepNuclear,
    Golgi,
    Granule,
    Population,
    Purkinje,
    Pyramidal,
)
from neuroconv.neurons.stages import is_absent

BOTH = ("dettmers2015", "literature")


def test_a_class_for_every_cell_and_a_cell_for_every_class() -> None:
    assert {cell for cell, _ in PRESETS} == set(CELL_CLASSES)
    assert all(kind.cell == cell for cell, kind in CELL_CLASSES.items())
    assert set(CELL_CLASSES.values()) == {Granule, Purkinje, DeepNuclear, Golgi, Pyramidal}


@pytest.mark.parametrize("key", PRESETS, ids="-".join)
def test_a_cell_is_built_with_its_presets_numbers(key: tuple[str, Any]) -> None:
    cell, variant = key
    numbers = PRESETS[key]
    with torch.device("meta"):
        cells = CELL_CLASSES[cell](300, 2, variant=variant)
    sites, dendrites = numbers.sheet_shape
    branches, across, k_time = numbers.filter_shape
    assert cells.physiology(variant) is numbers
    assert cells.synapses.synapses == numbers.synapses
    assert cells.synapses.sheet_shape == cells.dendrites.sheet_shape == (sites, dendrites)
    assert cells.dendrites.weight.shape == (2, k_time, branches, across)
    assert cells.soma.weight.shape == (numbers.soma_time_steps,)
    assert cells.summation.law == numbers.summation
    assert cells.summation.scale == 1 / dendrites
    assert isinstance(cells.output, PoissonDropout)
    assert (cells.output.mean_wait, cells.output.mode) == (numbers.mean_wait, "wait")
    assert isinstance(cells.synapses, SparseSynapses)
    assert cells.synapses.wiring.shape == (2, numbers.synapses)
    # Off by default: what the essay's text does not give a number for.
    assert cells.synapses.signs is None
    assert is_absent(cells.threshold_norm)
    assert is_absent(cells.spike)
    taps = branches * across * k_time
    each = numbers.synapses + taps + dendrites + 1
    assert sum(p.numel() for p in cells.parameters()) == 2 * each + numbers.soma_time_steps


@pytest.mark.parametrize("key", PRESETS, ids="-".join)
def test_a_cell_runs_a_step_on_meta(key: tuple[str, Any]) -> None:
    cell, variant = key
    with torch.device("meta"):
        cells = CELL_CLASSES[cell](300, 2, variant=variant)
        rate, state = cells.stream(torch.empty(1, 300, 1))
        later, _ = cells.stream(torch.empty(1, 300, 1), state)
    assert rate.shape == later.shape == (1, 2, 1)
    assert rate.is_meta
    assert later.is_meta


@pytest.mark.parametrize("variant", BOTH)
def test_a_claw_grips_one_axon(variant: Any) -> None:
    numbers = PRESETS["granule", variant]
    wiring = Granule(60, 5, variant=variant).synapses.get_buffer("wiring")
    sites, dendrites = numbers.sheet_shape
    for row in wiring.tolist():
        claws = [set(row[first : first + sites]) for first in range(0, len(row), sites)]
        assert all(len(claw) == 1 for claw in claws)
        assert len(set.union(*claws)) == dendrites


def test_default_variants() -> None:
    for kind in (Granule, Purkinje, DeepNuclear, Pyramidal):
        assert kind.physiology().variant == "dettmers2015"
    assert Golgi.physiology().variant == "literature"  # of which the essay says nothing
    with torch.device("meta"):
        assert Granule(30, 2).synapses.synapses == 15
        assert Purkinje(30, 2).synapses.synapses == 100_000
        assert Golgi(30, 2).synapses.synapses == PRESETS["golgi", "literature"].synapses
        assert Golgi(30, 2).summation.law == "sublinear"


def test_variants_that_a_cell_does_not_have() -> None:
    with pytest.raises(ValueError, match="variant='dettmers2015': 'golgi' has 'literature' alone"):
        Golgi(30, 2, variant="dettmers2015")
    message = "variant='human': 'purkinje' has 'dettmers2015' and 'literature' alone"
    with pytest.raises(ValueError, match=message):
        Purkinje.physiology("human")  # type: ignore[arg-type]


def test_a_population_of_no_cell_type() -> None:
    with pytest.raises(TypeError, match=r"Population is no cell type; expected .* such as Granule"):
        Population(30, 2)


def test_a_cell_type_of_ones_own_takes_anothers_numbers() -> None:
    class Basket(Population):
        cell = "golgi"

    cells = Basket(20, 3, tree={"sheet": (4, 3), "filter": (2, 3, 3)})
    assert cells.synapses.synapses == 12  # a sheet of one's own is full
    assert cells(torch.rand(2, 20, 5)).shape == (2, 3, 5)


def test_presets_give_way_to_arguments() -> None:
    cells = Golgi(
        20,
        3,
        tree={"sheet": (4, 3), "filter": (2, 3, 3), "synapses": 7},
        wiring={"claw": True},
        soma={"time_steps": 2},
        summation="bistable",
        output={"mean_wait": 0.25},
    )
    assert cells.synapses.synapses == 7
    assert cells.soma.time_steps == 2
    assert cells.summation.law == "bistable"
    assert isinstance(cells.output, PoissonDropout)
    assert cells.output.mean_wait == 0.25
    wiring = cells.synapses.get_buffer("wiring")
    assert all(len(set(row[:4])) == 1 and len(set(row[4:])) == 1 for row in wiring.tolist())


@pytest.mark.parametrize("mode", ["same", "valid", "per_dendrite"])
def test_a_cable_fills_the_filters_at_unit_gain(mode: Any) -> None:
    cable = PRESETS["purkinje", "literature"].cable()
    tree = TreeShape((12, 4), (10, 4, 5), mode=mode)
    cells = Purkinje(20, 3, tree=tree, taps=Taps(cable, equalized_lr=True))
    taps = cells.dendrites.weight * cells.dendrites.tap_unit
    gain = taps.sum((1, 2))
    wanted = torch.ones(3, 4) if mode != "same" else torch.eye(4)[1].expand(3, 4)
    torch.testing.assert_close(gain, wanted)
    assert cells.dendrites.weight.requires_grad
    shape = cable.taps(10, 5)
    torch.testing.assert_close(taps[0, :, :, 1], (shape / shape.sum()).float())
    held = Purkinje(20, 3, tree=tree, taps=Taps(Cable(300.0, 40.0, 50.0, 20.0), trainable=False))
    assert not held.dendrites.weight.requires_grad
    held(torch.rand(2, 20, 5)).sum().backward()
    assert held.dendrites.weight.grad is None
    assert held.synapses.weight is not None
    assert held.synapses.weight.grad is not None


# --- what leaves the neuron


def open_granules(**options: Any) -> Granule:
    cells = Granule(8, 60, **options)
    nn.init.constant_(cells.get_parameter("bias"), 1.0)
    return cells


def test_unit_scope_drops_places_of_the_sheet_and_no_neuron() -> None:
    cells = open_granules(unit_dropout={})
    seen: list[Tensor] = []
    cells.dendrites.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    activity = torch.rand(4, 8, 5) + 0.5
    rate, state = cells.stream(activity)
    assert isinstance(cells.output, PoissonDropout)
    assert cells.output.mean_wait == 0  # nothing is dropped twice
    assert isinstance(state.unit_dropout, DropoutState)
    assert state.unit_dropout.waiting.shape == (4, 60, 4, 4)
    assert (rate > 0).double().mean() > 0.9
    synaptic = cells.synapses(activity)
    filled = synaptic != 0
    dropped = (seen[0][filled] == 0).double().mean().item()
    # The first step fires with probability exp(-1/2), a long run with 2/3.
    assert dropped == pytest.approx(0.35, abs=0.03)
    first = (seen[0][:, :, 0], synaptic[:, :, 0])
    kept = first[0] != 0
    torch.testing.assert_close(first[0][kept], first[1][kept] * torch.tensor(0.5).exp())
    # Places of one neuron are drawn apart from one another.
    share = (seen[0][:, :, 0] == 0).double().mean((2, 3))
    assert ((share > 1 / 16) & (share < 1)).all()
    rest = cells.eval()(activity)
    assert torch.equal(seen[-1], synaptic)
    assert torch.equal(rest, cells(activity))


def test_spikes_leave_as_whole_counts_in_training_and_as_rates_in_evaluation() -> None:
    cells = open_granules(output=PoissonSpikes(dt=3.0))
    activity = torch.rand(4, 8, 5)
    counts = cells(activity)
    assert torch.equal(counts, counts.round())
    assert (counts > 1).any()
    counts.sum().backward()
    assert cells.dendrites.weight.grad is not None
    assert cells.dendrites.weight.grad.any()
    potential, _ = cells.eval().somatic_potential(activity)
    torch.testing.assert_close(cells(activity), 3 * potential.relu())
    network = nn.Sequential(cells, LastStep())
    assert network(activity).shape == (4, 60)


def test_release_or_wait_replaces_the_dropout() -> None:
    cells = open_granules(output=ReleaseOrWait(mean_wait=0.5, wait_ms=20.0, step_ms=5.0))
    activity = torch.rand(4, 8, 9)
    rate, state = cells.stream(activity)
    assert state.output is not None
    silent = (rate == 0).double().mean((0, 1))
    assert silent[0] == pytest.approx(1 - 0.6065, abs=0.1)
    # A neuron that is dropped sleeps for four steps.
    asleep = rate[:, :, 0] == 0
    assert not rate[:, :, 1:4][asleep].any()
    potential, _ = cells.eval().somatic_potential(activity)
    assert (potential > 0).all()
    assert torch.equal(cells.stream(activity)[0], potential)
    torch.testing.assert_close(cells(activity), potential)  # as one stage, in another order


def test_the_default_output_is_the_cells_waits() -> None:
    cells = open_granules()
    rate = cells(torch.rand(8, 8, 30))
    assert (rate[:, :, 10:] == 0).double().mean().item() == pytest.approx(1 / 3, abs=0.03)
