"""The full Purkinje cell: one 10x1000x5 filter on a 5x100x1000 sheet, mode "same"."""

from collections.abc import Iterator

import torch
from torch import Tensor

from neuroconv.bench.kernels import (
    NO_FFT_CONV,
    TASKS,
    conv3d,
    fft_conv,
    kernel_job,
    ours,
    pad_same,
)
from neuroconv.bench.memory import peak_bytes
from neuroconv.bench.record import Bench, Figure, Row
from neuroconv.bench.replay import TRANSFORMS, operators_alone
from neuroconv.bench.turns import Failure, Job, Outcome, ratio

# At least so many times faster than conv3d, and than fft-conv-pytorch.
_FASTER = {"forward": (500.0, 4.0), "forward_backward": (300.0, 3.0)}
_TRANSFORMS_AT_MOST = 2.0
_MEMORY_AT_MOST = 4.0
_ERROR_AT_MOST = 1e-5
_CONV3D_SLOW_S = 10.0  # several rounds of its forward pass; both ways take a minute


def purkinje(bench: Bench) -> Iterator[Row]:
    """Speed against conv3d, fft-conv-pytorch and the bare transforms; peak memory."""
    torch.manual_seed(0)
    sites, dendrites, branches = bench.pick((100, 1000, 10), (10, 60, 4))
    sheet = bench.randn(1, 1, 5, sites, dendrites)
    filters = bench.randn(1, 5, branches, dendrites)
    sizes = {
        "batch": 1, "neurons": 1, "time_steps": 5, "sites": sites, "dendrites": dendrites,
        "filter": [branches, dendrites, 5], "mode": "same",
    }  # fmt: skip
    yield _equal(sheet, filters, sizes)
    for task in TASKS:
        yield _speed(bench, sheet, filters, sizes, task)
    for task in TASKS:
        yield _memory(bench, sheet, filters, sizes, task)


def _equal(sheet: Tensor, filters: Tensor, sizes: dict[str, object]) -> Row:
    """What is compared in time computes the same."""
    rival = fft_conv()
    taps = (filters.shape[1], filters.shape[2], filters.shape[3])
    error, notes = None, [NO_FFT_CONV]
    if rival is not None:
        with torch.no_grad():
            theirs = rival(pad_same(sheet, taps), filters).double()
            difference = ours()(sheet, filters).double() - theirs
        error, notes = float(difference.abs().max() / theirs.abs().max()), []
    figure = Figure(
        "difference_over_largest", "difference to fft-conv-pytorch over the largest value", error,
        at_most=_ERROR_AT_MOST,
    )  # fmt: skip
    return Row("Purkinje, the same result", sizes, {}, [figure], notes)


def _speed(
    bench: Bench, sheet: Tensor, filters: Tensor, sizes: dict[str, object], task: str
) -> Row:
    taps = (filters.shape[1], filters.shape[2], filters.shape[3])
    padded = pad_same(sheet, taps)
    mine = kernel_job(ours(), sheet, filters, task)
    jobs = {"neuroconv": mine}
    rival = fft_conv()
    if rival is not None:
        jobs["fft_conv_pytorch"] = kernel_job(rival, padded, filters, task)
    notes = [
        "rivals are given the sheet padded",
        f"a call of conv3d of more than {_CONV3D_SLOW_S:g} s is timed once",
    ]
    try:
        jobs["transforms"] = Job(operators_alone(mine.call, TRANSFORMS))
    except ValueError as error:  # not by FFT on this device or at this size
        notes.append(f"transforms: {error}")
    times: dict[str, Outcome] = {
        **bench.turns(jobs, share=3),
        **({} if rival is not None else {"fft_conv_pytorch": Failure(NO_FFT_CONV)}),
    }
    own = times["neuroconv"]
    # In rounds of its own, which are few: the others would wait for it.
    both = {"neuroconv": mine, "conv3d": kernel_job(conv3d, padded, filters, task)}
    beside = bench.turns(both, slow=_CONV3D_SLOW_S)
    times["conv3d"] = beside["conv3d"]
    over_conv3d, over_fft_conv = _FASTER[task]
    figures = [
        Figure.of(
            "conv3d_over_neuroconv_ratio", "times faster than conv3d",
            ratio(beside["conv3d"], beside["neuroconv"]), at_least=bench.on_cpu(over_conv3d),
        ),
        Figure.of(
            "fft_conv_pytorch_over_neuroconv_ratio", "times faster than fft-conv-pytorch",
            ratio(times["fft_conv_pytorch"], own), at_least=bench.on_cpu(over_fft_conv),
        ),
    ]  # fmt: skip
    if "transforms" in times:
        bar = bench.on_cpu(_TRANSFORMS_AT_MOST) if task == "forward" else None
        figures.append(
            Figure.of(
                "neuroconv_over_transforms_ratio", "times its transforms alone",
                ratio(own, times["transforms"]), at_most=bar,
            )
        )  # fmt: skip
    return Row(f"Purkinje, {words(task)}", sizes, times, figures, notes)


def _memory(
    bench: Bench, sheet: Tensor, filters: Tensor, sizes: dict[str, object], task: str
) -> Row:
    """Everything that is alive at the worst moment, operands and results included."""
    job = kernel_job(ours(), sheet, filters, task)
    peak = peak_bytes(job.call, bench.device)
    outputs = sheet.nbytes  # "same": the map has the sheet's size
    held = sheet.nbytes + filters.nbytes + (outputs if task == "forward_backward" else 0)
    operands = sheet.nbytes + outputs + filters.nbytes
    figure = Figure(
        "peak_memory_over_input_output_filter_ratio",
        "times input plus output plus filter",
        (held + peak) / operands,
        at_most=_MEMORY_AT_MOST,
    )
    measured = {**sizes, "operands_bytes": operands, "peak_bytes": held + peak}
    note = "input, filter and (both ways) the incoming gradient are counted as alive throughout"
    return Row(f"Purkinje, peak memory, {words(task)}", measured, {}, [figure], [note])


def words(task: str) -> str:
    """A task in words."""
    return "forward and backward" if task == "forward_backward" else task
