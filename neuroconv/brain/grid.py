"""The grid: the FLOP/s of every meaningful combination of structural choices."""

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
_PADDINGS = ("same", "valid", "per_dendrite")
_RULES = (
    ("essay", "same"),
    *(("direct", padding) for padding in _PADDINGS),
    *(("executed", padding) for padding in _PADDINGS),
    ("cached", "same"),
    ("stored", "same"),
    ("linear", "same"),
)


def grid_rows(inputs: Inputs) -> list[dict[str, Any]]:
    """Returns the FLOP/s of every combination, by cell type."""
    rows = []
    for algorithm, padding in _RULES:
        for clock, steps in _CLOCKS:
            choices = {"algorithm": algorithm, "padding": padding, "clock": clock, "steps": steps}
            reading = Reading(name="-".join(choices.values()), **choices)  # type: ignore[arg-type]
            by_cell = flop_per_second(reading, inputs.values_at_point)
            by_cell["total"] = sum(by_cell.values())
            basis = f"closed forms of the modules; cells x `{clock}_hz` x `flop_per_mac` x MAC"
            flops = [derived(cell, value, "FLOP/s", basis) for cell, value in by_cell.items()]
            rows.append({**choices, "flop_per_s": flops})
    return rows


def grid_section(inputs: Inputs) -> Section:
    """Returns the Purkinje cells' FLOP/s of each combination above the granule cells'."""
    values = inputs.values_at_point
    steps = int(values["time_steps"])
    flops = iter(grid_rows(inputs))
    rows: list[tuple[str, ...]] = []
    for algorithm, padding in _RULES:
        name = algorithm if algorithm in ("essay", "linear") else f"{algorithm}, {padding}"
        by_clock = [next(flops)["flop_per_s"] for _ in _CLOCKS]
        for index, title in enumerate((name, "")):
            cells = [row[index] for row in by_clock]
            rows.append((title, cells[0].name, *(scientific(cell.value, 3) for cell in cells)))
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
        f"Purkinje and {algorithm_of('granule', inputs)} of granule cells; a Fourier transform "
        "takes the filters at each update, and for one new step the whole window. cached: the same "
        "with the filters' transforms cached, as in evaluation. stored: and those of past steps, "
        "which no module stores. linear: no dendritic non-linearity, one dot product a step.",
    )


def algorithm_of(cell: str, inputs: Inputs) -> str:
    """Names the algorithm that runs on a cell's dendrites at the inputs' values."""
    return _ALGORITHMS[update_of(READINGS["executed"], cell, inputs.values_at_point).ran]
