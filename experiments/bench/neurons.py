"""Sections on one neuron and on populations: speed, memory, and the choice of a backend."""

from collections.abc import Iterator
from statistics import geometric_mean
from typing import Any

import torch
import torch.nn.functional as F
from internals import (
    FORCED,
    chosen_backend,
    conv_problem,
    problem_macs,
    torch_operators,
    with_backend,
)
from operators import CONVOLUTIONS, TRANSFORMS, operators_alone, peak_bytes
from recording import Bench, Row, error, fastest, figure, over, row
from timer import Failure, Outcome, ratio
from torch import Tensor, nn
from variants import (
    NO_FFT_CONV,
    TASKS,
    Variant,
    conv3d,
    fft_conv,
    kernel_variant,
    module_variant,
    neuroconv,
    pad_same,
    with_layout,
)
from workloads import (
    CLAW,
    FULL,
    GRANULE,
    IMAGE_LAYERS,
    PURKINJE,
    QUICK_IMAGE_LAYERS,
    QUICK_SHAPES,
    SHAPES,
    Shape,
    image_layer,
)

from neuroconv.neurons import Granule

_CONV3D_SLOW_S = 10.0  # some repeats of its forward pass; both ways take a minute

# Layouts of a (B, N, T, P, D) sheet: the order of its axes in memory, the outermost first.
_LAYOUTS: dict[str, tuple[int, ...]] = {
    "batch first": (0, 1, 2, 3, 4),
    "neurons first": (1, 0, 2, 3, 4),
    "neurons first, batch last": (1, 4, 3, 2, 0),
    "neurons last": (0, 2, 3, 4, 1),
}
_CONV3D_LAYOUTS = ("batch first", "neurons last")  # conv3d's two memory formats


def words(task: str) -> str:
    """Returns a task in words."""
    return task.replace("_", " and ")


def purkinje_sizes(bench: Bench) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Returns the sheet (T, P, D) of a full Purkinje cell and its filter (K_T, K_P, K_D)."""
    return bench.pick((PURKINJE, FULL), ((5, 10, 60), (5, 4, 60)))


def purkinje(bench: Bench) -> Iterator[Row]:
    """Compares a Purkinje cell with conv3d, fft-conv-pytorch and bare transforms; its memory."""
    torch.manual_seed(0)
    shape, taps = purkinje_sizes(bench)
    sheet, filters = bench.randn(1, 1, *shape), bench.randn(1, *taps)
    sizes = {
        "batch": 1, "neurons": 1, "time_steps": 5, "sites": shape[1], "dendrites": shape[2],
        "filter": [*taps[1:], taps[0]], "mode": "same",
    }  # fmt: skip
    rival, padded = fft_conv(), pad_same(sheet, taps)
    difference = None
    if rival is not None:
        with torch.no_grad():
            difference = error(neuroconv()(sheet, filters), rival(padded, filters))
    yield row(
        "Purkinje, the same result", sizes,
        figures={"difference_over_largest": figure(
            "difference to fft-conv-pytorch over the largest value", difference, at_most=1e-5
        )},
        notes=[] if rival else [NO_FFT_CONV],
    )  # fmt: skip
    for task, bars in {"forward": (500, 4, 2.0), "forward_backward": (300, 3, None)}.items():
        yield _purkinje_speed(bench, sheet, filters, sizes, task, *bars)
    for task in TASKS:
        call = kernel_variant(neuroconv(), sheet, filters, task).call
        # Mode "same": the map has the sheet's size, and so has its gradient.
        operands = 2 * sheet.nbytes + filters.nbytes
        inputs = operands if task == "forward_backward" else operands - sheet.nbytes
        peak = inputs + peak_bytes(call, bench.device)
        yield row(
            f"Purkinje, peak memory, {words(task)}",
            {**sizes, "operands_bytes": operands, "peak_bytes": peak},
            figures={"peak_memory_over_input_output_filter_ratio": figure(
                "times input plus output plus filter", peak / operands, at_most=4.0
            )},
            notes=["input, filter and (both ways) the incoming gradient count as alive throughout"],
        )  # fmt: skip


def _purkinje_speed(
    bench: Bench, sheet: Tensor, filters: Tensor, sizes: dict[str, Any], task: str,
    over_conv3d: float, over_fft_conv: float, over_transforms: float | None,
) -> Row:  # fmt: skip
    padded = pad_same(sheet, tuple(filters.shape[1:]))
    cell = kernel_variant(neuroconv(), sheet, filters, task)
    variants, rival = {"neuroconv": cell}, fft_conv()
    notes = [
        "rivals are given the sheet padded",
        f"a call of conv3d of more than {_CONV3D_SLOW_S:g} s is timed once",
    ]
    if rival is not None:
        variants["fft_conv_pytorch"] = kernel_variant(rival, padded, filters, task)
    try:
        alone = operators_alone(cell.call, TRANSFORMS)
        variants["transforms"] = Variant(alone, (), bench.device)
    except ValueError as reason:  # not by FFT on this device or at this size
        notes.append(f"transforms: {reason}")
    times = bench.times(variants, share=3)
    times.setdefault("fft_conv_pytorch", Failure(NO_FFT_CONV))
    # In repeats of their own, which are few: the others would wait for conv3d.
    pair = {"neuroconv": cell, "conv3d": kernel_variant(conv3d, padded, filters, task)}
    beside = bench.times(pair, slow=_CONV3D_SLOW_S)
    figures = {
        **over(beside, "conv3d", "neuroconv", "times faster than conv3d",
               at_least=bench.on("cpu", over_conv3d)),
        **over(times, "fft_conv_pytorch", "neuroconv", "times faster than fft-conv-pytorch",
               at_least=bench.on("cpu", over_fft_conv)),
    }  # fmt: skip
    if "transforms" in times:
        bar = over_transforms and bench.on("cpu", over_transforms)
        figures |= over(times, "neuroconv", "transforms", "times its transforms alone", at_most=bar)
    times["conv3d"] = beside["conv3d"]
    return row(f"Purkinje, {words(task)}", sizes, times, figures, notes)


def granule(bench: Bench) -> Iterator[Row]:
    """Compares granule cells with grouped conv3d: dendrites alone, then axons to rates."""
    torch.manual_seed(0)
    batch, neurons = bench.pick((32, 4096), (2, 64))
    for task in TASKS:
        yield _granule_dendrites(bench, batch, neurons, task)
    for task in TASKS:
        activity = bench.rand(batch, neurons, 5)
        times = bench.times(
            {
                name: module_variant(
                    bench.build(with_backend, Granule, neurons, neurons, backend=backend),
                    activity, task,
                )
                for name, backend in (("neuroconv", "auto"), ("conv3d", "direct"))
            },
            share=6,
        )  # fmt: skip
        text = "times faster than with grouped conv3d, axons to rates"
        sizes = {"batch": batch, "neurons": neurons, "axons": neurons, "time_steps": 5}
        figures = over(times, "conv3d", "neuroconv", text, at_least=bench.on("cpu", 5))
        yield row(f"granule population, {words(task)}", sizes, times, figures)


def _granule_dendrites(bench: Bench, batch: int, neurons: int, task: str) -> Row:
    sheet, filters = bench.randn(batch, neurons, *GRANULE), bench.randn(neurons, *CLAW)
    padded = pad_same(sheet, CLAW)
    variants = {
        f"neuroconv, {name}": kernel_variant(neuroconv(), with_layout(sheet, axes), filters, task)
        for name, axes in _LAYOUTS.items()
    }
    for name in _CONV3D_LAYOUTS:
        variants[f"conv3d, {name}"] = kernel_variant(
            conv3d, with_layout(padded, _LAYOUTS[name]), filters, task
        )
    times = bench.times(variants, share=4)
    best = {side: fastest(times, [name for name in variants if name.startswith(side)])
            for side in ("neuroconv", "conv3d")}  # fmt: skip
    figures = {}
    if None not in best.values():
        layout = best["conv3d"].removeprefix("conv3d, ")
        in_its_layout = ratio(times[best["conv3d"]], times[f"neuroconv, {layout}"])
        figures = {
            "conv3d_over_neuroconv_ratio": figure(
                "times faster than grouped conv3d, each in its best layout",
                ratio(times[best["conv3d"]], times[best["neuroconv"]]),
                at_least=bench.on("cpu", 5),
            ),
            "conv3d_over_neuroconv_in_its_layout_ratio": figure(
                f"times faster in conv3d's layout ({layout})", in_its_layout
            ),
        }
    sizes = {
        "batch": batch, "neurons": neurons, "time_steps": 5, "sites": 4, "dendrites": 4,
        "filter": [3, 4, 5], "mode": "same", "best_layouts": list(best.values()),
    }  # fmt: skip
    notes = ["conv3d is given the sheet padded"]
    return row(f"granule dendrites, {words(task)}", sizes, times, figures, notes)


class CausalConv3d(nn.Conv3d):
    """A plain convolution of a granule layer's taps and shapes: padded as "same", causal."""

    def forward(self, frames: Tensor) -> Tensor:
        time, height, width = self.kernel_size
        pads = ((width - 1) // 2, width // 2, (height - 1) // 2, height // 2, time - 1, 0)
        return super().forward(F.pad(frames, pads))


def image_layers(bench: Bench) -> Iterator[Row]:
    """Compares GranuleConv2d, both ways, with its convolutions alone and a Conv3d of its taps."""
    batch, both = bench.pick(128, 2), "forward_backward"
    for channels, units, pixels in bench.pick(IMAGE_LAYERS, QUICK_IMAGE_LAYERS):
        for norm in ("none", "both"):
            layer, frames = image_layer(channels, units, pixels, norm, batch, bench.device)
            whole = module_variant(layer, frames, both)
            with torch_operators():  # they make the convolutions that are run alone
                alone = operators_alone(whole.call, CONVOLUTIONS)
            plain = bench.build(CausalConv3d, channels, units, (5, 3, 4))
            variants = {
                "layer": whole,
                "convolutions": Variant(alone, (), bench.device),
                "conv3d": module_variant(plain, frames, both),
            }
            times = bench.times(variants, share=2)
            figures = {
                **over(times, "layer", "convolutions", "times its convolutions alone", at_most=1.5),
                **over(times, "layer", "conv3d", "times a Conv3d of the same taps"),
            }
            sizes = {
                "batch": batch, "channels": channels, "units": units, "pixels": pixels,
                "time_steps": 5, "kernel": [3, 4], "norm": norm,
            }  # fmt: skip
            name = f"GranuleConv2d {channels} to {units} at {pixels}, norm {norm}"
            yield row(name, sizes, times, figures)


# What a backend surely reaches, in MAC by its own count a second on a core or two, and on CUDA.
# It serves to leave out what would take seconds, and never to say which is faster.
_MACS_PER_S = {
    "cpu": {"direct": 1e9, "fft": 1e9, "matmul": 4e9},
    "cuda": dict.fromkeys(FORCED, 1e11),
}
_SECONDS_AT_MOST = 2.0
_MATRIX_BYTES_AT_MOST = 2**29  # of the unrolled filters


def auto(bench: Bench) -> Iterator[Row]:
    """Compares the chosen backend with the best one, over forty shapes."""
    chosen_over_best: dict[str, dict[str, float]] = {task: {} for task in TASKS}
    for shape in bench.pick(SHAPES, QUICK_SHAPES):
        for task in TASKS:
            item = _backends(bench, shape, task)
            value = item["figures"]["chosen_over_best_ratio"]["value"]
            if value is not None:
                chosen_over_best[task][str(shape)] = value
            yield item
    for task, ratios in chosen_over_best.items():
        worst = max(ratios, key=lambda name: ratios[name])
        figures = {
            "chosen_over_best_geometric_mean_ratio": figure(
                "times the best backend's time, on average", geometric_mean(ratios.values()),
                at_most=1.2,
            ),
            "chosen_over_best_worst_ratio": figure(
                f"times the best backend's time, at worst ({worst})", ratios[worst], at_most=1.5
            ),
        }  # fmt: skip
        name = f"auto over {len(ratios)} shapes, {words(task)}"
        yield row(name, {"shapes": len(ratios)}, {}, figures)


def _backends(bench: Bench, shape: Shape, task: str) -> Row:
    torch.manual_seed(0)
    chosen = chosen_backend(shape, bench.device.type, task == "forward_backward")
    sheet = bench.randn(shape.batch, shape.neurons, *shape.sheet)
    filters = bench.randn(shape.neurons, *shape.taps)
    left_out: dict[str, Outcome] = {}
    variants = {}
    # The chosen one first: what is hopeless beside it is then timed once.
    for backend in sorted(FORCED, key=lambda name: (name != chosen, name)):
        reason = None if backend == chosen else _too_much(shape, backend, task, bench.device.type)
        if reason is None:
            function = neuroconv(shape.mode, backend)
            variants[backend] = kernel_variant(function, sheet, filters, task)
        else:
            left_out[backend] = Failure(reason)
    times = {**bench.times(variants, share=0.5, slow=0.7, hopeless=4.0), **left_out}
    best = fastest(times, list(variants))
    value = None if best is None else ratio(times[chosen], times[best])
    figures = {"chosen_over_best_ratio": figure(f"times the time of the best, {best}", value)}
    sizes = {**shape._asdict(), "chosen": chosen, "best": best}
    return row(f"auto, {words(task)}: {shape}", sizes, times, figures)


def _too_much(shape: Shape, backend: str, task: str, device: str) -> str | None:
    """Returns why a backend is left out of a shape: its estimated time, or its matrices' size."""
    problem = conv_problem(shape)
    macs = sum(problem_macs(problem, backend).values()) * (3 if task == "forward_backward" else 1)
    seconds = macs / _MACS_PER_S[device][backend]
    if seconds > _SECONDS_AT_MOST:
        return f"left out: estimated at {seconds:.0f} s, more than {_SECONDS_AT_MOST:g} s"
    matrix_bytes = 4 * sum(problem_macs(problem._replace(batch=1), backend).values())
    if backend == "matmul" and matrix_bytes > _MATRIX_BYTES_AT_MOST:
        return f"left out: unrolled filters of {matrix_bytes / 2**20:.0f} MiB"
    return None
