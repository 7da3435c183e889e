"""Shares of the cell types in a brain's FLOP/s, the cortex included.

Nothing is drawn at random. The essay leaves the cortex out of its sum; its own method gives the
pyramidal cells' part once their sizes are chosen (see neuroconv/neurons/presets).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from neuroconv.brain import read_inputs
from neuroconv.brain.cell_costs import cell_costs
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.report.style import COLOURS, INK, plain

CASES = {
    "the essay's numbers": ("dettmers2015", "flop_per_s"),
    "the literature's, at 200 Hz": ("literature", "flop_per_s"),
    "the literature's, at own rates": ("literature", "own_flop_per_s"),
}
CELLS = ("purkinje", "granule", "deep_nuclear", "pyramidal")


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...] = (0,)


SIZES = dict.fromkeys(("full", "quick", "test"), Size())


def conditions(size: Size) -> list[dict[str, Any]]:
    return [{"case": case} for case in CASES]


def measure(size: Size, *, seed: int, folder: Path, case: str) -> dict[str, Any]:
    variant, key = CASES[case]
    rows = {row["cell"]: row for row in cell_costs(read_inputs()) if row["variant"] == variant}
    return {cell: float(rows[cell][key].value) if rows[cell][key] else 0.0 for cell in CELLS}


def shares(row: dict[str, Any]) -> dict[str, float]:
    """Returns each cell type's share in %."""
    total = sum(row[cell] for cell in CELLS)
    return {cell: 100 * row[cell] / total for cell in CELLS}


def quantities(rows: Rows) -> dict[str, Interval]:
    essay, literature, own = (rows.where(case=case)[0] for case in CASES)
    cerebellum = {k: essay[k] for k in CELLS if k != "pyramidal"}
    purkinje = 100 * essay["purkinje"] / sum(cerebellum.values())
    cases = {"essay": essay, "literature": literature, "own_rates": own}
    exact = {name: 100 - shares(row)["pyramidal"] for name, row in cases.items()}
    exact["without_cortex"] = purkinje
    return {name: Interval.exact(value) for name, value in exact.items()}


def tables(rows: Rows) -> str:
    names = [cell.replace("_", " ") for cell in CELLS]
    lines = [f"| share of FLOP/s, % | {' | '.join(names)} | cells together, FLOP/s |"]
    lines.append("|---|" + "---:|" * (len(CELLS) + 1))
    for case in CASES:
        row = rows.where(case=case)[0]
        values = " | ".join(f"{share:.3g}" for share in shares(row).values())
        total = f"{sum(row[cell] for cell in CELLS):.3g}".replace("e+", "e")
        lines.append(f"| {case} | {values} | {total} |")
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(7.4, 2.4), layout="constrained")
    parts = {
        "Purkinje cells": ("purkinje",),
        "granule and nuclear cells": ("granule", "deep_nuclear"),
        "pyramidal cells of the cortex": ("pyramidal",),
    }
    for height, case in enumerate(CASES):
        left, by_cell = 0.0, shares(rows.where(case=case)[0])
        for number, (label, cells) in enumerate(parts.items()):
            share = sum(by_cell[cell] for cell in cells)
            axes.barh(height, share, left=left, color=COLOURS[number], alpha=(1, 1, 0.55)[number],
                      label=label if height == 0 else None)  # fmt: skip
            if share > 8:
                style = {"ha": "center", "va": "center", "weight": "bold"}
                colour = "white" if number == 0 else "black"
                axes.text(left + share / 2, height, f"{share:.3g} %", color=colour, **style)
            left += share
    axes.set_yticks(range(len(CASES)), list(CASES))
    axes.set(xlabel="share of a brain's FLOP/s, %", xlim=(0, 100), ylim=(2.5, -0.5))
    figure.legend(frameon=False, ncol=3, loc="outside upper center", labelcolor=INK)
    plain(axes)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
