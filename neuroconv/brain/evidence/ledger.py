"""What the essay's estimate leaves out, and why it calls its figure a lower bound.

Its list in Part III has twelve items; re-uptake and learning, which other sections leave out, make
fourteen. The essay gives a multiplier for the first alone.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from neuroconv.brain.evidence.essay import COMPARISON, LEARNING, LIMITS, essay, stated
from neuroconv.brain.quantity import Quantity, derived, plain_table
from neuroconv.flops import count_exact
from neuroconv.neurons import Purkinje
from neuroconv.references import Source

NOT_MODELLED = "not modelled"
AXONS = 64  # that the counted neuron listens to: the cost of its dendrites does not depend on them


@dataclass(frozen=True, kw_only=True)
class Omission:
    """One item that the estimate leaves out.

    Attributes:
        item: its name.
        what: what happens there.
        source: the essay's section that leaves it out.
        multiplier: of the whole estimate, where the essay gives one.
        touched_by: what in neuroconv comes near it; empty if nothing does.
        cost: what that takes, relative to the neuron without it; counted, not quoted.
    """

    item: str
    what: str
    source: Source
    multiplier: Quantity | None = None
    touched_by: str = ""
    cost: Quantity | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "item": self.item,
            "what": self.what,
            "left_out_by": str(self.source),
            "multiplier": NOT_MODELLED if self.multiplier is None else self.multiplier.to_dict(),
            "touched_by": self.touched_by or "nothing",
            "cost": None if self.cost is None else self.cost.to_dict(),
        }


def training_step() -> Quantity:
    """Multiply-adds of a Purkinje cell's step of training to its forward pass, exactly counted.

    Raises:
        RuntimeError: the counter gave no backward pass.
    """
    cell = Purkinje(AXONS, 1, backend="direct")
    counts = count_exact(cell, torch.zeros(1, AXONS, cell.time_steps), backward=True)
    if counts.backward is None:
        raise RuntimeError("count_exact(..., backward=True) returned no backward pass")
    return derived(
        "learning.step_to_forward",
        (counts.mac + counts.backward.mac) / counts.mac,
        "1",
        "MAC of a step of training to those of its forward pass, `neurons.Purkinje` by "
        "`flops.count_exact`, with a direct convolution",
        f"the backward pass alone takes {counts.backward.mac / counts.mac:g} times the forward "
        "one: a gradient for the taps and one for the sheet, each as large",
    )


def two_transmitters() -> Quantity:
    """FLOP of a Purkinje cell with two transmitters to one with one, by the closed form."""
    one, two = (
        sum(
            cost.flop
            for cost in Purkinje(
                AXONS, 1, backend="direct", transmitters=transmitters
            ).closed_form(torch.Size((1, AXONS)))
        )
        for transmitters in (1, 2)
    )  # fmt: skip
    return derived(
        "transmitters.two_to_one",
        two / one,
        "1",
        "FLOP of `neurons.Purkinje` with transmitters=2 to those with 1, by its closed form",
        "each transmitter has its own weights, sheet and dendritic filter",
    )


@cache
def omissions() -> tuple[Omission, ...]:
    """All fourteen, in the essay's order."""
    listed = essay(LIMITS, "its list of what the estimate does not take into account")
    return (
        Omission(
            item="back-propagating potentials, and potentials reflected in the axon",
            what="the soma's spike runs back into the dendrites, or turns round in the axon",
            source=listed,
            multiplier=stated(
                "back_propagation.multiplier", 2, "1", LIMITS, "nearly, both at once"
            ),
            touched_by="no such signal runs; training's backward pass is the row on learning",
        ),
        Omission(
            item="processing in axon terminals",
            what="shape, length and proteins of a terminal change what it releases",
            source=listed,
            touched_by="synapses with vesicles=True train the amount that is released; it does "
            "not change from spike to spike",
        ),
        Omission(
            item="vesicles with several neurotransmitters",
            what="more output channels, as an image has colours",
            source=listed,
            touched_by="`Population` with C transmitters: a sheet and a filter for each",
            cost=two_transmitters(),
        ),
        Omission(
            item="geometry of the dendritic tree",
            what="which branch meets which, and how thick it is",
            source=listed,
            touched_by="one spatial dimension: sites along a dendrite. `layers.Cable` gives it a "
            "length and a time constant, no branch points",
        ),
        Omission(
            item="processing in dendritic spines",
            what="a spine stores charge, and its shape decides what it passes on",
            source=listed,
            touched_by="a synapse is a weight: no state of its own",
        ),
        Omission(
            item="synapses that are not axo-dendritic",
            what="axons on axons, and axons on somata",
            source=listed,
        ),
        Omission(
            item="electrical synapses",
            what="gap junctions pass current from cell to cell without a transmitter",
            source=listed,
            touched_by="the Golgi cell's preset sums sublinearly, which such junctions make up for "
            "in the tissue; none is modelled",
        ),
        Omission(
            item="proteins activated by neurotransmitters",
            what="receptors start cascades of proteins",
            source=listed,
        ),
        Omission(
            item="genes regulated by neurotransmitters",
            what="cascades that reach the nucleus change which proteins are made",
            source=listed,
        ),
        Omission(
            item="genes regulated by voltage",
            what="dendritic spikes and back-propagating potentials do the same",
            source=listed,
        ),
        Omission(
            item="proteins activated by voltage",
            what="voltage starts cascades of proteins",
            source=listed,
        ),
        Omission(
            item="glial cells",
            what="cells that are no neurons take part",
            source=listed,
        ),
        Omission(
            item="re-uptake",
            what="a released transmitter is drawn back into the axon within seconds to minutes",
            source=essay(COMPARISON, "re-uptake is ignored in the LNP model"),
        ),
        Omission(
            item="learning",
            what="the estimate is one forward pass; how a brain learns is not known",
            source=essay(LEARNING, "only the forward pass is modelled, no backward pass"),
            touched_by="training by back-propagation, which is no claim about the brain: a step is "
            "a forward and a backward pass",
            cost=training_step(),
        ),
    )


def ledger_rows() -> list[dict[str, Any]]:
    """What `ledger_table` shows, each number with unit and source."""
    return [omission.to_dict() for omission in omissions()]


def ledger_table() -> Table:
    """One row for each item: the essay's multiplier, what in neuroconv touches it, at what cost."""
    other_sections = " and ".join(
        f"{each.item}, by {each.source.place}"
        for each in omissions()
        if each.source.place != essay(LIMITS).place
    )
    table = plain_table(
        f"Left out of the estimate: {len(omissions())} items",
        f"Left out by the essay's '{LIMITS}', except {other_sections}. multiplier: of the whole "
        "estimate, as the essay gives it. cost: relative to the neuron without it, counted here.",
        apart=True,
    )
    table.add_column("left out", ratio=3)
    table.add_column("what it is", ratio=3)
    table.add_column("multiplier", justify="right", no_wrap=True)
    table.add_column("neuroconv", ratio=4)
    table.add_column("cost", justify="right")
    for each in omissions():
        table.add_row(
            Text(each.item),
            Text(each.what),
            Text(NOT_MODELLED if each.multiplier is None else f"nearly {each.multiplier.shown}"),
            Text(each.touched_by.replace("`", "") or "nothing"),
            Text("" if each.cost is None else f"x {each.cost.shown}"),
        )
    return table
