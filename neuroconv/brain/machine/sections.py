"""Real time as tables."""

import os

from neuroconv.brain.evidence.facts import facts
from neuroconv.brain.machine.cell_times import CellTime
from neuroconv.brain.machine.machine_power import THREADS
from neuroconv.brain.machine.realtime import CONDITIONS, EXTRAPOLATION, LOAD, RealTime
from neuroconv.brain.quantity import Quantity, scientific
from neuroconv.brain.section import Column, Section, number, numbers


def realtime_sections(measured: RealTime) -> tuple[Section, Section]:
    """Returns the time of an update and cells in real time; machines for a brain, their power."""
    power, peak = facts()["brain.power"], measured.basis[0]
    times: list[tuple[str, ...]] = []
    for reading in measured.readings:
        times.append((reading.reading, "", "", "", "", ""))
        for cell in reading.cells:
            reached = map(_shown, (cell.flop_per_s, cell.in_real_time))
            update, spread = _shown(cell.update), _spread(cell)
            label = f"  {cell.cell}, {cell.ran}"
            times.append((label, _shown(cell.neurons), update, spread, *reached))
    machines = []
    for reading in measured.readings:
        by_cell = {cell.cell: _shown(cell.machines) for cell in reading.cells}
        totals = (reading.machines, reading.machines_at_peak, reading.power, reading.over_brain)
        cells = (by_cell.get(cell, "-") for cell in ("granule", "purkinje"))
        machines.append((reading.reading, *cells, *map(_shown, totals)))
    watts = {cell.power for reading in measured.readings for cell in reading.cells}
    left_out = ", ".join(measured.left_out)
    return (
        Section(
            f"cells in real time, measured here: {measured.machine}",
            times,
            (
                Column("reading, cell, what ran", 0, wrap=False),
                *numbers("timed\ntogether", "seconds", "± %", "FLOP/s", "in real\ntime"),
            ),
            f"{CONDITIONS} Timed together are as many cells as fill a tick of the clock; more, "
            "where that raises the throughput by a quarter, as where one cell takes longer than a "
            "tick: then the cells in real time are a throughput, each update of them late. "
            "seconds: of an update and cell, the median; ± half the distance of its quartiles. "
            "FLOP/s: of what the reading counts, which may be less than what ran."
            + _load_warning(measured),
        ),
        Section(
            "machines like this one for a brain, and their power",
            machines,
            (
                Column("reading", 0, wrap=False),
                *numbers("granule", "purkinje", "all cells", "at peak", "W"),
                number(f"x {power.value:g} W", 6),
            ),
            f"{EXTRAPOLATION} At peak: if what the reading counts ran at {_shown(peak)} FLOP/s, "
            f"the fastest product or convolution measured here. x {power.value:g} W: over a "
            f"brain's power. One machine: {_powers(watts)}."
            + (f" Not run, for no module computes it: {left_out}." if left_out else ""),
        ),
    )


def _shown(quantity: Quantity) -> str:
    return scientific(quantity.value, 3, trim=True)


def _spread(cell: CellTime) -> str:
    """Returns half of the quartiles' distance, in % of the median; "once" without a distance."""
    distance = cell.upper.value - cell.lower.value
    return f"{50 * distance / cell.update.value:.0f}" if distance else "once"


def _powers(watts: set[Quantity]) -> str:
    values = sorted(power.value for power in watts)
    ends = " to ".join(f"{value:.3g}" for value in dict.fromkeys((values[0], values[-1])))
    return f"{ends} W ({min(str(power.source) for power in watts)})"


def _load_warning(measured: RealTime) -> str:
    """Warns if more programs ran than there are cores: threads then wait for one another."""
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
