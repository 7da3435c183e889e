"""Real time, measured: how many cells this machine runs, and how many machines a brain would take.

A cell runs in real time if it is updated at every tick of the reading's clock. The throughput of
some cells is taken to hold for more of them, and for more machines: no time is counted for what
axons would carry between machines, and none for learning.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from neuroconv.brain.evidence.facts import facts
from neuroconv.brain.inputs import Inputs
from neuroconv.brain.machine.cell_times import ReadingTime, cell_time, reading_time
from neuroconv.brain.machine.learning import describe, peak_again
from neuroconv.brain.machine.machine_power import CORE_POWER, THREADS, PowerMeter
from neuroconv.brain.machine.running import AXONS, FILLED, Run, Timed, run_of, time_run
from neuroconv.brain.quantity import Quantity, derived, plain
from neuroconv.brain.readings import READINGS, Reading
from neuroconv.flops.machine.measured import machine_peak
from neuroconv.flops.machine.roofline import Peak

CONDITIONS = (
    f"One sample; random weights, each neuron with its own; every synapse wired at random to one "
    f"of {AXONS:,} axons, whose activity is noise; float32, evaluation. Whole neurons run, from "
    "axons to rates, also where a reading counts dendrites alone; of a linear one, the dot product."
)
EXTRAPOLATION = (
    "Machines: as if throughput grew with their number, nothing sent from one to another, and "
    "granule and Purkinje cells took turns on each."
)

LOAD = "machine.load"

Track = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class RealTime:
    """Real time under every reading that modules can run.

    Attributes:
        device: "cpu" or "cuda".
        machine: what computed, in words.
        basis: what the sources refer to: the measured peak, threads, a core's assumed power, the
            load by other programs, a brain's power.
        readings: in the order of `READINGS`.
        left_out: names of readings that no module computes.
    """

    device: str
    machine: str
    basis: tuple[Quantity, ...]
    readings: tuple[ReadingTime, ...]
    left_out: tuple[str, ...]

    def of_basis(self, name: str) -> Quantity | None:
        """Returns a quantity of the basis; None where the system does not report it."""
        return next((quantity for quantity in self.basis if quantity.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data in which every number has a unit and a source."""
        return {
            "device": self.device,
            "machine": self.machine,
            "conditions": CONDITIONS,
            "extrapolation": EXTRAPOLATION,
            "basis": plain(self.basis),
            "readings": plain(self.readings),
            "left_out": list(self.left_out),
        }


class _ClockedRun(NamedTuple):
    run: Run
    clock_hz: float


def measure_real_time(
    inputs: Inputs,
    device: str = "cpu",
    *,
    watts: float | None = None,
    seconds: float = 65.0,
    readings: Mapping[str, Reading] = READINGS,
    track: Track = iter,
) -> RealTime:
    """Measures how many cells this machine runs in real time under each reading.

    Args:
        inputs: of the estimate; their values are taken.
        device: "cpu" or "cuda".
        watts: power of the machine, instead of what it reports or an assumption.
        seconds: roughly how long to measure; a single update can take longer than its share, that
            of a Purkinje cell by direct convolution seconds on a CPU.
        readings: by name.
        track: wraps the list of all runs and yields them, to show progress.

    Raises:
        ValueError: a device that cannot be timed or is missing, watts that are not above 0, or
            sizes that do not fit together.
    """
    values = inputs.values_at_point
    meter = PowerMeter(device, watts)
    runs: dict[str, dict[str, _ClockedRun]] = {}
    left_out = []
    for name, reading in readings.items():
        by_cell = {cell: run_of(reading, cell, values) for cell in reading.cells}
        if None in by_cell.values():
            left_out.append(name)
            continue
        clock_hz = values[reading.clock_input]
        runs[name] = {
            cell: _ClockedRun(run, clock_hz) for cell, run in by_cell.items() if run is not None
        }
    load = _load()
    peak = machine_peak(device)
    timed: dict[_ClockedRun, Timed] = {}
    distinct = list(dict.fromkeys(run for by_cell in runs.values() for run in by_cell.values()))
    for run in track(distinct):
        share = seconds / len(distinct)
        same = _same_at_any_clock(run, timed)
        timed[run] = same or time_run(run.run, 1 / run.clock_hz, meter, share)
    peak = peak_again(peak)
    return RealTime(
        device=device,
        machine=describe(peak),
        basis=(*_basis(peak), *load, facts()["brain.power"]),
        readings=tuple(
            reading_time(
                readings[name],
                tuple(
                    cell_time(readings[name], run.run, timed[run], inputs, peak)
                    for run in by_cell.values()
                ),
            )
            for name, by_cell in runs.items()
        ),
        left_out=tuple(left_out),
    )


def _same_at_any_clock(run: _ClockedRun, timed: Mapping[_ClockedRun, Timed]) -> Timed | None:
    """Returns the same run's time at another clock, if one neuron fills a tick of either."""
    for other, result in timed.items():
        seconds = result.timing.seconds / result.neurons
        slow = all(seconds >= FILLED / clock for clock in (run.clock_hz, other.clock_hz))
        if other.run == run.run and slow:
            return result
    return None


def _load() -> tuple[Quantity, ...]:
    if not hasattr(os, "getloadavg"):
        return ()
    how = "measured here: `os.getloadavg`, the mean of the minute before"
    return (derived(LOAD, os.getloadavg()[0], "programs", how),)


def _basis(peak: Peak) -> tuple[Quantity, ...]:
    """Returns the quantities that sources refer to by name."""
    fastest = derived(
        "machine.peak",
        peak.flop_per_s,
        "FLOP/s",
        f"measured here: `flop` / `seconds` of a {peak.kernel}",
        describe(peak),
    )
    if peak.threads is None:
        return (fastest,)
    threads = derived(
        THREADS, peak.threads, "threads", "`torch.get_num_threads` here: the cores that compute"
    )
    return (fastest, threads, CORE_POWER)
