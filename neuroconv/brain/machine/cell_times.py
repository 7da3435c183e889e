"""What the time of an update comes to: cells in real time, machines for a brain, their power."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuroconv.brain.evidence.power import POWER
from neuroconv.brain.inputs import Inputs
from neuroconv.brain.machine.running import Run, Timed
from neuroconv.brain.quantity import Quantity, derived
from neuroconv.brain.readings import SIZES, Reading
from neuroconv.brain.updates import update_of
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

    def to_dict(self) -> dict[str, Any]:
        """Plain data: each number as a quantity."""
        return _plain(vars(self))


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

    def to_dict(self) -> dict[str, Any]:
        """Plain data: each number as a quantity."""
        return _plain(vars(self)) | {"cells": [each.to_dict() for each in self.cells]}


def cell_time(reading: Reading, run: Run, timed: Timed, inputs: Inputs, peak: Peak) -> CellTime:
    """What the time of an update says of cells of one type.

    Args:
        reading: which counts, and has a clock.
        run: what was timed.
        timed: an update of some neurons.
        inputs: of the estimate.
        peak: of the machine that ran it.
    """
    cell, values = run.cell, inputs.values_at_point
    start, timing = f"realtime.{reading.name}.{cell}", timed.timing
    sizes = ", ".join(f"`{cell}.{what}`" for what in SIZES)
    how = (
        f"measured here: `{start}.neurons` updated at once, of {sizes}, `time_steps`; {run}; "
        f"{timing.repeats} repeats of {timing.calls_per_repeat}"
    )
    cost = update_of(reading, cell, values)
    flop = values["flop_per_mac"] * cost.mac + cost.flop
    each = timing.seconds / timed.neurons
    count, clock = inputs[f"{cell}.cells"].quantity, inputs[reading.clock_input].quantity
    alive = 1 / (each * clock.value)

    def quantity(what: str, value: float, unit: str, how: str) -> Quantity:
        return derived(f"{start}.{what}", value, unit, how)

    return CellTime(
        cell=cell,
        ran=str(run),
        neurons=quantity(
            "neurons",
            timed.neurons,
            "cells",
            f"chosen here, to fill a tick of `{clock.name}`",
        ),
        update=quantity("update", each, "s", f"{how}: the median"),
        lower=quantity("update.lower", timing.lower_seconds / timed.neurons, "s", how),
        upper=quantity("update.upper", timing.upper_seconds / timed.neurons, "s", how),
        flop_per_s=quantity(
            "flop_per_s",
            flop / each,
            "FLOP/s",
            f"{flop:,.6g} FLOP that `{reading.name}` counts of an update / `{start}.update`",
        ),
        share_of_peak=quantity(
            "share_of_peak",
            flop / each / peak.flop_per_s,
            "1",
            f"`{start}.flop_per_s` / `machine.peak`",
        ),
        in_real_time=quantity(
            "in_real_time", alive, "cells", f"1 / (`{start}.update` x `{clock.name}`)"
        ),
        machines=quantity(
            "machines", count.value / alive, "machines", f"`{count.name}` / `{start}.in_real_time`"
        ),
        machines_at_peak=quantity(
            "machines_at_peak",
            count.value * clock.value * flop / peak.flop_per_s,
            "machines",
            f"`{count.name}` x `{clock.name}` x {flop:,.6g} FLOP that `{reading.name}` counts of "
            "an update / `machine.peak`",
        ),
        power=timed.power,
        cells_per_watt=quantity(
            "cells_per_watt",
            alive / timed.power.value,
            "cells/W",
            f"`{start}.in_real_time` / `{timed.power.name}`",
        ),
    )


def reading_time(reading: Reading, cells: tuple[CellTime, ...]) -> ReadingTime:
    """A brain of these cells, on machines that take turns at them: their numbers add up."""
    start = f"realtime.{reading.name}"
    machines, at_peak = (
        derived(
            f"{start}.{what}",
            sum(each.value for each in parts),
            "machines",
            " + ".join(f"`{each.name}`" for each in parts),
        )
        for what, parts in (
            ("machines", [each.machines for each in cells]),
            ("machines_at_peak", [each.machines_at_peak for each in cells]),
        )
    )
    power = derived(
        f"{start}.power",
        sum(each.machines.value * each.power.value for each in cells),
        "W",
        " + ".join(f"`{each.machines.name}` x `{each.power.name}`" for each in cells),
    )
    over = derived(
        f"{start}.over_brain", power.value / POWER.value, "1", f"`{power.name}` / `{POWER.name}`"
    )
    return ReadingTime(
        reading=reading.name,
        cells=cells,
        machines=machines,
        machines_at_peak=at_peak,
        power=power,
        over_brain=over,
    )


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: each.to_dict() if isinstance(each, Quantity) else each
        for name, each in fields.items()
    }
