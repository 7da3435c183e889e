"""What each cell type adds to a brain by the essay's method, in both variants of its numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Group
from rich.text import Text

from neuroconv.brain.inputs import Inputs
from neuroconv.brain.quantity import Quantity, plain_table, scientific
from neuroconv.core.cost import Cost
from neuroconv.neurons import CELL_CLASSES, PRESETS
from neuroconv.references import Source

_AXONS = 1_000  # sparse wiring costs the same for any number
_CEREBELLUM = ("granule", "purkinje", "deep_nuclear")
_CORTEX = ("pyramidal",)


@dataclass(frozen=True)
class CellCost:
    """What all cells of one type cost, at the sizes of a preset.

    Attributes:
        cell, variant: the preset.
        cells: how many a human brain has.
        essay_mac, direct_mac, executed_mac: of one update of one cell's dendrites.
        dendrites_share: of the FLOP of a whole neuron's update, dendrites by the essay's rule.
        flop_per_s: of all cells by the essay's rule, all at the input `rate_hz`.
        own_rate: the preset's own rate; None where it has none.
        own_flop_per_s: FLOP/s at that rate.
    """

    cell: str
    variant: str
    cells: Quantity
    essay_mac: Quantity
    direct_mac: Quantity
    executed_mac: Quantity
    dendrites_share: Quantity
    flop_per_s: Quantity
    own_rate: Quantity | None
    own_flop_per_s: Quantity | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data: each number as a quantity."""
        row: dict[str, Any] = {"cell": self.cell, "variant": self.variant}
        for name, each in vars(self).items():
            if name not in row:
                row[name] = None if each is None else each.to_dict()
        return row


def cell_costs(inputs: Inputs) -> tuple[CellCost, ...]:
    """One row for each preset with a count of cells; of the inputs, rate and FLOP per MAC."""
    return tuple(
        _cell_cost(cell, variant, inputs)
        for (cell, variant), numbers in PRESETS.items()
        if numbers.cells_in_brain is not None
    )


def _cell_cost(cell: str, variant: str, inputs: Inputs) -> CellCost:
    numbers = PRESETS[cell, variant]
    assert numbers.cells_in_brain is not None
    rows = _stages(cell, variant)
    tree = next(row for row in rows if row.essay is not None)
    assert tree.essay is not None
    assert tree.direct is not None
    account, rate = inputs["flop_per_mac"].value, inputs["rate_hz"].value
    others = sum(
        account * sum(row.macs.values()) + row.pointwise for row in rows if row is not tree
    )
    title = f"{cell}.{variant}"
    stated = f"closed form of the module of [dettmers2015]'s {cell} cell, sizes of `{title}`"

    def quantity(what: str, value: float, unit: str, how: str = stated) -> Quantity:
        return Quantity(
            name=f"{title}.{what}", value=value, unit=unit, source=Source("derived", how)
        )

    def total(what: str, rate: float, rate_name: str) -> Quantity:
        assert tree.essay is not None
        flops = numbers.cells_in_brain * rate * account * tree.essay  # type: ignore[operator]
        how = f"`{title}.cells` x `{rate_name}` x `flop_per_mac` x `{title}.essay_mac`"
        return quantity(what, flops, "FLOP/s", how)

    own = None
    if numbers.rate_hz is not None:
        own = Quantity(
            name=f"{title}.rate_hz",
            value=numbers.rate_hz,
            unit="1/s",
            source=numbers.sources["rate_hz"],
        )
    flop = account * tree.essay
    return CellCost(
        cell,
        variant,
        Quantity(
            name=f"{title}.cells",
            value=numbers.cells_in_brain,
            unit="cells",
            source=numbers.sources["cells_in_brain"],
        ),
        quantity("essay_mac", tree.essay, "MAC"),
        quantity("direct_mac", tree.direct, "MAC"),
        quantity("executed_mac", tree.executed, "MAC"),
        quantity("dendrites_share", flop / (flop + others), "1"),
        total("flop_per_s", rate, "rate_hz"),
        own,
        None if own is None else total("own_flop_per_s", own.value, own.name),
    )


def _stages(cell: str, variant: str) -> tuple[Cost, ...]:
    with torch.device("meta"):
        neuron = CELL_CLASSES[cell](_AXONS, 1, variant=PRESETS[cell, variant].variant)
    return neuron.closed_form(torch.Size((1, _AXONS, neuron.time_steps)))


def cortex_ratios(costs: Iterable[CellCost]) -> tuple[Quantity, ...]:
    """FLOP/s of the cortex's pyramidal cells over the cerebellum's cells, by variant and rate."""
    costs = tuple(costs)
    rows = []
    for variant in dict.fromkeys(each.variant for each in costs):
        for rate in ("flop_per_s", "own_flop_per_s"):
            sums = []
            for cells in (_CORTEX, _CEREBELLUM):
                found = [
                    getattr(each, rate)
                    for each in costs
                    if each.variant == variant and each.cell in cells
                ]
                sums.append(sum(each.value for each in found if each is not None))
            at = "the input `rate_hz`" if rate == "flop_per_s" else "each preset's own rate"
            rows.append(
                Quantity(
                    name=f"cortex over cerebellum.{variant}.{rate}",
                    value=sums[0] / sums[1],
                    unit="1",
                    source=Source(
                        "derived",
                        f"`{variant}` presets of {', '.join(_CORTEX)}, over those of "
                        f"{', '.join(_CEREBELLUM)}; at {at}",
                        "a cell without a rate of its own adds nothing there",
                    ),
                )
            )
    return tuple(rows)


def cell_rows(costs: Iterable[CellCost]) -> list[dict[str, Any]]:
    """What the table shows, as quantities."""
    return [each.to_dict() for each in costs]


def cell_table(costs: Iterable[CellCost], inputs: Inputs) -> Group:
    """MAC, then FLOP/s of each cell type and variant; the caption says what the cortex comes to."""
    costs = tuple(costs)
    rate = inputs["rate_hz"].value
    at_input, _, literature, literature_own = cortex_ratios(costs)
    dendrites = PRESETS["pyramidal", "dettmers2015"].dendrites
    macs = plain_table("MAC of one update of one cell's dendrites")
    macs.caption = (
        "share: of the FLOP of a whole neuron, its dendrites by the essay's rule. No row without "
        "a count of cells: Golgi cells have none that we found."
    )
    flops = plain_table("FLOP/s of all cells by the essay's rule, dendrites alone")
    flops.caption = (
        f"By the essay's own method the cortex, which its sum leaves out, costs "
        f"{at_input.value:.3g} times the cerebellum (in proportion to the {dendrites} dendrites "
        "on a cell, which are chosen: the essay gives none). With the literature's numbers it "
        f"costs {literature.value:.3g} times the cerebellum at {rate:g}/s, and "
        f"{literature_own.value:.2g} times at each cell's own rate, granule cells left out, which "
        "have none."
    )
    for table, columns in (
        (macs, ("essay", "direct", "executed", "share")),
        (flops, ("cells", f"at {rate:g}/s", "own rate", "at own rate")),
    ):
        for column in ("cell", "numbers"):
            table.add_column(column, no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
    for each in sorted(costs, key=lambda each: each.variant):
        name = each.cell.replace("_", " ")
        numbers = (each.essay_mac, each.direct_mac, each.executed_mac)
        macs.add_row(
            name,
            each.variant,
            *(scientific(number.value, trim=True) for number in numbers),
            f"{100 * each.dendrites_share.value:.5g} %",
        )
        own, at_own = each.own_rate, each.own_flop_per_s
        flops.add_row(
            name,
            each.variant,
            scientific(each.cells.value, trim=True),
            scientific(each.flop_per_s.value),
            "-" if own is None else f"{own.value:g}/s",
            "-" if at_own is None else scientific(at_own.value),
        )
    return Group(macs, Text(), flops)
