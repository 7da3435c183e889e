"""The cost of each cell type in a brain by the essay's method, for both variants of numbers."""

from collections.abc import Sequence
from typing import Any

import torch

from neuroconv.brain.inputs import Inputs
from neuroconv.brain.quantity import Quantity, Worksheet, derived, scientific
from neuroconv.brain.section import Column, Section, number
from neuroconv.neurons import CELL_CLASSES, PRESETS
from neuroconv.neurons.presets import Physiology

_AXONS = 1_000  # sparse wiring costs the same for any number
_CEREBELLUM = ("granule", "purkinje", "deep_nuclear")
_CORTEX = ("pyramidal",)
_RULES = ("essay", "direct", "executed", "cached")  # columns of `Cost`

CellCost = dict[str, Any]  # a row of `cell_costs`


def cell_costs(inputs: Inputs) -> tuple[CellCost, ...]:
    """Returns the cost of all cells of each type, at the sizes of each preset with a cell count.

    A row has the preset's "cell" and "variant"; "cells", how many a human brain has; "essay_mac",
    "direct_mac", "executed_mac" and "cached_mac" (without the filters' transforms, which evaluation
    caches) of one update of one cell's dendrites; "dendrites_share", theirs by the essay's rule in
    a whole neuron's FLOP; "flop_per_s" of all cells by the essay's rule at the input `rate_hz`;
    "own_rate" and "own_flop_per_s" at the preset's rate, None without one.
    """
    presets = (preset for preset in PRESETS.values() if preset.cells_in_brain is not None)
    return tuple(_cell_cost(preset, inputs) for preset in presets)


def _cell_cost(preset: Physiology, inputs: Inputs) -> CellCost:
    name = f"{preset.cell}.{preset.variant}"
    with torch.device("meta"):
        neuron = CELL_CLASSES[preset.cell](_AXONS, 1, variant=preset.variant)
    costs = neuron.closed_form(torch.Size((1, _AXONS, neuron.time_steps)))
    (tree,) = (cost for cost in costs if cost.essay is not None)
    basis = f"closed form of the module of [dettmers2015]'s {preset.cell} cell, sizes of `{name}`"
    sheet = Worksheet([inputs["rate_hz"].quantity, inputs["flop_per_mac"].quantity])
    for rule in _RULES:
        sheet.add(derived(f"{name}.{rule}_mac", getattr(tree, rule), "MAC", basis))
    for title, field, unit in (("cells", "cells_in_brain", "cells"), ("rate_hz", "rate_hz", "1/s")):
        value = getattr(preset, field)
        if value is not None:
            sheet.add(Quantity(f"{name}.{title}", value, unit, preset.sources[field]))
    flop_per_mac = inputs["flop_per_mac"].value
    dendrites = flop_per_mac * sheet[f"{name}.essay_mac"].value
    others = [cost for cost in costs if cost is not tree]
    rest = sum(flop_per_mac * sum(cost.macs.values()) + cost.pointwise for cost in others)
    share = dendrites / (dendrites + rest)
    sheet.add(derived(f"{name}.dendrites_share", share, "1", basis))
    for part, rate in (("flop_per_s", "rate_hz"), ("own_flop_per_s", f"{name}.rate_hz")):
        if rate in sheet:
            formula = f"`{name}.cells` x `{rate}` x `flop_per_mac` x `{name}.essay_mac`"
            sheet.derive(f"{name}.{part}", "FLOP/s", formula)
    parts = ("cells", *(f"{rule}_mac" for rule in _RULES), "dendrites_share", "flop_per_s")
    return {
        "cell": preset.cell,
        "variant": preset.variant,
        **{part: sheet[f"{name}.{part}"] for part in parts},
        "own_rate": sheet.get(f"{name}.rate_hz"),
        "own_flop_per_s": sheet.get(f"{name}.own_flop_per_s"),
    }


def cortex_ratios(costs: Sequence[CellCost]) -> tuple[Quantity, ...]:
    """Returns the FLOP/s of the cortex's pyramidal cells over those of the cerebellum's cells.

    In order: the essay's presets at the input rate and at their rates, then the literature's.
    """
    rates = {"flop_per_s": "the input `rate_hz`", "own_flop_per_s": "each preset's own rate"}
    note = "a cell without a rate of its own adds nothing there"
    ratios = []
    for variant in dict.fromkeys(row["variant"] for row in costs):
        for key, rate in rates.items():
            flops = {row["cell"]: row[key] for row in costs if row["variant"] == variant}
            cortex, cerebellum = (
                sum(flops[cell].value for cell in cells if flops.get(cell))
                for cells in (_CORTEX, _CEREBELLUM)
            )
            over = f"{', '.join(_CORTEX)}, over those of {', '.join(_CEREBELLUM)}"
            basis = f"`{variant}` presets of {over}; at {rate}"
            name = f"cortex over cerebellum.{variant}.{key}"
            ratios.append(derived(name, cortex / cerebellum, "1", basis, note))
    return tuple(ratios)


def cell_sections(costs: Sequence[CellCost], inputs: Inputs) -> tuple[Section, Section]:
    """Returns the MAC, and the FLOP/s, of each cell type and variant; both have the same rows."""
    rate = inputs["rate_hz"].value
    at_input, _, literature, at_cell_rates = (ratio.value for ratio in cortex_ratios(costs))
    dendrites = PRESETS["pyramidal", "dettmers2015"].dendrites
    rows = sorted(costs, key=lambda row: row["variant"])
    names = (
        Column("cell", lambda row: row["cell"].replace("_", " "), wrap=False),
        Column("numbers", "variant", wrap=False),
    )
    macs = Section(
        "MAC of one update of one cell's dendrites",
        rows,
        (
            *names,
            *(number(rule, f"{rule}_mac") for rule in _RULES),
            number("share", lambda row: f"{100 * row['dendrites_share'].value:.5g} %"),
        ),
        "cached: executed without the filters' transforms, as in evaluation. share: of the FLOP of "
        "a whole neuron, its dendrites by the essay's rule. No row without a count of cells: Golgi "
        "cells have none that we found.",
    )
    flops = Section(
        "FLOP/s of all cells by the essay's rule, dendrites alone",
        rows,
        (
            *names,
            number("cells", "cells"),
            number(f"at {rate:g}/s", lambda row: scientific(row["flop_per_s"].value)),
            number("own rate", lambda row: row["own_rate"] and f"{row['own_rate'].value:g}/s"),
            number("at own rate", lambda row: (x := row["own_flop_per_s"]) and scientific(x.value)),
        ),
        f"By the essay's own method the cortex, which its sum leaves out, costs {at_input:.3g} "
        f"times the cerebellum (in proportion to the {dendrites} dendrites on a cell, which are "
        "chosen: the essay gives none). With the literature's numbers it costs "
        f"{literature:.3g} times the cerebellum at {rate:g}/s, and {at_cell_rates:.2g} times at "
        "each cell's own rate, granule cells left out, which have none.",
    )
    return macs, flops
