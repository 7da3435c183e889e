"""What the essay's best-known rebuttal argues, and what here speaks to it, counted.

Only the opening of the rebuttal could be read when this was written; what is told from memory says
so in its source.
"""

from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from neuroconv.brain.evidence.essay import TOTAL, flop_per_second, of_preset, update_mac
from neuroconv.brain.quantity import Quantity, derived, plain_table
from neuroconv.references import Source

_MEMORY = "told from memory, not looked up here"


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument of the rebuttal.

    Attributes:
        claim: the argument, in a sentence of ours.
        source: where it is made.
        answer: what here speaks to it.
        evidence: the figures that the answer rests on.
    """

    claim: str
    source: Source
    answer: str
    evidence: tuple[Quantity, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": "argument",
            "claim": self.claim,
            "source": str(self.source),
            "urls": list(self.source.urls),
            "answer": self.answer,
            "evidence": [each.to_dict() for each in self.evidence],
        }


def _saving(name: str, mac: int, what: str) -> Quantity:
    """How many times fewer multiply-adds than the essay counts for a Purkinje cell's update."""
    return derived(
        f"purkinje.{name}.fewer",
        update_mac("purkinje") / mac,
        "1",
        f"MAC of one update by the essay's rule to {what}: the closed form of "
        "`layers.dendrite.DendriticConv`",
    )


def arguments() -> tuple[Argument, ...]:
    """The rebuttal's arguments, in its order."""
    fft = update_mac("purkinje", "executed")
    collapsed = update_mac("purkinje", "linear_collapse")
    by_fft = flop_per_second(
        "purkinje", fft, "a Fourier transform, 2.5 n log2 n FLOP", "flop_per_second_by_fft"
    )
    linear = flop_per_second(
        "purkinje", collapsed, "one dot product of synapses x steps", "flop_per_second_collapsed"
    )
    cortical = of_preset("pyramidal", "rate_hz", "literature")
    ours = of_preset("purkinje", "rate_hz")
    slower = derived(
        "rate.essay_to_cortex",
        ours.value / cortical.value,
        "1",
        f"`{ours.name}` / `{cortical.name}`: [dettmers2015], [lennie2003]",
    )
    return (
        Argument(
            claim="the essay's 'at least' is disputed, not its forecast: that a brain's algorithms "
            "need at least 1e21 FLOP/s does not follow",
            source=Source("byrnes2021", "opening"),
            answer=f"the bound rests on the dendritic non-linearity: without it a Purkinje "
            f"cell collapses into a dot product of {collapsed:,} terms, and all of them to "
            f"{linear.shown} FLOP/s",
            evidence=(TOTAL, _saving("collapsed", collapsed, "one dot product"), linear),
        ),
        Argument(
            claim="brain algorithms are expensive all the same: models built after the brain have "
            "stayed with small images and few categories",
            source=Source("byrnes2021", "'Are brain algorithms computationally expensive?'"),
            answer="agreed: it is the essay's own point, and nothing here counts against it",
            evidence=(),
        ),
        Argument(
            claim="to simulate what a neuron is made of takes far more than to run the algorithm "
            "that it carries out",
            source=Source("byrnes2021", "its main argument", _MEMORY),
            answer="so it is with the essay's own convolution: a Fourier transform gives the same "
            f"output for {update_mac('purkinje') / fft:.0f} times fewer multiply-adds, "
            f"{by_fft.shown} FLOP/s in all; the essay counts the direct one",
            evidence=(_saving("fft", fft, "a Fourier transform"), by_fft),
        ),
        Argument(
            claim="other estimates of the brain lie orders of magnitude lower",
            source=Source("byrnes2021", "its comparison with [carlsmith2020]", _MEMORY),
            answer="they are listed above; most count events, of which a cortical neuron at "
            f"{cortical.value:g} a second has {slower.value:,.0f} times fewer than at the essay's "
            f"{ours.value:g}",
            evidence=(cortical, slower),
        ),
    )


def rebuttal_rows() -> list[dict[str, Any]]:
    """What `rebuttal_table` shows, each number with unit and source."""
    return [argument.to_dict() for argument in arguments()]


def _figure(quantity: Quantity) -> str:
    unit = "" if quantity.unit == "1" else f" {quantity.unit}"
    name = quantity.name.replace(".", " ").replace("_", " ")
    return f"{name}: {quantity.shown}{unit}"


def rebuttal_table() -> Table:
    """One row for each argument: what it says, what here speaks to it, on which figures."""
    table = plain_table("The rebuttal, and what speaks to it", apart=True)
    table.add_column("argument", ratio=3)
    table.add_column("answer", ratio=3)
    table.add_column("figures", ratio=3)
    table.add_column("source", ratio=2)
    for each in arguments():
        table.add_row(
            Text(each.claim),
            Text(each.answer),
            Text("\n".join(map(_figure, each.evidence)) or "-"),
            Text(str(each.source)),
        )
    return table
