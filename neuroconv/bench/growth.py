"""How time grows with neurons, batch, time steps, sites and dendrites."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import linregress

from neuroconv.bench.kernels import TASKS, module_job
from neuroconv.bench.purkinje import words
from neuroconv.bench.record import Bench, Figure, Row
from neuroconv.bench.turns import Failure, Job
from neuroconv.neurons import Granule, Purkinje
from neuroconv.neurons.population import Population

# The exponent is at most this: linear at a fixed filter, quasilinear in the sheet's own sides.
BARS = {"neurons": 1.05, "batch": 1.05, "time_steps": 1.05, "sites": 1.15, "dendrites": 1.15}
_AXONS = 2_000
_SLOW_S = 0.7  # the largest sizes are timed once


@dataclass(frozen=True)
class Exponent:
    """How time grows: seconds = constant x size ** value."""

    value: float
    standard_error: float
    seconds_at_one: float


class Sizes(NamedTuple):
    """A population and its input. The filter spans all dendrites."""

    neurons: int
    batch: int
    time_steps: int
    sites: int
    dendrites: int


class Cell(NamedTuple):
    """A cell type, its filter's branches and steps, and where each axis starts and ends."""

    build: Callable[..., Population]
    branches: int
    taps: int
    axes: Mapping[str, tuple[Sizes, Sequence[int]]]


def _axes(**lines: tuple[Sizes, Sequence[int]]) -> dict[str, tuple[Sizes, Sequence[int]]]:
    return dict(lines)


_ONE = Sizes(1, 1, 5, 100, 1000)
_MANY, _FEW = Sizes(4096, 32, 5, 4, 4), Sizes(256, 32, 5, 4, 4)
CELLS: dict[str, Cell] = {
    "Purkinje": Cell(Purkinje, 10, 5, _axes(
        neurons=(_ONE, (1, 2, 4, 8, 16)), batch=(_ONE, (1, 2, 4, 8, 16)),
        time_steps=(_ONE, (5, 10, 20, 40, 80)), sites=(_ONE, (50, 100, 200, 400, 800)),
        dendrites=(_ONE, (125, 250, 500, 1000, 2000)),
    )),
    "granule": Cell(Granule, 3, 5, _axes(
        neurons=(_MANY, (256, 512, 1024, 2048, 4096)), batch=(_MANY, (2, 4, 8, 16, 32)),
        time_steps=(_FEW, (5, 10, 20, 40, 80)), sites=(_FEW, (4, 8, 16, 32, 64)),
        dendrites=(_FEW, (4, 8, 16, 32, 64)),
    )),
}  # fmt: skip
_SMALL = Sizes(2, 2, 5, 6, 8)
QUICK_CELLS: dict[str, Cell] = {
    name: Cell(cell.build, 3, 5, _axes(**dict.fromkeys(BARS, (_SMALL, (6, 12, 24)))))
    for name, cell in CELLS.items()
}  # fmt: skip


def fit_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> Exponent:
    """Least squares on logarithms.

    Raises:
        ValueError: fewer than three points, or a number that has no logarithm.
    """
    if len(sizes) < 3 or len(sizes) != len(seconds) or min(*sizes, *seconds) <= 0:
        raise ValueError(
            f"sizes={list(sizes)}, seconds={list(seconds)}; expected three or more of each, all "
            "above 0"
        )
    line = linregress(np.log(sizes), np.log(seconds))
    return Exponent(float(line.slope), float(line.stderr), float(np.exp(line.intercept)))


def growth(bench: Bench) -> Iterator[Row]:
    """Whole cells, axons to rates: five points on each axis, timed in turns."""
    for name, cell in bench.pick(CELLS, QUICK_CELLS).items():
        for axis in BARS:
            for task in TASKS:
                yield _axis(bench, name, cell, axis, task)


def _axis(bench: Bench, name: str, cell: Cell, axis: str, task: str) -> Row:
    start, points = cell.axes[axis]
    jobs = {
        str(point): _job(bench, cell, start._replace(**{axis: point}), task) for point in points
    }
    times = bench.turns(jobs, slow=_SLOW_S)
    measured = {
        point: outcome.timing.seconds
        for point in points
        if not isinstance(outcome := times[str(point)], Failure)
    }
    series: dict[str, object] = {
        "cell": name, "axis": axis, "task": task, "sizes": list(measured),
        "seconds": list(measured.values()),
    }  # fmt: skip
    figures = []
    if len(measured) >= 3:
        exponent = fit_exponent(list(measured), list(measured.values()))
        series |= {
            "exponent": exponent.value,
            "exponent_standard_error": exponent.standard_error,
            "seconds_at_one": exponent.seconds_at_one,
        }
        text = (
            f"exponent in {axis.replace('_', ' ')} (standard error {exponent.standard_error:.3f})"
        )
        figures = [Figure("time_exponent", text, exponent.value, at_most=BARS[axis])]
    sizes = {**start._asdict(), axis: list(points), "branches": cell.branches, "taps": cell.taps}
    comparison = f"{name}, growth with {axis.replace('_', ' ')}, {words(task)}"
    return Row(comparison, sizes, times, figures, series=series)


def _job(bench: Bench, cell: Cell, sizes: Sizes, task: str) -> Job:
    torch.manual_seed(0)
    with torch.device(bench.device):
        population = cell.build(
            _AXONS,
            sizes.neurons,
            sheet_shape=(sizes.sites, sizes.dendrites),
            filter_shape=(cell.branches, sizes.dendrites, cell.taps),
        )
    activity = torch.rand(sizes.batch, _AXONS, sizes.time_steps, device=bench.device)
    return module_job(population, activity, task)
