"""What others say of the brain: their estimates, firing rates, its power, and the rebuttal."""

from typing import Any

from rich.table import Table
from rich.text import Text

from neuroconv.brain.evidence.essay import TOTAL, of_preset
from neuroconv.brain.evidence.power import energies
from neuroconv.brain.evidence.published import EDGES, OTHERS, RATES, Published
from neuroconv.brain.evidence.rebuttal import rebuttal_rows, rebuttal_table
from neuroconv.brain.quantity import Quantity, plain_table

__all__ = ["OTHERS", "RATES", "bands", "energies", "others_rows", "others_table"]


def bands() -> tuple[tuple[str, float, float, int], ...]:
    """(name, low, high, year) of the estimates that count operations of some kind, for a plot."""
    return tuple(
        (each.name, float(each.low.value), float(each.high.value), each.year)
        for each in OTHERS
        if each.kind == "estimate" and each.high.unit != EDGES
    )


def others_rows() -> list[dict[str, Any]]:
    """What `others_table` shows, each number with unit and source.

    "kind" tells rows apart: "estimate", "limit", "rate", "energy" and "argument" (of the rebuttal).
    """
    return [
        *(each.to_dict() for each in (*OTHERS, *RATES)),
        *({"kind": "energy", "quantity": each.to_dict()} for each in energies()),
        *rebuttal_rows(),
    ]


def _ranges(title: str, rows: tuple[Published, ...], ours: Quantity) -> Table:
    """The ranges, and below them the sources that their numbers in brackets lead to."""
    notes: dict[str, int] = {}
    table = plain_table(title, "x: times the upper end of the range")
    table.add_column("who", ratio=3)
    table.add_column("range", ratio=3)
    table.add_column(f"{ours.shown} is x", justify="right", no_wrap=True)
    table.add_column("what is counted", ratio=4)
    table.add_column("", no_wrap=True)
    for each in rows:
        span = each.low.shown
        if each.high is not each.low:
            span += f" to {each.high.shown}"
        if each.best is not None:
            span += f", best {each.best.shown}"
        ratio = each.essay_times
        note = notes.setdefault(str(each.low.source), len(notes) + 1)
        table.add_row(
            Text(each.name),
            Text(f"{span} {each.high.unit}"),
            "-" if ratio is None else ratio.shown,
            Text(each.what),
            Text(f"[{note}]"),
        )
    whole = Table.grid(expand=True)
    whole.add_row(table)
    whole.add_row(Text("\n".join(f"[{number}] {source}" for source, number in notes.items())))
    return whole


def others_table() -> Table:
    """Other estimates, mean firing rates, the brain's energy, and the rebuttal, one below another.

    The ratios set the essay's figure against the upper end of each range.
    """
    energy = plain_table(
        "What a brain's power leaves for a FLOP",
        "the bound is of one bit erased, and a FLOP erases many: no ordinary machine of "
        "that power could execute the estimate",
    )
    energy.add_column("quantity", no_wrap=True)
    energy.add_column("value", justify="right")
    energy.add_column("unit")
    energy.add_column("source", ratio=5)
    for each in energies():
        energy.add_row(Text(each.name), each.shown, Text(each.unit), Text(str(each.source)))
    whole = Table.grid(expand=True)
    for part in (
        _ranges("Other estimates of what a brain computes", OTHERS, TOTAL),
        _ranges("Mean firing rates", RATES, of_preset("purkinje", "rate_hz")),
        energy,
        rebuttal_table(),
    ):
        whole.add_row(part)
        whole.add_row()
    return whole
