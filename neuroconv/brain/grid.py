"""The grid: every combination of structural choices that means something."""

from typing import Any

from neuroconv.brain.inputs import Inputs
from neuroconv.brain.quantity import derived, scientific
from neuroconv.brain.readings import READINGS, Reading
from neuroconv.brain.section import Column, Section, number
from neuroconv.brain.updates import flop_per_second, update_of

_ALGORITHMS = {
    "fft": "a Fourier transform",
    "matmul": "a matrix product",
    "convolution": "a direct convolution",
}
_CLOCKS = (("rate", "window"), ("rate", "last"), ("frame", "window"), ("frame", "last"))
_RULES = (
    ("essay", "same"),
    ("direct", "same"),
    ("direct", "valid"),
    ("direct", "per_dendrite"),
    ("executed", "same"),
    ("executed", "valid"),
    ("executed", "per_dendrite"),
    ("linear", "same"),
)


def grid_rows(inputs: Inputs) -> list[dict[str, Any]]:
    """Returns the FLOP/s of every combination, by cell type."""
    values = inputs.values_at_point
    rows = []
    for algorithm, padding in _RULES:
        for clock, steps in _CLOCKS:
            choices: dict[str, Any] = {
                "algorithm": algorithm, "padding": padding, "clock": clock, "steps": steps
            }  # fmt: skip
            flops = flop_per_second(Reading(name="-".join(choices.values()), **choices), values)
            basis = f"closed forms of the modules; cells x `{clock}_hz` x `flop_per_mac` x MAC"
            rows.append(
                choices
                | {
                    "flop_per_s": [
                        derived(cell, value, "FLOP/s", basis)
                        for cell, value in {**flops, "total": sum(flops.values())}.items()
                    ]
                }
            )
    return rows


def grid_section(inputs: Inputs) -> Section:
    """Returns the Purkinje cells' FLOP/s of each combination, and below them the granule cells'."""
    values = inputs.values_at_point
    steps = int(values["time_steps"])
    flops = {
        (row["algorithm"], row["padding"], row["clock"], row["steps"], cell.name): cell.value
        for row in grid_rows(inputs)
        for cell in row["flop_per_s"]
    }
    rows = []
    for algorithm, padding in _RULES:
        name = algorithm if algorithm in ("essay", "linear") else f"{algorithm}, {padding}"
        for cell, title in (("purkinje", name), ("granule", "")):
            cells = (flops[algorithm, padding, *clock, cell] for clock in _CLOCKS)
            rows.append((title, cell, *(scientific(value, 3) for value in cells)))
    columns = [Column("algorithm, padding", 0, wrap=False), Column("cells", 1)]
    for index, (clock, kind) in enumerate(_CLOCKS, 2):
        title = f"{steps} steps" if kind == "window" else "one step"
        columns.append(number(f"{title}\n{values[f'{clock}_hz']:g}/s", index))
    return Section(
        "FLOP/s by structural choice, never blended",
        rows,
        columns,
        "essay: synapses x steps x taps. direct: a direct convolution, padding zeros included. "
        f"executed: what runs here, for padding 'same' {algorithm_of('purkinje', inputs)} of "
        f"Purkinje and {algorithm_of('granule', inputs)} of granule cells; for one new step a "
        "Fourier transform reads the window once more. linear: no dendritic non-linearity, one dot "
        "product a step.",
    )


def algorithm_of(cell: str, inputs: Inputs) -> str:
    """Names the algorithm that runs on a cell's dendrites at the inputs' values."""
    return _ALGORITHMS[update_of(READINGS["executed"], cell, inputs.values_at_point).ran]
