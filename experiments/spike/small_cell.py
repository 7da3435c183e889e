"""One small Purkinje cell and its run, stage by stage, from one axon to the next.

Shapes: B batch, F axons, N neurons, T time steps, P sites along a dendrite, D dendrites; B and N
are 1 here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from neuroconv import Purkinje
from neuroconv.layers import (
    Cable,
    Cost,
    DendriticSpike,
    PoissonDropout,
    ReleaseOrWait,
    SparseSynapses,
)

# The cell in small; the essay's has 100,000 synapses on 1,000 dendrites. All of it is chosen.
AXONS, STEPS, SITES, DENDRITES = 24, 20, 16, 6
FILTER = (10, DENDRITES, 5)  # the essay's 10 branches, all dendrites, 5 time steps
STEP_MS = 1000 / 30  # the essay's frame
# tau is what the soma of a Purkinje cell shows (Rapp, Segev & Yarom 1994, abstract); that of its
# membrane is twice as long. Its lambda, 489 um for a dendrite 1 um thick, would even out this whole
# sheet in one step: a thirtieth of it makes the spread visible.
CABLE = Cable(length_constant_um=16.3, time_constant_ms=82.0, site_um=10.0, step_ms=STEP_MS)
REST = -0.3  # of a dendrite, below the threshold of its rectifier
SOMA_REST = -0.02
SOMA_TAPS = (1.0, 2.0, 4.0, 8.0, 16.0)  # each step back counts half
WIRING_SEED, ACTIVITY_SEED, CHANCE_SEED = 4, 2015, 6

FOLLOWED, INHIBITORY = 9, 8  # the axon we walk along, and a neighbour that inhibits
NOW = 5  # the step at which sheets are shown
BURSTS = {  # axon: first step, and the rates from there on
    FOLLOWED: (3, (0.5, 0.9, 1.0, 0.9, 0.7, 0.6, 0.4)),
    FOLLOWED + 1: (4, (0.3, 0.6, 0.5, 0.3)),
    INHIBITORY: (4, (0.6, 0.9, 0.6)),
    17: (8, (0.5, 0.9, 0.9, 0.7, 0.6, 0.3)),
    5: (10, (0.6, 0.7, 0.6)),
}


@dataclass(frozen=True)
class Walk:
    """What each stage passes on; batch and neuron, one each, are kept in the stages' own shapes."""

    cell: Purkinje
    activity: Tensor  # (1, F, T)
    synaptic: Tensor  # (1, 1, T, P, D), as the next three
    normal: Tensor
    spread: Tensor
    lifted: Tensor
    dendritic: Tensor  # (1, 1, T, D)
    current: Tensor  # (1, 1, T), as all that follow
    filtered: Tensor
    potential: Tensor
    rate: Tensor
    dropped: Tensor
    released: Tensor
    dropout: PoissonDropout
    release: ReleaseOrWait
    terminals: SparseSynapses
    arriving: Tensor  # (1, 1, T, 4, 1)
    costs: dict[str, tuple[Cost, ...]]


def small_cell() -> Purkinje:
    """In evaluation mode, with the running statistics of quiet axons that now and then fire."""
    torch.manual_seed(ACTIVITY_SEED)
    cell = Purkinje(
        AXONS,
        1,
        tree={"sheet": (SITES, DENDRITES), "filter": FILTER},
        wiring="in_order",
        synapse={"excitatory": 20 / AXONS, "factorized": True, "seed": WIRING_SEED},
        threshold=3.0,
        taps={"cable": CABLE},
        spike=DendriticSpike(strength=0.6, threshold=0.5, window=7),
    ).double()
    assert cell.dendrites.bias is not None
    assert cell.bias is not None
    with torch.no_grad():
        cell.dendrites.bias.fill_(REST)
        cell.bias.fill_(SOMA_REST)
        taps = cell.soma.weight.new_tensor(SOMA_TAPS)
        cell.soma.weight.copy_(taps / taps.sum())
        norm = cell.threshold_norm
        norm.norm.momentum = None  # the plain mean over what is seen
        norm(cell.synapses(_background(64)))
    return cell.eval()


def _background(batch: int) -> Tensor:
    """Rates of axons between 0 and 1, mostly low: (batch, F, T)."""
    return torch.rand(batch, AXONS, STEPS, dtype=torch.float64) ** 4


def axons() -> Tensor:
    """Their activity, (1, F, T): a low background and the bursts."""
    activity = 0.3 * _background(1)
    for axon, (first, rates) in BURSTS.items():
        activity[0, axon, first : first + len(rates)] += activity.new_tensor(rates)
    return activity


def walk() -> Walk:
    """Stage by stage, as `Purkinje` itself calls them; torch's own chance is left as it was."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return _stages()


def _stages() -> Walk:
    cell = small_cell()
    assert cell.bias is not None
    activity = axons()
    synaptic = cell.synapses(activity)
    normal = cell.threshold_norm(synaptic)
    spread = cell.dendrites(normal)
    lifted = cell.spike(spread)
    dendritic = cell.dendritic_rate(lifted)
    current = cell.summation(dendritic)
    filtered = cell.soma(current)
    potential = filtered + cell.bias[:, None]
    rate = cell.firing(potential)
    torch.testing.assert_close(rate, cell(activity), rtol=0, atol=0)

    dropout, release = PoissonDropout(0.5).train(), ReleaseOrWait(0.5, 20.0, STEP_MS).train()
    torch.manual_seed(CHANCE_SEED)
    dropped = dropout(rate)
    torch.manual_seed(CHANCE_SEED)
    released = release(rate)

    sign = 1 if cell.physiology().excites else -1
    wires = torch.zeros(1, 4, dtype=torch.int64)  # four terminals of one axon
    terminals = SparseSynapses(
        wires, 1, (4, 1), signs=torch.tensor([sign]), factorized=True
    ).double()
    costs = {
        "synapses": cell.synapses.closed_form(activity.shape),
        "threshold": cell.threshold_norm.closed_form(synaptic.shape),
        "dendrites": cell.dendrites.closed_form(normal.shape, cell.synapses.synapses),
        "spike": cell.spike.closed_form(spread.shape),
        "rate": cell.dendritic_rate.closed_form(lifted.shape),
        "summation": cell.summation.closed_form(dendritic.shape),
        "soma": cell.soma.closed_form(current.shape),
        "firing": cell.firing.closed_form(potential.shape),
        "dropout": dropout.closed_form(rate.shape),
        "release": release.closed_form(rate.shape),
        "terminals": terminals.closed_form(dropped.shape),
    }
    return Walk(
        cell, activity, synaptic, normal, spread, lifted, dendritic, current, filtered, potential,
        rate, dropped, released, dropout, release, terminals, terminals(dropped), costs,
    )  # fmt: skip
