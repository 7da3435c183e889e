"""Real time as tables."""

import os

from neuroconv.brain.evidence.facts import facts
from neuroconv.brain.machine.machine_power import THREADS
from neuroconv.brain.machine.realtime import CONDITIONS, EXTRAPOLATION, LOAD, RealTime
from neuroconv.brain.quantity import Quantity, scientific
from neuroconv.brain.section import Column, Row, Section, number


def realtime_sections(measured: RealTime) -> tuple[Section, Section]:
    """Returns the time of an update and cells in real time; machines for a brain, their power."""
    times = Section(
        f"cells in real time, measured here: {measured.machine}",
        [
            row
            for reading in measured.readings
            for row in ({"title": reading.reading}, *map(vars, reading.cells))
        ],
        (
            Column(
                "reading, cell, what ran",
                lambda row: row.get("title") or f"  {row['cell']}, {row['ran']}",
                wrap=False,
            ),
            number("timed\ntogether", lambda row: _shown(row.get("neurons"))),
            number("seconds", lambda row: _shown(row.get("update"))),
            number("± %", _spread),
            number("FLOP/s", lambda row: _shown(row.get("flop_per_s"))),
            number("in real\ntime", lambda row: _shown(row.get("in_real_time"))),
        ),
        f"{CONDITIONS} Timed together are as many cells as fill a tick of the clock; more, where "
        "that raises the throughput by a quarter, as where one cell takes longer than a tick: then "
        "the cells in real time are a throughput, each update of them late. seconds: of an update "
        "and cell, the median; ± half the distance of its quartiles. FLOP/s: of what the reading "
        "counts, which may be less than what ran." + _load_warning(measured),
    )
    power, peak = facts()["brain.power"], measured.basis[0]
    watts = {cell.power for reading in measured.readings for cell in reading.cells}
    left_out = ", ".join(measured.left_out)
    machines = Section(
        "machines like this one for a brain, and their power",
        [
            vars(reading) | {cell.cell: cell.machines for cell in reading.cells}
            for reading in measured.readings
        ],
        (
            Column("reading", "reading", wrap=False),
            number("granule", lambda row: _shown(row.get("granule"), "-")),
            number("purkinje", lambda row: _shown(row.get("purkinje"), "-")),
            number("all cells", lambda row: _shown(row["machines"])),
            number("at peak", lambda row: _shown(row["machines_at_peak"])),
            number("W", lambda row: _shown(row["power"])),
            number(f"x {power.value:g} W", lambda row: _shown(row["over_brain"])),
        ),
        f"{EXTRAPOLATION} At peak: if what the reading counts ran at {_shown(peak)} FLOP/s, the "
        f"fastest product or convolution measured here. x {power.value:g} W: over a brain's power. "
        f"One machine: {_powers(watts)}."
        + (f" Not run, for no module computes it: {left_out}." if left_out else ""),
    )
    return times, machines


def _shown(quantity: Quantity | None, missing: str = "") -> str:
    return missing if quantity is None else scientific(quantity.value, 3, trim=True)


def _spread(row: Row) -> str:
    """Returns half of the quartiles' distance, in % of the median; "once" without a distance."""
    if "update" not in row:
        return ""
    distance = row["upper"].value - row["lower"].value
    return f"{50 * distance / row['update'].value:.0f}" if distance else "once"


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
