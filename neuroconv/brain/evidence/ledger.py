"""The ledger: what the essay's estimate leaves out, with the costs that can be counted."""

from dataclasses import dataclass
from functools import cache, cached_property

import torch

from neuroconv.brain.evidence.facts import read_rows
from neuroconv.brain.quantity import Quantity, derived
from neuroconv.brain.section import Column, Section, number
from neuroconv.flops import count_exact
from neuroconv.neurons import Purkinje
from neuroconv.references import Source

NOT_MODELLED = "not modelled"
_AXONS = 64  # inputs of the counted neuron: the cost of its dendrites does not depend on them


def training_step() -> Quantity:
    """Returns the multiply-adds of a Purkinje cell's training step to its forward pass, counted."""
    cell = Purkinje(_AXONS, 1, taps={"backend": "direct"})
    counts = count_exact(cell, torch.zeros(1, _AXONS, cell.time_steps), backward=True)
    assert counts.backward is not None
    backward = counts.backward.mac / counts.mac
    return derived(
        "learning.step_to_forward", (counts.mac + counts.backward.mac) / counts.mac, "1",
        "MAC of a training step to those of its forward pass, `neurons.Purkinje` by "
        "`flops.count_exact`, with a direct convolution",
        f"the backward pass alone takes {backward:g} times the forward one: a gradient for the "
        "taps and one for the sheet, each as large",
    )  # fmt: skip


def two_transmitters() -> Quantity:
    """Returns the FLOP of a Purkinje cell with two transmitters to one with one, closed form."""
    cells = (
        Purkinje(_AXONS, 1, taps={"backend": "direct"}, synapse={"transmitters": transmitters})
        for transmitters in (1, 2)
    )
    single, double = (
        sum(cost.flop for cost in cell.closed_form(torch.Size((1, _AXONS)))) for cell in cells
    )
    basis = "FLOP of `neurons.Purkinje` with transmitters=2 to those with 1, by its closed form"
    note = "each transmitter has its own weights, sheet and dendritic filter"
    return derived("transmitters.two_to_one", double / single, "1", basis, note)


_COSTS = {"training_step": training_step, "two_transmitters": two_transmitters}


@dataclass(frozen=True, kw_only=True)
class Omission:
    """An item that the estimate leaves out."""

    item: str
    what: str  # what happens there
    left_out_by: Source  # the essay's section
    multiplier: Quantity | str = NOT_MODELLED  # of the whole estimate, where the essay gives one
    touched_by: str = "nothing"  # what in neuroconv comes near it
    counted: str = ""  # which of the costs above is its cost, if it can be counted

    @cached_property
    def cost(self) -> Quantity | None:
        """Cost relative to the neuron without the item."""
        return _COSTS[self.counted]() if self.counted else None


@cache
def omissions() -> tuple[Omission, ...]:
    """Returns all fourteen items, in the essay's order."""
    return read_rows("ledger.toml", "omission", Omission)


def ledger_section() -> Section:
    """Returns a row for each item: the essay's multiplier, what touches it here, at what cost."""
    limits = omissions()[0].left_out_by.place
    others = " and ".join(
        f"{row.item}, by {row.left_out_by.place}"
        for row in omissions()
        if row.left_out_by.place != limits
    )
    return Section(
        f"Left out of the estimate: {len(omissions())} items",
        omissions(),
        (
            Column("left out", "item", ratio=3),
            Column("what it is", "what", ratio=3),
            number("multiplier", _multiplier),
            Column("neuroconv", lambda row: row.touched_by.replace("`", ""), ratio=4),
            Column("cost", lambda row: f"x {row.cost.shown}" if row.cost else "", "right"),
        ),
        f"Left out by the essay's {limits}, except {others}. multiplier: of the whole estimate, as "
        "the essay gives it. cost: relative to the neuron without it, counted here.",
        ("item", "what", "left_out_by", "multiplier", "touched_by", "cost"),
        spaced=True,
    )


def _multiplier(row: Omission) -> str:
    return row.multiplier if isinstance(row.multiplier, str) else f"nearly {row.multiplier.shown}"
