"""What neurons state that they cost is what runs, to the last FLOP, for every option."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
import torch

from neuroconv.flops import Counts, count_closed_form, count_exact
from neuroconv.kernels.population import fuses
from neuroconv.layers import Cost, DendriticSpike
from neuroconv.neurons import (
    Granule,
    GranuleConv2d,
    MixedPopulation,
    Population,
    Purkinje,
)  # fmt: skip
from tests.flops.calling import Resumed


def macs(rows: Iterable[Cost]) -> dict[str, int]:
    return dict(+sum((Counter(row.macs) for row in rows), Counter()))


def check(rows: tuple[Cost, ...], counted: Counts) -> None:
    assert counted.uncounted == {}
    assert macs(rows) == counted.macs
    assert sum(row.pointwise for row in rows) == sum(counted.flops.values())
    assert len({row.stage for row in rows}) == len(rows)


def test_a_population_states_all_that_runs(population: Population) -> None:
    x = torch.zeros(3, population.in_features, 5, dtype=torch.float64)
    check(population.closed_form(x.shape), count_exact(population, x))


@pytest.mark.parametrize("reduction", ["mean", "sum", "max"])
@pytest.mark.parametrize("mode", ["same", "valid", "per_dendrite"])
def test_a_population_as_one_stage_states_all_that_runs(mode: Any, reduction: Any) -> None:
    tree = {"sheet": (3, 4), "filter": (2, 4, 3), "mode": mode}
    cells = Granule(9, 5, tree=tree, rate={"reduction": reduction}, taps={"backend": "matmul"})
    cells = cells.double().eval()
    x = torch.zeros(3, 9, 5, dtype=torch.float64)
    assert fuses(cells, 3, 5)
    check(cells.closed_form(x.shape), count_exact(cells, x))


def test_a_resumed_population_reads_its_state_once_more(population: Population) -> None:
    x = torch.zeros(2, population.in_features, 2, dtype=torch.float64)
    state = population.stream(x)[1]
    counted = count_exact(Resumed(population), (x, state.dendrites, state.soma))
    rows = population.closed_form(x.shape, resumed=True)
    check(rows, counted)


def test_an_image_layer_states_all_that_runs(image_layer: GranuleConv2d) -> None:
    frames = torch.zeros(2, image_layer.in_channels, 4, 5, 6, dtype=torch.float64)
    check(image_layer.closed_form(frames.shape), count_exact(image_layer, frames))
    still = frames[:, :, 0]
    check(image_layer.closed_form(still.shape), count_exact(image_layer, still))


def test_the_full_purkinje_cell() -> None:
    with torch.device("meta"):
        cells = Purkinje(
            300, 1, tree={"mode": "valid"}, threshold=3.0, taps={"backend": "direct"},
            norm="both", spike=DendriticSpike(),
        )  # fmt: skip
    x = torch.zeros(1, 300, 5)
    rows = cells.closed_form(x.shape)
    check(rows, count_exact(cells, x))
    assert macs(rows)["convolution"] == 5 * 91 * 50_000


def test_the_counter_of_models_takes_what_neurons_state() -> None:
    mixed = MixedPopulation(
        Purkinje(6, 2, tree={"sheet": (4, 3), "filter": (2, 3, 3)}),
        Purkinje(6, 3, tree={"sheet": (3, 2), "filter": (2, 2, 2)}, norm="both"),
    )
    x = torch.zeros(3, 6, 5)
    closed, exact = count_closed_form(mixed, x), count_exact(mixed, x)
    assert closed.counts.macs == exact.macs
    assert sum(closed.counts.flops.values()) == sum(exact.flops.values())
    assert closed.counts.uncounted == {}


@pytest.mark.parametrize("transmitters", [1, 3])
def test_a_neuron_has_one_tree_and_as_many_synapses_as_places(transmitters: int) -> None:
    tree = {"sheet": (4, 3), "filter": (2, 3, 3), "synapses": 7}
    cells = Purkinje(6, 4, tree=tree, synapse={"transmitters": transmitters})
    rows = {row.stage: row for row in cells.closed_form(torch.Size((2, 6, 5)))}
    assert sum(row.neurons for row in rows.values()) == 4
    assert sum(row.synapses for row in rows.values()) == 4 * 7
    # Each transmitter has a filter of its own.
    assert rows["dendrites"].essay == 2 * 4 * transmitters * 7 * 5 * 18
    assert rows["dendrites"].direct == 2 * 4 * transmitters * 12 * 5 * 18
