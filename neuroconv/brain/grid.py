"""The grid: every combination of structural choices that means something."""

from typing import Any

from rich.table import Table

from neuroconv.brain.inputs import Inputs
from neuroconv.brain.quantity import Quantity, plain_table, scientific
from neuroconv.brain.readings import READINGS, Reading
from neuroconv.brain.updates import flop_per_second, update_of
from neuroconv.references import Source

_RAN = {
    "fft": "a Fourier transform",
    "matmul": "a matrix product",
    "convolution": "a direct convolution",
}
_GRID_COLUMNS = (("rate", "window"), ("rate", "last"), ("frame", "window"), ("frame", "last"))
_GRID_ROWS = (
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
    """FLOP/s of every combination of structural choices that means something, by cell type."""
    at_point = inputs.values_at_point
    rows = []
    for algorithm, padding in _GRID_ROWS:
        for clock, steps in _GRID_COLUMNS:
            reading = _grid_reading(algorithm, padding, clock, steps)
            source = Source(
                "derived",
                f"closed forms of the modules; cells x `{clock}_hz` x `flop_per_mac` x MAC",
            )
            flops = flop_per_second(reading, at_point)
            rows.append(
                {
                    "algorithm": algorithm,
                    "padding": padding,
                    "clock": clock,
                    "steps": steps,
                    "flop_per_s": [
                        Quantity(name=cell, value=value, unit="FLOP/s", source=source).to_dict()
                        for cell, value in {**flops, "total": sum(flops.values())}.items()
                    ],
                }
            )
    return rows


def grid_table(inputs: Inputs) -> Table:
    """The grid: of each combination the Purkinje cells' FLOP/s, and below the granule cells'."""
    at_point = inputs.values_at_point
    rate, frame, steps = at_point["rate_hz"], at_point["frame_hz"], int(at_point["time_steps"])
    table = plain_table("FLOP/s by structural choice, never blended")
    table.caption = (
        "essay: synapses x steps x taps. direct: a direct convolution, padding zeros included. "
        f"executed: what runs here, for padding 'same' {what_ran('purkinje', inputs)} of Purkinje "
        f"and {what_ran('granule', inputs)} of granule cells; for one new step a Fourier "
        "transform reads the window once more. linear: no dendritic non-linearity, one dot "
        "product a step."
    )
    for column in ("algorithm, padding", "cells"):
        table.add_column(column, no_wrap=True)
    for clock, kind in _GRID_COLUMNS:
        hz = rate if clock == "rate" else frame
        title = f"{steps} steps" if kind == "window" else "one step"
        table.add_column(f"{title}\n{hz:g}/s", justify="right", no_wrap=True)
    for algorithm, padding in _GRID_ROWS:
        row = [
            flop_per_second(_grid_reading(algorithm, padding, clock, kind), at_point)
            for clock, kind in _GRID_COLUMNS
        ]
        name = algorithm if algorithm in ("essay", "linear") else f"{algorithm}, {padding}"
        for cell in row[0]:
            table.add_row(name, cell, *(scientific(flops[cell], 3) for flops in row))
            name = ""
    return table


def _grid_reading(algorithm: str, padding: str, clock: str, steps: str) -> Reading:
    choices: dict[str, Any] = {
        "algorithm": algorithm,
        "padding": padding,
        "clock": clock,
        "steps": steps,
    }
    return Reading(name="-".join(choices.values()), **choices)


def what_ran(cell: str, inputs: Inputs) -> str:
    """The algorithm that runs on a cell's dendrites at the inputs' values, in words."""
    return _RAN[update_of(READINGS["executed"], cell, inputs.values_at_point).ran]
