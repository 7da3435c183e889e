"""Real time as tables, and as rows."""

import os
from typing import Any

from rich.console import Group
from rich.text import Text

from neuroconv.brain.evidence.power import POWER
from neuroconv.brain.machine.machine_power import THREADS
from neuroconv.brain.machine.realtime import CONDITIONS, EXTRAPOLATION, LOAD, RealTime
from neuroconv.brain.quantity import Quantity, plain_table, scientific


def realtime_rows(measured: RealTime) -> list[dict[str, Any]]:
    """A row for each cell type under each reading, and one for a whole brain, as quantities."""
    rows: list[dict[str, Any]] = []
    for each in measured.readings:
        rows += [{"reading": each.reading, **cells.to_dict()} for cells in each.cells]
        whole = {name: value for name, value in each.to_dict().items() if name != "cells"}
        rows.append({"cell": "all", **whole})
    return rows


def realtime_table(measured: RealTime) -> Group:
    """Time of an update and cells in real time; then machines for a brain, and their power."""
    times = plain_table(f"cells in real time, measured here: {measured.machine}")
    times.caption = (
        f"{CONDITIONS} Timed together are as many cells as fill a tick of the clock; more, where "
        "that raises the throughput by a quarter, as where one cell takes longer than a tick: then "
        "the cells in real time are a throughput, each update of them late. seconds: of an update "
        "and cell, the median; ± half the distance of its quartiles. FLOP/s: of what the reading "
        "counts, which may be less than what ran." + _busy(measured)
    )
    times.add_column("reading, cell, what ran", no_wrap=True)
    for column in ("timed\ntogether", "seconds", "± %", "FLOP/s", "in real\ntime"):
        times.add_column(column, justify="right", no_wrap=True)
    for each in measured.readings:
        times.add_row(each.reading)
        for cells in each.cells:
            times.add_row(
                f"  {cells.cell}, {cells.ran}",
                _shown(cells.neurons),
                _shown(cells.update),
                _spread(cells.lower, cells.update, cells.upper),
                _shown(cells.flop_per_s),
                _shown(cells.in_real_time),
            )
    machines = plain_table("machines like this one for a brain, and their power")
    watts = {each.power for reading in measured.readings for each in reading.cells}
    peak = measured.basis[0]
    machines.caption = (
        f"{EXTRAPOLATION} At peak: if what the reading counts ran at {_shown(peak)} FLOP/s, the "
        f"fastest product or convolution measured here. x {POWER.value:g} W: over a brain's power. "
        f"One machine: {_powers(watts)}." + _left_out(measured)
    )
    machines.add_column("reading", no_wrap=True)
    for column in ("granule", "purkinje", "all cells", "at peak", "W", f"x {POWER.value:g} W"):
        machines.add_column(column, justify="right", no_wrap=True)
    for each in measured.readings:
        by_cell = {cells.cell: _shown(cells.machines) for cells in each.cells}
        machines.add_row(
            each.reading,
            *(by_cell.get(cell, "-") for cell in ("granule", "purkinje")),
            _shown(each.machines),
            _shown(each.machines_at_peak),
            _shown(each.power),
            _shown(each.over_brain),
        )
    return Group(times, Text(), machines)


def _shown(quantity: Quantity) -> str:
    return scientific(quantity.value, 3, trim=True)


def _spread(lower: Quantity, middle: Quantity, upper: Quantity) -> str:
    """Half of the quartiles' distance, as a share of the median; "once" without a distance."""
    distance = upper.value - lower.value
    return f"{50 * distance / middle.value:.0f}" if distance else "once"


def _powers(watts: set[Quantity]) -> str:
    values = sorted(each.value for each in watts)
    shown = " to ".join(f"{value:.3g}" for value in dict.fromkeys((values[0], values[-1])))
    (source, *_) = sorted({str(each.source) for each in watts})
    return f"{shown} W ({source})"


def _busy(measured: RealTime) -> str:
    """Says so if more ran than there are cores for: threads then wait for one another."""
    load, threads = (measured.of_basis(name) for name in (LOAD, THREADS))
    cores = os.cpu_count()
    if load is None or threads is None or cores is None:
        return ""
    if threads.value == 1 or load.value + threads.value < cores + 0.5:
        return ""
    return (
        f" Not to be relied on: the load was {load.value:.1f} in the minute before, and {cores} "
        f"cores are too few for that and {threads.value} threads, which wait for one another. "
        "Repeat it on an idle machine, or with fewer threads (OMP_NUM_THREADS=1)."
    )


def _left_out(measured: RealTime) -> str:
    if not measured.left_out:
        return ""
    return f" Not run, for no module computes it: {', '.join(measured.left_out)}."
