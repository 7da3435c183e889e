"""A population of granule cells, batch 32 x 4,096 neurons: their dendrites, and whole cells."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from neuroconv.bench.kernels import TASKS, conv3d, kernel_job, module_job, ours, pad_same
from neuroconv.bench.purkinje import words
from neuroconv.bench.record import Bench, Figure, Row, fastest
from neuroconv.bench.turns import ratio
from neuroconv.neurons import Granule

_FASTER = 5.0

# Layouts of a (B, N, T, P, D) sheet: the order of its axes in memory, the outermost first.
_LAYOUTS: dict[str, tuple[int, ...]] = {
    "batch first": (0, 1, 2, 3, 4),
    "neurons first": (1, 0, 2, 3, 4),
    "neurons first, batch last": (1, 4, 3, 2, 0),
    "neurons last": (0, 2, 3, 4, 1),
}
_CONV3D_LAYOUTS = ("batch first", "neurons last")  # conv3d's two memory formats


def granule(bench: Bench) -> Iterator[Row]:
    """The dendrites against grouped conv3d, each in the layout it likes best; whole populations."""
    torch.manual_seed(0)
    batch, neurons = bench.pick((32, 4096), (2, 64))
    for task in TASKS:
        yield _dendrites(bench, batch, neurons, task)
    for task in TASKS:
        yield _population(bench, batch, neurons, task)


def laid_out(sheet: Tensor, order: tuple[int, ...]) -> Tensor:
    """The same tensor with its axes in this order in memory."""
    back: Callable[[int], int] = order.index
    return sheet.permute(order).contiguous().permute([back(axis) for axis in range(len(order))])


def _dendrites(bench: Bench, batch: int, neurons: int, task: str) -> Row:
    sheet, filters = bench.randn(batch, neurons, 5, 4, 4), bench.randn(neurons, 5, 3, 4)
    padded = pad_same(sheet, (5, 3, 4))
    jobs = {
        f"neuroconv, {name}": kernel_job(ours(), laid_out(sheet, order), filters, task)
        for name, order in _LAYOUTS.items()
    }
    for name in _CONV3D_LAYOUTS:
        tensor = laid_out(padded, _LAYOUTS[name])
        jobs[f"conv3d, {name}"] = kernel_job(conv3d, tensor, filters, task)
    times = bench.turns(jobs, share=4)
    own = fastest(times, [name for name in jobs if name.startswith("neuroconv")])
    theirs = fastest(times, [name for name in jobs if name.startswith("conv3d")])
    figures = []
    if own is not None and theirs is not None:
        given = theirs.replace("conv3d", "neuroconv")
        figures = [
            Figure.of(
                "conv3d_over_neuroconv_ratio",
                "times faster than grouped conv3d, each in its best layout",
                ratio(times[theirs], times[own]),
                at_least=bench.on_cpu(_FASTER),
            ),
            Figure.of(
                "conv3d_over_neuroconv_in_its_layout_ratio",
                f"times faster in conv3d's layout ({theirs.removeprefix('conv3d, ')})",
                ratio(times[theirs], times[given]),
            ),
        ]
    sizes = {
        "batch": batch, "neurons": neurons, "time_steps": 5, "sites": 4, "dendrites": 4,
        "filter": [3, 4, 5], "mode": "same", "best_layouts": [own, theirs],
    }  # fmt: skip
    note = "conv3d is given the sheet padded"
    return Row(f"granule dendrites, {words(task)}", sizes, times, figures, [note])


def _population(bench: Bench, batch: int, neurons: int, task: str) -> Row:
    activity = torch.rand(batch, neurons, 5, device=bench.device)
    jobs = {}
    for name, backend in (("neuroconv", "auto"), ("conv3d", "direct")):
        with torch.device(bench.device):
            cells = Granule(neurons, neurons, backend=backend)  # type: ignore[arg-type]
        jobs[name] = module_job(cells, activity, task)
    times = bench.turns(jobs, share=6)
    figure = Figure.of(
        "conv3d_over_neuroconv_ratio",
        "times faster than with grouped conv3d, axons to rates",
        ratio(times["conv3d"], times["neuroconv"]),
        at_least=bench.on_cpu(_FASTER),
    )
    sizes = {"batch": batch, "neurons": neurons, "axons": neurons, "time_steps": 5}
    return Row(f"granule population, {words(task)}", sizes, times, [figure])
