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


def cell_time(reading: Reading, run: Run, timed: Timed, inputs: Inputs, peak: Peak) -> CellTime:
    """Returns what the time of an update says of cells of one type.

    Args:
        reading: which counts, and has a clock.
        run: what was timed.
        timed: an update of some neurons.
        inputs: of the estimate.
        peak: of the machine that ran it.
    """
    cell, timing = run.cell, timed.timing
    prefix = f"realtime.{reading.name}.{cell}"
    cost = update_of(reading, cell, inputs.values_at_point)
    sizes = ", ".join(f"`{cell}.{what}`" for what in SIZES)
    measured = (
        f"measured here: `{prefix}.neurons` updated at once, of {sizes}, `time_steps`; {run}; "
        f"{timing.repeats} repeats of {timing.calls_per_repeat}"
    )
    clock = inputs[reading.clock_input].quantity
    cells = inputs[f"{cell}.cells"].quantity
    sheet = Worksheet([clock, cells, timed.power])
    sheet.add(
        derived("machine.peak", peak.flop_per_s, "FLOP/s", "measured here: `flop` / `seconds`"),
        derived(
            f"{prefix}.flop",
            inputs["flop_per_mac"].value * cost.mac + cost.flop,
            "FLOP",
            f"that `{reading.name}` counts of an update",
        ),
        derived(
            f"{prefix}.neurons",
            timed.neurons,
            "cells",
            f"chosen here, to fill a tick of `{clock.name}`",
        ),
        derived(f"{prefix}.update", timing.seconds / timed.neurons, "s", f"{measured}: the median"),
        derived(f"{prefix}.update.lower", timing.lower_seconds / timed.neurons, "s", measured),
        derived(f"{prefix}.update.upper", timing.upper_seconds / timed.neurons, "s", measured),
    )
    flop = f"{sheet[f'{prefix}.flop'].value:,.6g} FLOP that `{reading.name}` counts of an update"

    def derive(what: str, unit: str, formula: str, note: str = "") -> Quantity:
        return sheet.derive(f"{prefix}.{what}", unit, formula, note=note)

    return CellTime(
        cell=cell,
        ran=str(run),
        neurons=sheet[f"{prefix}.neurons"],
        update=sheet[f"{prefix}.update"],
        lower=sheet[f"{prefix}.update.lower"],
        upper=sheet[f"{prefix}.update.upper"],
        flop_per_s=derive("flop_per_s", "FLOP/s", f"`{prefix}.flop` / `{prefix}.update`", flop),
        share_of_peak=derive("share_of_peak", "1", f"`{prefix}.flop_per_s` / `machine.peak`"),
        in_real_time=derive("in_real_time", "cells", f"1 / (`{prefix}.update` x `{clock.name}`)"),
        machines=derive("machines", "machines", f"`{cells.name}` / `{prefix}.in_real_time`"),
        machines_at_peak=derive(
            "machines_at_peak",
            "machines",
            f"`{cells.name}` x `{clock.name}` x `{prefix}.flop` / `machine.peak`",
            flop,
        ),
        power=timed.power,
        cells_per_watt=derive(
            "cells_per_watt", "cells/W", f"`{prefix}.in_real_time` / `{timed.power.name}`"
        ),
    )


def reading_time(reading: Reading, cells: tuple[CellTime, ...]) -> ReadingTime:
    """Returns a brain of these cells, on machines that take turns at them: machines add up."""
    prefix = f"realtime.{reading.name}"
    sheet = Worksheet([facts()["brain.power"]])
    for row in cells:
        sheet.add(row.machines, row.machines_at_peak)
    machines, at_peak = (
        sheet.derive(
            f"{prefix}.{what}",
            "machines",
            " + ".join(f"`{getattr(row, what).name}`" for row in cells),
        )
        for what in ("machines", "machines_at_peak")
    )
    power = derived(
        f"{prefix}.power",
        sum(row.machines.value * row.power.value for row in cells),
        "W",
        " + ".join(f"`{row.machines.name}` x `{row.power.name}`" for row in cells),
    )
    sheet.add(power)
    return ReadingTime(
        reading=reading.name,
        cells=cells,
        machines=machines,
        machines_at_peak=at_peak,
        power=power,
        over_brain=sheet.derive(f"{prefix}.over_brain", "1", f"`{power.name}` / `brain.power`"),
    )
