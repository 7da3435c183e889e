"""What each cell type adds to a brain by the essay's method, in both variants of its numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from neuroconv.brain.inputs import Inputs
from neuroconv.brain.quantity import Quantity, derived, scientific
from neuroconv.brain.section import Column, Section, number
from neuroconv.brain.worksheet import Worksheet
from neuroconv.core.cost import Cost
from neuroconv.neurons import CELL_CLASSES, PRESETS
from neuroconv.neurons.presets import Physiology

_AXONS = 1_000  # sparse wiring costs the same for any number
_CEREBELLUM = ("granule", "purkinje", "deep_nuclear")
_CORTEX = ("pyramidal",)


@dataclass(frozen=True)
class CellCost:
    """The cost of all cells of one type, at the sizes of a preset.

    Attributes:
        cell, variant: the preset.
        cells: how many a human brain has.
        essay_mac, direct_mac, executed_mac: of one update of one cell's dendrites.
        dendrites_share: share of the dendrites, by the essay's rule, in the FLOP of a whole neuron.
        flop_per_s: of all cells by the essay's rule, all at the input `rate_hz`.
        own_rate: the preset's rate; None where it has none.
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


def cell_costs(inputs: Inputs) -> tuple[CellCost, ...]:
    """Returns a row for each preset with a count of cells, at the inputs' rate and FLOP per MAC."""
    return tuple(
        _cell_cost(numbers, inputs)
        for numbers in PRESETS.values()
        if numbers.cells_in_brain is not None
    )


def _cell_cost(numbers: Physiology, inputs: Inputs) -> CellCost:
    name = f"{numbers.cell}.{numbers.variant}"
    costs = _stages(numbers)
    tree = next(cost for cost in costs if cost.essay is not None)
    flop_per_mac = inputs["flop_per_mac"].value
    basis = f"closed form of the module of [dettmers2015]'s {numbers.cell} cell, sizes of `{name}`"
    sheet = Worksheet([inputs["rate_hz"].quantity, inputs["flop_per_mac"].quantity])
    for rule in ("essay", "direct", "executed"):
        sheet.add(derived(f"{name}.{rule}_mac", getattr(tree, rule), "MAC", basis))
    for title, field, unit in (("cells", "cells_in_brain", "cells"), ("rate_hz", "rate_hz", "1/s")):
        value = getattr(numbers, field)
        if value is not None:
            source = numbers.sources[field]
            sheet.add(Quantity(name=f"{name}.{title}", value=value, unit=unit, source=source))
    dendrites = flop_per_mac * sheet[f"{name}.essay_mac"].value
    whole = dendrites + sum(
        flop_per_mac * sum(cost.macs.values()) + cost.pointwise
        for cost in costs
        if cost is not tree
    )
    sheet.add(derived(f"{name}.dendrites_share", dendrites / whole, "1", basis))
    rates = {"flop_per_s": "rate_hz", "own_flop_per_s": f"{name}.rate_hz"}
    for what, rate in rates.items():
        if rate in sheet:
            formula = f"`{name}.cells` x `{rate}` x `flop_per_mac` x `{name}.essay_mac`"
            sheet.derive(f"{name}.{what}", "FLOP/s", formula)
    required = ("cells", "essay_mac", "direct_mac", "executed_mac", "dendrites_share", "flop_per_s")
    return CellCost(
        cell=numbers.cell,
        variant=numbers.variant,
        own_rate=sheet.get(f"{name}.rate_hz"),
        own_flop_per_s=sheet.get(f"{name}.own_flop_per_s"),
        **{what: sheet[f"{name}.{what}"] for what in required},
    )


def _stages(numbers: Physiology) -> tuple[Cost, ...]:
    with torch.device("meta"):
        neuron = CELL_CLASSES[numbers.cell](_AXONS, 1, variant=numbers.variant)
    return neuron.closed_form(torch.Size((1, _AXONS, neuron.time_steps)))


def cortex_ratios(costs: Iterable[CellCost]) -> tuple[Quantity, ...]:
    """Returns the FLOP/s of the cortex's pyramidal cells over those of the cerebellum's cells.

    In order: the essay's presets at the input rate and at their rates, then the literature's.
    """
    costs = tuple(costs)
    ratios = []
    for variant in dict.fromkeys(cost.variant for cost in costs):
        for rate in ("flop_per_s", "own_flop_per_s"):
            flops = {row.cell: getattr(row, rate) for row in costs if row.variant == variant}
            cortex, cerebellum = (
                sum(flops[cell].value for cell in cells if flops.get(cell))
                for cells in (_CORTEX, _CEREBELLUM)
            )
            at = "the input `rate_hz`" if rate == "flop_per_s" else "each preset's own rate"
            basis = (
                f"`{variant}` presets of {', '.join(_CORTEX)}, over those of "
                f"{', '.join(_CEREBELLUM)}; at {at}"
            )
            note = "a cell without a rate of its own adds nothing there"
            name = f"cortex over cerebellum.{variant}.{rate}"
            ratios.append(derived(name, cortex / cerebellum, "1", basis, note))
    return tuple(ratios)


def cell_sections(costs: Sequence[CellCost], inputs: Inputs) -> tuple[Section, Section]:
    """Returns the MAC, and the FLOP/s, of each cell type and variant; both have the same rows."""
    rate = inputs["rate_hz"].value
    at_input, _, literature, literature_own = (ratio.value for ratio in cortex_ratios(costs))
    dendrites = PRESETS["pyramidal", "dettmers2015"].dendrites
    rows = sorted(costs, key=lambda cost: cost.variant)
    names = (
        Column("cell", lambda row: row.cell.replace("_", " "), wrap=False),
        Column("numbers", "variant", wrap=False),
    )
    macs = Section(
        "MAC of one update of one cell's dendrites",
        rows,
        (
            *names,
            *(number(rule, f"{rule}_mac") for rule in ("essay", "direct", "executed")),
            number("share", lambda row: f"{100 * row.dendrites_share.value:.5g} %"),
        ),
        "share: of the FLOP of a whole neuron, its dendrites by the essay's rule. No row without "
        "a count of cells: Golgi cells have none that we found.",
    )
    flops = Section(
        "FLOP/s of all cells by the essay's rule, dendrites alone",
        rows,
        (
            *names,
            number("cells", "cells"),
            number(f"at {rate:g}/s", lambda row: _flop_per_s(row.flop_per_s)),
            number("own rate", lambda row: f"{row.own_rate.value:g}/s" if row.own_rate else "-"),
            number("at own rate", lambda row: _flop_per_s(row.own_flop_per_s)),
        ),
        f"By the essay's own method the cortex, which its sum leaves out, costs {at_input:.3g} "
        f"times the cerebellum (in proportion to the {dendrites} dendrites on a cell, which are "
        "chosen: the essay gives none). With the literature's numbers it costs "
        f"{literature:.3g} times the cerebellum at {rate:g}/s, and {literature_own:.2g} times at "
        "each cell's own rate, granule cells left out, which have none.",
    )
    return macs, flops


def _flop_per_s(quantity: Quantity | None) -> str:
    return "-" if quantity is None else scientific(quantity.value)
