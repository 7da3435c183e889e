"""What the time of an update comes to: cells in real time, machines for a brain, their power."""

from dataclasses import dataclass

from neuroconv.brain.evidence.facts import facts
from neuroconv.brain.inputs import Inputs
from neuroconv.brain.machine.running import Run, Timed
from neuroconv.brain.quantity import Quantity, derived
from neuroconv.brain.readings import SIZES, Reading
from neuroconv.brain.updates import update_of
from neuroconv.brain.worksheet import Worksheet
from neuroconv.flops.machine.roofline import Peak


@dataclass(frozen=True, kw_only=True)
class CellTime:
    """Cells of one type under one reading.

    Attributes:
        cell: their type.
        ran: the algorithm and the steps that it computed.
        neurons: updated together.
        update: seconds of an update and neuron, the median.
        lower, upper: its quartiles; the median itself where an update was timed once.
        flop_per_s: reached, by what the reading counts.
        share_of_peak: that, over the measured peak.
        in_real_time: cells that the machine runs in real time.
        machines: for all such cells of a brain.
        machines_at_peak: if what the reading counts ran at the measured peak.
        power: of the machine.
        cells_per_watt: run in real time.
    """

    cell: str
    ran: str
    neurons: Quantity
    update: Quantity
    lower: Quantity
    upper: Quantity
    flop_per_s: Quantity
    share_of_peak: Quantity
    in_real_time: Quantity
    machines: Quantity
    machines_at_peak: Quantity
    power: Quantity
    cells_per_watt: Quantity


@dataclass(frozen=True, kw_only=True)
class ReadingTime:
    """A brain under one reading, on machines like this one.

    Attributes:
        reading: its name.
        cells: each cell type.
        machines: for all of them together.
        machines_at_peak: if what the reading counts ran at the measured peak.
        power: of these machines.
        over_brain: that, over the power of a brain.
    """

    reading: str
    cells: tuple[CellTime, ...]
    machines: Quantity
    machines_at_peak: Quantity
    power: Quantity
    over_brain: Quantity


# (unit, formula) of what follows from the time of an update; {} is "realtime.READING.CELL".
_FORMULAS = {
    "flop_per_s": ("FLOP/s", "`{0}.flop` / `{0}.update`"),
    "share_of_peak": ("1", "`{0}.flop_per_s` / `machine.peak`"),
    "in_real_time": ("cells", "1 / (`{0}.update` x `{clock}`)"),
    "machines": ("machines", "`{cell}.cells` / `{0}.in_real_time`"),
    "machines_at_peak": ("machines", "`{cell}.cells` x `{clock}` x `{0}.flop` / `machine.peak`"),
    "cells_per_watt": ("cells/W", "`{0}.in_real_time` / `machine.power`"),
}


def cell_time(reading: Reading, run: Run, timed: Timed, inputs: Inputs, peak: Peak) -> CellTime:
    """Returns what the time of an update says of cells of one type.

    Args:
        reading: which counts, and has a clock.
        run: what was timed.
        timed: an update of some neurons.
        inputs: of the estimate.
        peak: of the machine that ran it.
    """
    cell, timing, clock = run.cell, timed.timing, reading.clock_input
    name = f"realtime.{reading.name}.{cell}"
    cost = update_of(reading, cell, inputs.values_at_point)
    flop = inputs["flop_per_mac"].value * cost.mac + cost.flop
    sizes = ", ".join(f"`{cell}.{what}`" for what in SIZES)
    measured = (
        f"measured here: `{name}.neurons` updated at once, of {sizes}, `time_steps`; {run}; "
        f"{timing.repeats} repeats of {timing.calls_per_repeat}"
    )
    sheet = Worksheet([inputs[clock].quantity, inputs[f"{cell}.cells"].quantity, timed.power])
    for what, value, unit, basis in (
        ("neurons", timed.neurons, "cells", f"chosen here, to fill a tick of `{clock}`"),
        ("update", timing.seconds / timed.neurons, "s", f"{measured}: the median"),
        ("lower", timing.lower_seconds / timed.neurons, "s", measured),
        ("upper", timing.upper_seconds / timed.neurons, "s", measured),
        ("flop", flop, "FLOP", f"that `{reading.name}` counts of an update"),
    ):
        sheet.add(derived(f"{name}.{what}", value, unit, basis))
    sheet.add(derived("machine.peak", peak.flop_per_s, "FLOP/s", f"of a {peak.kernel}: `flop`"))
    for what, (unit, formula) in _FORMULAS.items():
        note = f"{flop:,.6g} FLOP that {reading.name} counts of an update"
        formula = formula.format(name, cell=cell, clock=clock)
        sheet.derive(f"{name}.{what}", unit, formula, note=note if ".flop`" in formula else "")
    quantities = ("neurons", "update", "lower", "upper", *_FORMULAS)
    return CellTime(
        cell=cell,
        ran=str(run),
        power=timed.power,
        **{what: sheet[f"{name}.{what}"] for what in quantities},
    )


def reading_time(reading: Reading, cells: tuple[CellTime, ...]) -> ReadingTime:
    """Returns a brain of these cells, on machines that take turns at them: machines add up."""
    name = f"realtime.{reading.name}"
    sheet = Worksheet([facts()["brain.power"]])
    for row in cells:
        sheet.add(row.machines, row.machines_at_peak)
    for what in ("machines", "machines_at_peak"):
        terms = (f"`{getattr(row, what).name}`" for row in cells)
        sheet.derive(f"{name}.{what}", "machines", " + ".join(terms))
    watts = sum(row.machines.value * row.power.value for row in cells)
    terms = (f"`{row.machines.name}` x `{row.power.name}`" for row in cells)
    sheet.add(derived(f"{name}.power", watts, "W", " + ".join(terms)))
    sheet.derive(f"{name}.over_brain", "1", f"`{name}.power` / `brain.power`")
    parts = ("machines", "machines_at_peak", "power", "over_brain")
    return ReadingTime(
        reading=reading.name, cells=cells, **{part: sheet[f"{name}.{part}"] for part in parts}
    )
