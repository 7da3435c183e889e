"""Several processes: the time of a data-parallel step, measured here and projected for more."""

import math
from collections.abc import Iterator
from dataclasses import asdict

from neuroconv.bench.record import Bench, Figure, Row
from neuroconv.training.scaling import MeasuredStep, measure_scaling, project_step

_PROJECTED = (2, 4, 8)
# A network between the GPUs of one machine, and the start of a message: assumptions, not measured.
_BANDWIDTH, _LATENCY_S = 100e9, 10e-6


def scaling(bench: Bench) -> Iterator[Row]:
    """Data-parallel steps: measured with one thread for each process of this CPU, and projected by
    the ring's formula. On a GPU too the measured ones are the CPU's, and say so."""
    images, steps = bench.pick((64, 20), (4, 2))
    found = measure_scaling((1, 2), images=images, steps=steps)
    one, two = found
    yield _measured(one, two)
    halves = measure_scaling((1,), images=images // 2, steps=steps)[0]
    for processes in _PROJECTED[: bench.pick(3, 1)]:
        yield _projected(one, halves, two, processes)


def _measured(one: MeasuredStep, two: MeasuredStep) -> Row:
    figure = Figure(
        "two_over_one_process_images_per_second_ratio",
        "times the images per second of one process, measured with two",
        two.images_per_second / one.images_per_second,
    )
    sizes = {"one_process": one.to_dict(), "two_processes": two.to_dict()}
    note = "measured: gloo on this CPU, a thread a process, batch norms synchronised"
    return Row("data-parallel step, measured", sizes, figures=[figure], notes=[note])


def _projected(one: MeasuredStep, half: MeasuredStep, two: MeasuredStep, processes: int) -> Row:
    """A step whose compute time falls with its images as it was measured to fall by half."""
    by_half = max(0.5, half.step_seconds / one.step_seconds)  # no better than in proportion
    share = by_half ** math.log2(processes)
    step = project_step(
        processes=processes,
        images=one.images,
        compute_seconds=one.step_seconds * share,
        gradient_bytes=one.gradient_bytes,
        bandwidth_bytes_per_second=_BANDWIDTH,
        latency_seconds=_LATENCY_S,
    )
    figure = Figure(
        "images_per_second_over_one_process_ratio",
        f"times the images per second of one process, projected for {processes}",
        step.images_per_second / one.images_per_second,
    )
    note = (
        "projected, not measured: compute as measured on this CPU at smaller batches, the ring's "
        f"formula at an assumed {_BANDWIDTH:.0e} bytes/s and {_LATENCY_S:.0e} s a message"
    )
    sizes = {"projected": asdict(step), "measured_exchange_seconds": two.exchange_seconds}
    return Row(
        f"data-parallel step, {processes} processes, projected", sizes,
        figures=[figure], notes=[note],
    )  # fmt: skip
