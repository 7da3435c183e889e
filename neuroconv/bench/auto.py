"""The choice of a backend against the best, over forty shapes."""

import math
from collections.abc import Iterator
from statistics import geometric_mean
from typing import NamedTuple

import torch

from neuroconv.bench.kernels import TASKS, chosen_backend, kernel_job, ours
from neuroconv.bench.purkinje import words
from neuroconv.bench.record import Bench, Figure, Row, fastest
from neuroconv.bench.turns import Failure, Outcome, ratio
from neuroconv.kernels.conv import BACKENDS, Backend, Mode, conv_macs

_MEAN_AT_MOST, _WORST_AT_MOST = 1.2, 1.5


class Shape(NamedTuple):
    """One problem: sheets of (T, P, D), filters of (K_T, K_P, K_D)."""

    mode: Mode
    batch: int
    neurons: int
    sheet: tuple[int, int, int]
    taps: tuple[int, int, int]

    def __str__(self) -> str:
        sheet, taps = ("x".join(map(str, sizes)) for sizes in (self.sheet, self.taps))
        return f"{self.mode}, {self.batch} x {self.neurons} neurons, {sheet} by {taps}"


_PURKINJE, _FULL = (5, 100, 1000), (5, 10, 1000)
_GRANULE, _CLAW = (5, 4, 4), (5, 3, 4)

# Fixed, so that results can be compared. Of each mode: the full Purkinje cell and the granule cell
# at several sizes of batch and population, the zoo's smaller Purkinje cells, square sheets between
# the two with filters from 3 x 3 taps to the sheet's own size, and windows of 1 to 20 steps.
SHAPES: tuple[Shape, ...] = (
    Shape("same", 1, 1, _PURKINJE, _FULL),
    Shape("same", 8, 1, _PURKINJE, _FULL),
    Shape("same", 1, 8, _PURKINJE, _FULL),
    Shape("same", 1, 1, _PURKINJE, (5, 10, 50)),
    Shape("same", 1, 1, _PURKINJE, (5, 3, 3)),
    Shape("same", 4, 1, (20, 50, 200), (5, 10, 200)),
    Shape("same", 1, 64, _GRANULE, _CLAW),
    Shape("same", 32, 64, _GRANULE, _CLAW),
    Shape("same", 256, 256, _GRANULE, _CLAW),
    Shape("same", 1, 4096, _GRANULE, _CLAW),
    Shape("same", 32, 4096, _GRANULE, _CLAW),
    Shape("same", 8, 1024, (1, 4, 4), (1, 3, 4)),
    Shape("same", 32, 512, (10, 4, 4), _CLAW),
    Shape("same", 32, 128, (20, 4, 4), _CLAW),
    Shape("same", 1, 32, (5, 20, 100), (5, 10, 100)),
    Shape("same", 16, 32, (5, 20, 100), (5, 10, 100)),
    Shape("same", 1, 64, (5, 20, 100), (3, 4, 10)),
    Shape("same", 32, 16, (5, 10, 50), (5, 5, 50)),
    Shape("same", 128, 16, (5, 10, 50), (5, 5, 50)),
    Shape("same", 16, 64, (5, 8, 8), _CLAW),
    Shape("same", 64, 256, (5, 8, 8), (5, 8, 8)),
    Shape("same", 1, 1024, (5, 8, 16), (5, 4, 16)),
    Shape("same", 16, 64, (5, 16, 16), _CLAW),
    Shape("same", 16, 16, (5, 16, 16), (5, 16, 16)),
    Shape("same", 4, 16, (5, 32, 32), (5, 5, 5)),
    Shape("same", 4, 16, (5, 32, 32), (5, 32, 32)),
    Shape("same", 2, 4, (5, 64, 64), (5, 3, 3)),
    Shape("valid", 1, 1, _PURKINJE, _FULL),
    Shape("valid", 8, 1, _PURKINJE, _FULL),
    Shape("valid", 1, 8, _PURKINJE, _FULL),
    Shape("valid", 8, 4096, _GRANULE, _CLAW),
    Shape("valid", 128, 256, _GRANULE, (5, 4, 4)),
    Shape("valid", 32, 32, (5, 20, 100), (5, 10, 100)),
    Shape("valid", 16, 16, (5, 16, 16), _CLAW),
    Shape("valid", 4, 4, (5, 64, 64), (5, 9, 9)),
    Shape("per_dendrite", 1, 1, _PURKINJE, _FULL),
    Shape("per_dendrite", 2, 2, _PURKINJE, _FULL),
    Shape("per_dendrite", 8, 4096, _GRANULE, _CLAW),
    Shape("per_dendrite", 8, 32, (5, 20, 100), (5, 10, 100)),
    Shape("per_dendrite", 16, 64, (5, 16, 16), (5, 5, 16)),
)
QUICK_SHAPES: tuple[Shape, ...] = (
    Shape("same", 2, 8, _GRANULE, _CLAW),
    Shape("valid", 2, 2, (5, 10, 30), (5, 4, 30)),
    Shape("per_dendrite", 2, 3, (5, 8, 6), (5, 3, 6)),
)

# What a backend surely reaches, in MAC by its own count a second on a core or two, and on CUDA.
# It serves to leave out what would take seconds, and never to say which is faster.
_MACS_PER_S = {
    "cpu": {"direct": 1e9, "fft": 1e9, "matmul": 4e9},
    "cuda": dict.fromkeys(BACKENDS, 1e11),
}
_SECONDS_AT_MOST = 2.0
_SLOW_S = 0.7
_MATRIX_BYTES_AT_MOST = 2**29  # of the unrolled filters


def auto(bench: Bench) -> Iterator[Row]:
    """Every backend in turns on every shape; the chosen one's time over the best one's."""
    lost: dict[str, dict[str, float]] = {task: {} for task in TASKS}
    for shape in bench.pick(SHAPES, QUICK_SHAPES):
        for task in TASKS:
            row = _shape(bench, shape, task)
            value = row.figures[0].value
            if value is not None:
                lost[task][str(shape)] = value
            yield row
    for task, ratios in lost.items():
        yield _summary(task, ratios)


def _summary(task: str, ratios: dict[str, float]) -> Row:
    worst = max(ratios, key=lambda name: ratios[name])
    figures = [
        Figure(
            "chosen_over_best_geometric_mean_ratio", "times the best backend's time, on average",
            geometric_mean(ratios.values()), at_most=_MEAN_AT_MOST,
        ),
        Figure(
            "chosen_over_best_worst_ratio", f"times the best backend's time, at worst ({worst})",
            ratios[worst], at_most=_WORST_AT_MOST,
        ),
    ]  # fmt: skip
    return Row(
        f"auto over {len(ratios)} shapes, {words(task)}", {"shapes": len(ratios)}, {}, figures
    )


def _shape(bench: Bench, shape: Shape, task: str) -> Row:
    torch.manual_seed(0)
    mode, batch, neurons, (time_steps, sites, dendrites), taps = shape
    both = task == "forward_backward"
    chosen = chosen_backend(batch, neurons, shape.sheet, taps, mode, bench.device, both)
    sheet = bench.randn(batch, neurons, time_steps, sites, dendrites)
    filters = bench.randn(neurons, *taps)
    skipped: dict[str, Outcome] = {}
    jobs = {}
    # The chosen one first: what is hopeless beside it is then timed once.
    for backend in sorted({*BACKENDS} - {"auto"}, key=lambda name: (name != chosen, name)):
        reason = None if backend == chosen else _too_much(shape, backend, task, bench)  # type: ignore[arg-type]
        if reason is None:
            jobs[backend] = kernel_job(ours(mode, backend), sheet, filters, task)  # type: ignore[arg-type]
        else:
            skipped[backend] = Failure(reason)
    times = {**bench.turns(jobs, share=0.5, slow=_SLOW_S, hopeless=4.0), **skipped}
    best = fastest(times, list(jobs))
    figure = Figure.of(
        "chosen_over_best_ratio",
        f"times the time of the best, {best}",
        None if best is None else ratio(times[chosen], times[best]),
    )
    sizes = {**shape._asdict(), "chosen": chosen, "best": best}
    return Row(f"auto, {words(task)}: {shape}", sizes, times, [figure])


def _too_much(shape: Shape, backend: Backend, task: str, bench: Bench) -> str | None:
    """Why a backend is left out of this shape: its estimated time, or its matrices' size."""
    mode, batch, neurons, sheet, taps = shape
    macs = sum(conv_macs(batch, neurons, sheet, taps, mode, backend).values())
    macs *= 3 if task == "forward_backward" else 1
    seconds = macs / _MACS_PER_S[bench.device.type].get(backend, math.inf)
    if seconds > _SECONDS_AT_MOST:
        return f"left out: estimated at {seconds:.0f} s, more than {_SECONDS_AT_MOST:g} s"
    if backend == "matmul":
        held = 4 * sum(conv_macs(1, neurons, sheet, taps, mode, backend).values())
        if held > _MATRIX_BYTES_AT_MOST:
            return f"left out: unrolled filters of {held / 2**20:.0f} MiB"
    return None
