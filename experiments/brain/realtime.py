"""Measures how many cells this machine runs in real time, and how many machines a brain would take.

    python experiments/brain/realtime.py --device cpu --json experiments/brain/realtime.json

A cell runs in real time if it is updated at every tick of the reading's clock. The throughput of
some cells is taken to hold for more of them, and for more machines: no time is counted for what
axons would carry between machines, and none for learning. Beside it stands the share of the
machine's peak that a network reaches while it learns.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from machine_power import CORE_POWER, PowerMeter
from neuron_runs import AXONS, FILLED, Run, Timed, run_of, time_run
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from neuroconv import __version__, create_model
from neuroconv.brain import READINGS, Inputs, Quantity, Reading, read_inputs
from neuroconv.brain.evidence.facts import facts
from neuroconv.brain.quantity import Worksheet, derived, plain, scientific
from neuroconv.brain.readings import SIZES
from neuroconv.brain.section import Column, Section, number, numbers
from neuroconv.brain.updates import update_of
from neuroconv.flops import Peak, Timing, count_exact, measure_peak, measure_time

CONDITIONS = (
    f"One sample; random weights, each neuron with its own; every synapse wired at random to one "
    f"of {AXONS:,} axons, whose activity is noise; float32, evaluation. Whole neurons run, from "
    "axons to rates, also where a reading counts dendrites alone; of a linear one, the dot product."
)
EXTRAPOLATION = (
    "Machines: as if throughput grew with their number, nothing sent from one to another, and "
    "granule and Purkinje cells took turns on each."
)
# (unit, formula) of what follows from the time of an update; {0} is "realtime.READING.CELL".
FORMULAS = {
    "flop_per_s": ("FLOP/s", "`{0}.flop` / `{0}.update`"),
    "share_of_peak": ("1", "`{0}.flop_per_s` / `machine.peak`"),
    "in_real_time": ("cells", "1 / (`{0}.update` x `{clock}`)"),
    "machines": ("machines", "`{cell}.cells` / `{0}.in_real_time`"),
    "machines_at_peak": ("machines", "`{cell}.cells` x `{clock}` x `{0}.flop` / `machine.peak`"),
    "cells_per_watt": ("cells/W", "`{0}.in_real_time` / `machine.power`"),
}
IMAGES = (16, 3, 64, 64)  # that a network learns from

Row = dict[str, Any]
ClockedRun = tuple[Run, float]  # and its updates per second


def measure_real_time(
    inputs: Inputs,
    device: str = "cpu",
    *,
    watts: float | None = None,
    seconds: float = 65.0,
    readings: Mapping[str, Reading] = READINGS,
) -> Row:
    """Measures how many cells this machine runs in real time under each reading.

    Args:
        inputs: of the estimate; their values are taken.
        device: "cpu" or "cuda".
        watts: power of the machine, instead of what it reports or an assumption.
        seconds: roughly how long to measure; a single update can take longer than its share, that
            of a Purkinje cell by direct convolution seconds on a CPU.
        readings: by name.

    Returns:
        device and machine; `basis`, the quantities that sources refer to; `readings`, a row each
        with the rows of its cells, in quantities; `left_out`, readings that no module computes

    Raises:
        ValueError: a device that cannot be timed or is missing, watts that are not above 0, or
            sizes that do not fit together.
    """
    values = inputs.values_at_point
    runs: dict[str, list[ClockedRun]] = {}
    for name, reading in readings.items():
        by_cell = [run_of(reading, cell, values) for cell in reading.cells]
        if None not in by_cell:
            runs[name] = [(run, values[reading.clock_input]) for run in by_cell if run]
    load = os.getloadavg()[0]
    before = measure_peak(device)
    meter = PowerMeter(device, watts)
    timed: dict[ClockedRun, Timed] = {}
    distinct = list(dict.fromkeys(run for rows in runs.values() for run in rows))
    screen = Console(stderr=True)
    for run, clock_hz in track(distinct, "cells in real time", console=screen, transient=True):
        timed[run, clock_hz] = same_at_any_clock(run, clock_hz, timed) or time_run(
            run, 1 / clock_hz, meter, seconds / len(distinct)
        )
    # Other programs can only lower a peak.
    peak = max(before, measure_peak(device), key=lambda measured: measured.flop_per_s)
    return {
        "device": device,
        "machine": described(peak),
        "conditions": CONDITIONS,
        "extrapolation": EXTRAPOLATION,
        "basis": basis(peak, load),
        "readings": [
            reading_time(
                name, [cell_time(readings[name], row[0], timed[row], inputs, peak) for row in rows]
            )
            for name, rows in runs.items()
        ],
        "left_out": [name for name in readings if name not in runs],
    }


def same_at_any_clock(run: Run, clock_hz: float, timed: Mapping[ClockedRun, Timed]) -> Timed | None:
    """Returns the same run's time at another clock, if one neuron fills a tick of either."""
    for (other, other_hz), result in timed.items():
        seconds = result.timing.seconds / result.neurons
        if other == run and seconds >= FILLED / min(clock_hz, other_hz):
            return result
    return None


def described(peak: Peak) -> str:
    """Returns the machine in a few words: its name, its threads, its arithmetic."""
    detail = peak.float32_arithmetic or f"{peak.threads} thread{'s' * (peak.threads != 1)}"
    return f"{peak.device}, {detail}, {peak.dtype}, PyTorch {torch.__version__}"


def basis(peak: Peak, load: float) -> list[Quantity]:
    """Returns the quantities that sources refer to by name, and the load before the measurement."""
    how = f"measured here: `flop` / `seconds` of a {peak.kernel}"
    rows = [derived("machine.peak", peak.flop_per_s, "FLOP/s", how, described(peak))]
    if peak.threads is not None:
        how = "`torch.get_num_threads` here: the cores that compute"
        rows += [derived("machine.threads", peak.threads, "threads", how), CORE_POWER]
    how = "measured here: `os.getloadavg`, the mean of the minute before"
    return [*rows, derived("machine.load", load, "programs", how), facts()["brain.power"]]


def cell_time(reading: Reading, run: Run, timed: Timed, inputs: Inputs, peak: Peak) -> Row:
    """Returns what the time of an update says of cells of one type under one reading, quantities.

    `update` is the median of the seconds of an update and neuron, `lower` and `upper` its
    quartiles; FLOP are those that the reading counts.
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
    for what, value, unit, how in (
        ("neurons", timed.neurons, "cells", f"chosen here, to fill a tick of `{clock}`"),
        ("update", timing.seconds / timed.neurons, "s", f"{measured}: the median"),
        ("lower", timing.lower_seconds / timed.neurons, "s", measured),
        ("upper", timing.upper_seconds / timed.neurons, "s", measured),
        ("flop", flop, "FLOP", f"that `{reading.name}` counts of an update"),
    ):
        sheet.add(derived(f"{name}.{what}", value, unit, how))
    sheet.add(derived("machine.peak", peak.flop_per_s, "FLOP/s", f"of a {peak.kernel}: `flop`"))
    for what, (unit, formula) in FORMULAS.items():
        note = f"{flop:,.6g} FLOP that {reading.name} counts of an update"
        formula = formula.format(name, cell=cell, clock=clock)
        sheet.derive(f"{name}.{what}", unit, formula, note=note if ".flop`" in formula else "")
    quantities = {
        what: sheet[f"{name}.{what}"] for what in ("neurons", "update", "lower", "upper", *FORMULAS)
    }
    return {"cell": cell, "ran": str(run), **quantities, "power": timed.power}


def reading_time(reading: str, cells: list[Row]) -> Row:
    """Returns a brain of these cells, on machines that take turns at them: machines add up."""
    name = f"realtime.{reading}"
    sheet = Worksheet([facts()["brain.power"]])
    for row in cells:
        sheet.add(row["machines"], row["machines_at_peak"])
    for what in ("machines", "machines_at_peak"):
        formula = " + ".join(f"`{row[what].name}`" for row in cells)
        sheet.derive(f"{name}.{what}", "machines", formula)
    watts = sum(row["machines"].value * row["power"].value for row in cells)
    terms = (f"`{row['machines'].name}` x `machine.power`" for row in cells)
    sheet.add(derived(f"{name}.power", watts, "W", " + ".join(terms)))
    sheet.derive(f"{name}.over_brain", "1", f"`{name}.power` / `brain.power`")
    totals = ("machines", "machines_at_peak", "power", "over_brain")
    return {
        "reading": reading,
        "cells": cells,
        **{what: sheet[f"{name}.{what}"] for what in totals},
    }


def learning_share(model: nn.Module, images: Tensor, peak: Peak, *, name: str) -> Quantity:
    """Returns the FLOP/s of a training step over the machine's measured peak, both in float32.

    A step is the forward and the backward pass, down to every parameter's gradient; the loss, the
    optimizer and the loading of data are left out. FLOPs by the exact counter.
    """
    counts = count_exact(model, images, backward=True, training=True)
    assert counts.backward is not None
    flop = counts.flop + counts.backward.flop
    timing: Timing = measure_time(model, images, peak.device_type, backward=True, training=True)
    how = (
        f"measured here: `training.flop` / `training.seconds` / `machine.peak`: {flop:.4g} FLOP "
        f"forward and backward in {timing.seconds:.3g} s (median of {timing.repeats} repeats), "
        f"{peak.flop_per_s:.3g} FLOP/s in a {peak.kernel}"
    )
    shape = " x ".join(map(str, images.shape))
    note = f"{name}, inputs {shape}, without loss and optimizer; {described(peak)}"
    share = flop / timing.seconds / peak.flop_per_s
    return derived(f"learning.{name}.share_of_peak", share, "1", how, note)


def sections(measured: Row) -> tuple[Section, Section]:
    """Returns the time of an update and cells in real time; machines for a brain, their power."""
    named = {quantity.name: quantity for quantity in measured["basis"]}
    power, peak = named["brain.power"], named["machine.peak"]
    times: list[tuple[str, ...]] = []
    machines: list[tuple[str, ...]] = []
    for reading in measured["readings"]:
        times.append((reading["reading"], *[""] * 5))
        for cell in reading["cells"]:
            neurons, update, *reached = (
                shown(cell[key]) for key in ("neurons", "update", "flop_per_s", "in_real_time")
            )
            label = f"  {cell['cell']}, {cell['ran']}"
            times.append((label, neurons, update, spread(cell), *reached))
        by_cell = {cell["cell"]: shown(cell["machines"]) for cell in reading["cells"]}
        totals = ("machines", "machines_at_peak", "power", "over_brain")
        cells = (by_cell.get(cell, "-") for cell in ("granule", "purkinje"))
        machines.append((reading["reading"], *cells, *(shown(reading[key]) for key in totals)))
    watts = [cell["power"] for reading in measured["readings"] for cell in reading["cells"]]
    ends = sorted({f"{quantity.value:.3g}" for quantity in watts}, key=float)
    one = f"{' to '.join(dict.fromkeys((ends[0], ends[-1])))} W ({watts[0].source})"
    left_out = ", ".join(measured["left_out"])
    return (
        Section(
            f"cells in real time, measured here: {measured['machine']}",
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
            + load_warning(named),
        ),
        Section(
            "machines like this one for a brain, and their power",
            machines,
            (
                Column("reading", 0, wrap=False),
                *numbers("granule", "purkinje", "all cells", "at peak", "W"),
                number(f"x {power.value:g} W", 6),
            ),
            f"{EXTRAPOLATION} At peak: if what the reading counts ran at {shown(peak)} FLOP/s, "
            f"the fastest product or convolution measured here. x {power.value:g} W: over a "
            f"brain's power. One machine: {one}."
            + (f" Not run, for no module computes it: {left_out}." if left_out else ""),
        ),
    )


def shown(quantity: Quantity) -> str:
    return scientific(quantity.value, 3, trim=True)


def spread(cell: Row) -> str:
    """Returns half of the quartiles' distance, in % of the median; "once" without a distance."""
    distance = cell["upper"].value - cell["lower"].value
    return f"{50 * distance / cell['update'].value:.0f}" if distance else "once"


def load_warning(named: Mapping[str, Quantity]) -> str:
    """Warns if more programs ran than there are cores: threads then wait for one another."""
    cores, load = os.cpu_count(), named["machine.load"].value
    threads = named["machine.threads"].value if "machine.threads" in named else 1
    if threads == 1 or cores is None or load + threads < cores + 0.5:
        return ""
    return (
        f" Not to be relied on: the load was {load:.1f} in the minute before, and {cores} "
        f"cores are too few for that and {threads} threads, which wait for one another. "
        "Repeat it on an idle machine, or with fewer threads (OMP_NUM_THREADS=1)."
    )


@dataclass(frozen=True)
class RealTime:
    """Measures how many cells this machine runs in real time, and what a brain would take."""

    device: Literal["cpu", "cuda"] = "cpu"
    """that runs the cells"""
    seconds: float = 65.0
    """roughly how long to measure cells; peaks and a network that learns take half a minute more"""
    watts: float | None = None
    """the machine's power, instead of what it reports itself or an assumption"""
    inputs: Path | None = None
    """take inputs from this file, as `neuroconv brain --inputs` does"""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE, as `neuroconv brain --set` takes it"""
    json: Path | None = None
    """write all numbers, each with its unit and source, to this file"""


def main(options: RealTime) -> None:
    inputs = read_inputs(options.inputs, options.set)
    measured = measure_real_time(
        inputs, options.device, watts=options.watts, seconds=options.seconds
    )
    network = create_model("resnet18", image_shape=IMAGES[1:])
    share = learning_share(
        network, torch.rand(IMAGES), measure_peak(options.device), name="resnet18"
    )
    console = Console()
    for section in sections(measured):
        console.print(section)
    console.print(f"{share.name}: {share.value:.1%} ({share.source})", highlight=False)
    if options.json is not None:
        rows = {
            "neuroconv_version": __version__,
            "inputs_sha256": inputs.sha256,
            "realtime": plain(measured),
            "learning": plain(share),
        }
        options.json.write_text(json.dumps(rows, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    main(tyro.cli(RealTime, description=__doc__))
