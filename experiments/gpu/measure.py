"""Sections of `run.py --measure`: constants of the choice, times over sizes, training."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from typing import Any

import torch
from calibrate import draw_shape, fit_backends, measure_shape, measurements
from checks import arithmetic, errors
from internals import fused_kernels
from loads import Load, compulsory, granule, image_layer, purkinje
from machine_power import PowerMeter
from networks import shares
from operators import peak_bytes
from recording import Bench, Row, figure, not_run, over, row
from timer import Failure, TimedRun
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset
from variants import TASKS, Variant, module_variant, step_variant
from workloads import small_model

from neuroconv.flops import Peak
from neuroconv.neurons import Granule, graphed
from neuroconv.training import train
from neuroconv.zoo import create_model

CALIBRATED_S = 30.0
# Seconds on an H200 that the largest sizes are to stay below, forward and both ways.
AT_MOST = {"Purkinje dendrites, 32 x 64": (15e-3, 45e-3)}
# Reading the power takes two seconds.
POWERED = (*AT_MOST, "granule cells, 32 x 16384", "image layer, 128 x 16 to 16 at 112")


def calibration(bench: Bench) -> Iterator[Row]:
    """Fits the constants by which "auto" chooses: lines for kernels/conv/times.toml."""
    seconds = bench.pick(CALIBRATED_S, 5.0)
    options = Namespace(seed=0, seconds=seconds, device=bench.device.type)
    drawn = list(measurements(draw_shape, measure_shape, options))
    for task in TASKS:
        text = StringIO()
        with redirect_stdout(text):
            constants = fit_backends(drawn, task, bench.device.type)
        lines = text.getvalue().splitlines()
        series = {
            "table": lines,
            "constants": constants,
            "drawn": drawn if task == TASKS[0] else [],
        }
        yield row(f"constants, {task}", {"shapes": len(drawn)}, series=series)


# --- times over sizes


def _sizes(bench: Bench) -> Iterator[tuple[str, str, Load]]:
    """Yields name, precision and load; of one kind the largest is the last."""
    for batch, neurons in bench.pick(((1, 1), (1, 64), (32, 1), (32, 64)), ((2, 2),)):
        name = f"Purkinje dendrites, {batch} x {neurons}"
        yield name, "fp32", partial(purkinje, bench, batch, neurons)
    batch = bench.pick(32, 2)
    for neurons in bench.pick((256, 4096, 16384), (64,)):
        name, load = f"granule cells, {batch} x {neurons}", partial(granule, bench, batch, neurons)
        yield name, "fp32", load
    yield name, "bf16 autocast", load
    batch = bench.pick(128, 2)
    for size in bench.pick(((8, 8, 28), (16, 32, 14), (64, 64, 56), (16, 16, 112)), ((2, 3, 12),)):
        name = "image layer, {} x {} to {} at {}".format(batch, *size)
        yield name, "fp32", partial(image_layer, bench, batch, *size)
    yield name, "bf16 autocast", partial(image_layer, bench, batch, *size)
    yield f"{name}, claws", "fp32", partial(image_layer, bench, batch, *size, wiring="claw")


def sizes(bench: Bench) -> Iterator[Row]:
    """Times the three workloads over sizes: their shares of the roofs, memory and power."""
    torch.manual_seed(0)
    peaks: dict[str, Peak] = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16 autocast", torch.bfloat16)):
        with arithmetic(precision, bench.device):
            peaks[precision] = bench.peak(dtype)
    for name, precision, load in _sizes(bench):
        module, inputs = load()
        if precision != "fp32":
            inputs = inputs.bfloat16()
        with arithmetic(precision, bench.device):
            yield _placed(bench, name, precision, module, inputs, peaks[precision])
        del module, inputs, load
        bench.release()


def _placed(
    bench: Bench, name: str, precision: str, module: nn.Module, inputs: Tensor, peak: Peak
) -> Row:
    variants = {task: module_variant(module, inputs, task) for task in TASKS}
    times = bench.times(variants, share=0.6)
    flop, moved = compulsory(module, inputs)
    figures: dict[str, Any] = {}
    for task, times_flop, times_moved, bar in zip(
        TASKS, (1, 3), (1, 2), AT_MOST.get(name, (None, None)), strict=True
    ):
        if isinstance(outcome := times[task], TimedRun):
            placed = shares(times_flop * flop, times_moved * moved, outcome.median, peak)
            figures |= {f"{task}_{key}": value for key, value in placed.items()}
            text = f"seconds, {task.replace('_', ' and ')}"
            limit = bar and bench.on("cuda", bar)
            figures[f"{task}_seconds"] = figure(text, outcome.median, at_most=limit)
    both = variants[TASKS[1]].call
    text = "MiB at most, beside parameters and inputs"
    figures["peak_mib"] = figure(text, peak_bytes(both, bench.device) / 2**20)
    if bench.on_cuda and name in POWERED:
        watts = PowerMeter(bench.device.type).read(both).value
        figures["watts"] = figure("W while it runs both ways", watts)
    return row(f"{name}, {precision}", {"inputs": list(inputs.shape)}, times, figures)


def graphs(bench: Bench) -> Iterator[Row]:
    """Compares granule cells in inference as one CUDA graph, operator by operator, and without the
    fused kernel."""
    torch.manual_seed(0)
    for neurons in bench.pick((64, 1024, 4096), (16,)):
        for batch in (1, 32):
            cells = bench.build(Granule, neurons, neurons, output={"mean_wait": 0.0}).eval()
            activity = bench.rand(batch, neurons, 5)

            def plain(cells: nn.Module = cells, activity: Tensor = activity) -> Tensor:
                with fused_kernels(False):
                    return cells(activity)  # type: ignore[no-any-return]

            with torch.no_grad(), arithmetic("fp32", bench.device):
                recorded = graphed(cells, activity)
                figures = errors({"output": recorded(activity)}, {"output": plain()}, 1e-5)
                calls: dict[str, Callable[[], object]] = {
                    "graphed": partial(recorded, activity),
                    "eager": partial(cells, activity),
                    "plain": plain,
                }
                times = bench.times({
                    name: Variant(call, (), bench.device) for name, call in calls.items()
                })  # fmt: skip
            figures |= over(times, "eager", "graphed", "times faster as one graph")
            figures |= over(times, "plain", "eager", "times faster by the fused kernel")
            sizes = {"batch": batch, "cells": neurons}
            yield row(f"{batch} x {neurons} granule cells", sizes, times, figures)


# --- training


def throughput(bench: Bench) -> Iterator[Row]:
    """Times training steps in bfloat16 on images that lie on the device."""
    digits, photographs = (1, 28, 28), (3, *bench.pick((224, 224), (64, 64)))
    small, large = bench.pick((64, 128), (4, 4))
    tasks: dict[str, tuple[tuple[str, ...], int, tuple[int, ...]]] = {
        "mnist_granule": (("granule_convnet", "granule_convnet_conv3d"), small, digits),
        "cerebellum_small": (("cerebellum_small", "mlp"), small, digits),
        "resnet18_granule": (("resnet18_granule", "resnet18"), large, photographs),
    }
    for title, (names, batch, shape) in tasks.items():
        images = bench.rand(batch, *shape)
        variants = {}
        for name in names:
            model = small_model(name, bench.quick, image_shape=shape, num_classes=10)
            variant = step_variant(model.to(bench.device), images)

            def step(call: Callable[[], object] = variant.call) -> object:
                with arithmetic("bf16 autocast", bench.device):
                    return call()

            variants[name] = Variant(step, (), bench.device)
        times = bench.times(variants, share=3)
        figures = over(times, *names, f"times the step of {names[1]}")
        for name, outcome in times.items():
            if not isinstance(outcome, Failure):
                text = f"images/s, {name}"
                figures[f"{name}_images_per_second"] = figure(text, batch / outcome.median)
                mib = peak_bytes(variants[name].call, bench.device) / 2**20
                figures[f"{name}_peak_mib"] = figure(f"MiB at most in a step of {name}", mib)
        yield row(f"training of {title}", {"images": list(images.shape)}, times, figures)
        bench.release()


def loops(bench: Bench) -> Iterator[Row]:
    """Times the training loop as users call it: operator by operator, each step as one CUDA graph,
    and compiled with CUDA graphs of its passes."""
    batch, steps = bench.pick((64, 200), (4, 2))
    frames = TensorDataset(
        torch.rand(batch * steps, 1, 5, 28, 28), torch.arange(batch * steps) % 10
    )
    modes: dict[str, dict[str, Any]] = {"eager": {}, "cuda_graph": {"cuda_graph": True}}
    if bench.on_cuda:
        modes["reduce_overhead"] = {"compile": "reduce-overhead"}
    for mode, keywords in modes.items():
        for name in ("granule_convnet", "cerebellum_small"):
            result = train(
                create_model(name), frames, Subset(frames, range(batch)), epochs=2,
                batch_size=batch, device=bench.device.type, progress=False, **keywords,
            )  # fmt: skip
            pace = result.history[-1]["images_per_second"]  # of the second epoch
            figures = {"images_per_second": figure("images/s", pace)}
            yield row(f"training of {name}, {mode}", {"batch": batch, "steps": steps},
                      figures=figures)  # fmt: skip
    if not bench.on_cuda:
        yield not_run("graphs of training steps", "it needs CUDA")
