"""The run behind a reading of the estimate, and the time of an update of many cells."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import torch
from machine_power import PowerMeter

from neuroconv.brain import Quantity, Reading
from neuroconv.brain.updates import Sizes, sizes_of
from neuroconv.flops import Timing, measure_time, measure_traffic
from neuroconv.kernels.conv.choice import choose_backend
from neuroconv.kernels.conv.sizes import ConvProblem
from neuroconv.neurons import CELL_CLASSES, NeuronState, Population

AXONS = 1_000  # inputs of a population, by sparse wiring
MOST = 1 << 18  # cells in one population: their wiring is drawn cell by cell
FILLED = 0.7  # of a clock tick: near enough to full
GAIN = 1.25  # in throughput; less is not worth waiting longer than a tick for
GROWTH = 16  # at most, from one number of cells to the next
GLANCE_S = 0.2  # for a number of cells that may not be the last

Call = Callable[[], object]


class Run(NamedTuple):
    """The computation of an update. Readings that differ only in what they count share one.

    Attributes:
        cell: "granule", "purkinje" or "pyramidal".
        sizes: of its dendritic tree.
        algorithm: "direct" or "auto", the backend of a whole neuron's dendrites; "linear", dot
            products instead of a neuron.
        padding: of the dendritic convolution; not used by "linear".
        resumed: one new step on a kept state, not all steps of a window.
    """

    cell: str
    sizes: Sizes
    algorithm: str
    padding: str
    resumed: bool

    def __str__(self) -> str:
        steps = "1 step" if self.resumed else f"{self.sizes.time_steps} steps"
        if self.algorithm == "linear":
            return f"dot product, {steps}"
        window = (self.sizes.time_steps, *self.sizes.sheet_shape)  # a stream reads it all again
        branches, dendrites, time_steps = self.sizes.filter_shape
        taps = (time_steps, branches, dendrites)
        # Neurons of a population large enough for launching operators to cost nothing.
        problem = ConvProblem(window, taps, self.padding, neurons=1024)
        return f"{choose_backend(problem, self.algorithm)}, {steps}"

    @property
    def _terms(self) -> int:
        return self.sizes.synapses * self.sizes.time_steps

    @property
    def _outputs(self) -> int:
        return 1 if self.resumed else self.sizes.time_steps

    def population(self, neurons: int) -> Population:
        """Returns neurons with random weights and wiring, in evaluation."""
        tree = self.sizes.tree(self.padding)
        taps = {"backend": self.algorithm}
        return CELL_CLASSES[self.cell](AXONS, neurons, tree=tree, taps=taps).eval()

    def build(self, neurons: int, device: torch.device) -> Call:
        """Returns an update of a number of neurons, one sample, as a call without arguments.

        Each neuron has its weights. A batch would be several brains that share them.
        """
        seeded = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with seeded, torch.device(device):
            torch.manual_seed(0)
            if self.algorithm == "linear":
                inputs = torch.rand(neurons, self._outputs, self._terms)
                return partial(torch.bmm, inputs, torch.randn(neurons, self._terms, 1))
            population, steps = self.population(neurons), self.sizes.time_steps
            if not self.resumed:
                return partial(population, torch.rand(1, AXONS, steps))
            state = NeuronState(
                dendrites=torch.rand(1, neurons, steps - 1, *self.sizes.sheet_shape),
                soma=torch.rand(1, neurons, population.soma.time_steps - 1),
            )
            return partial(population.stream, torch.rand(1, AXONS, 1), state)

    def most(self, room: int) -> int:
        """Returns the number of neurons whose tensors take no more than `room` bytes."""
        if self.algorithm == "linear":
            return max(1, room // (4 * self._terms * (self._outputs + 1)))
        with torch.device("meta"):
            window = torch.empty(1, AXONS, self.sizes.time_steps)
            return max(1, min(MOST, room // measure_traffic(self.population(1), window).peak_bytes))


class Timed(NamedTuple):
    """The time of one update of `neurons` at once, and the machine's power meanwhile."""

    neurons: int
    timing: Timing
    power: Quantity


class Trial(NamedTuple):
    neurons: int
    timing: Timing
    call: Call
    build_s: float  # to make the call


def run_of(reading: Reading, cell: str, values: Mapping[str, float]) -> Run | None:
    """Returns the run for a reading, the inputs at these values; None if no module computes it.

    What the essay counts is what a direct convolution executes; "executed" and "cached" take the
    faster algorithm, in evaluation: with the filters' transforms cached. A whole neuron runs, from
    its axons to its rate, also where the reading counts the dendrites alone; of a linear neuron,
    the dot product.

    Raises:
        ValueError: sizes that do not fit together.
    """
    if reading.granule_filter != "own" and cell == "granule":
        return None
    fast = {"linear": "linear", "executed": "auto", "cached": "auto"}
    algorithm = fast.get(reading.algorithm, "direct")
    sizes = sizes_of(cell, values)
    return Run(cell, sizes, algorithm, reading.padding, reading.steps == "last")


def time_run(run: Run, tick_s: float, meter: PowerMeter, seconds: float) -> Timed:
    """Times an update of as many neurons as the device updates in one tick of the clock.

    And then of twice as many, repeatedly, while that raises the throughput by a quarter: so it does
    where one neuron alone takes longer than a tick, or where calling takes longer than computing.
    Memory, a quarter of what is free, and time can end the search before.

    Args:
        run: what runs.
        tick_s: seconds from one update to the next in real time.
        meter: of the device that runs it.
        seconds: roughly how long to measure. An update that takes more than a quarter of it is
            timed once, the first time it runs.
    """
    device = meter.device
    until = time.perf_counter() + seconds
    most = run.most(free_bytes(device) // 4)
    with torch.no_grad():
        trial = attempt(run, 1, device, until)
        while trial.neurons < most:
            neurons, took = trial.neurons, trial.timing.seconds
            filled = took >= FILLED * tick_s
            fit = 2 * neurons if filled else max(neurons + 1, int(neurons * tick_s / took))
            more = min(most, GROWTH * neurons, fit)
            expected = (trial.build_s + 3 * took) * more / neurons
            if expected + GLANCE_S >= (until - time.perf_counter()) / 2:
                break
            larger = attempt(run, more, device, until)
            if filled and larger.timing.seconds * GAIN > took * more / neurons:
                break
            trial = larger
        timing, left = trial.timing, until - time.perf_counter()
        if left > 5 * timing.seconds:  # two to warm up, three repeats
            timing = measure_time(trial.call, device=str(device), seconds=left)
        return Timed(trial.neurons, timing, meter.read(trial.call))


def attempt(run: Run, neurons: int, device: torch.device, until: float) -> Trial:
    """Builds and times an update of a number of neurons: once if it is slow."""
    begin = time.perf_counter()
    call = run.build(neurons, device)
    _synchronize(device)
    built = time.perf_counter()
    call()  # which also loads kernels
    _synchronize(device)
    first = time.perf_counter() - built
    timing = Timing(first, first, first, 1, 1)
    if first <= (until - built) / 4:
        timing = measure_time(call, device=str(device), seconds=GLANCE_S)
    return Trial(neurons, timing, call, built - begin)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_bytes(device: torch.device) -> int:
    """Returns the free memory of a device; 2 GiB where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2**31
