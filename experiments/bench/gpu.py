"""Sections that ask what a data-centre GPU does beyond the ratios that a CPU shows too.

They run on a CPU when they are named, and no bar is judged there.
"""

from collections.abc import Iterator
from copy import deepcopy

import torch
from checks import arithmetic, errors
from internals import fused_kernels, with_backend
from neurons import purkinje_sizes, words
from recording import Bench, Row, figure, over, row
from timer import Failure, Outcome, TimedRun
from torch import nn
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
)
from workloads import IMAGE_LAYERS, QUICK_IMAGE_LAYERS, small_model

from neuroconv.flops import profile
from neuroconv.neurons import CELL_CLASSES, Granule, GranuleConv2d, graphed
from neuroconv.zoo import list_models


def peaks(bench: Bench) -> Iterator[Row]:
    """Measures the device's peaks: matrix products by precision, a copy."""
    for precision in ("fp32", "tf32", "bf16"):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        with arithmetic(precision, bench.device):
            peak = bench.peak(dtype)
        figures = {
            "flop_per_second": figure(f"FLOP/s, by {peak.kernel}", peak.flop_per_s),
            "copy_bytes_per_second": figure("bytes/s, read and written", peak.byte_per_s),
        }
        yield row(f"peaks in {precision}", figures=figures, series=peak.to_dict())


def purkinje_population(bench: Bench) -> Iterator[Row]:
    """Compares 32 x 64 full Purkinje cells with cuDNN's conv3d and fft-conv-pytorch.

    conv3d is timed at one sample of one neuron, and so is a rival for which memory does not allow
    more; their time at the full size is then extrapolated, linearly, and labelled so.
    """
    torch.manual_seed(0)
    batch, neurons = bench.pick((32, 64), (2, 2))
    shape, taps = purkinje_sizes(bench)
    for task in TASKS:
        sheet, filters = bench.randn(batch, neurons, *shape), bench.randn(neurons, *taps)
        variants = {"neuroconv": kernel_variant(neuroconv(), sheet, filters, task)}
        times = bench.times(variants, share=2)
        estimates: dict[str, float] = {}
        notes = []
        for name, function in {"conv3d": conv3d, "fft_conv_pytorch": fft_conv()}.items():
            if function is None:
                times[name] = Failure(NO_FFT_CONV)
                continue
            variant = kernel_variant(function, pad_same(sheet[:1, :1], taps), filters[:1], task)
            single = times[f"{name}, 1 x 1"] = bench.times({name: variant})[name]
            outcome: Outcome = Failure("extrapolated from one sample of one neuron")
            if name != "conv3d":
                variant = kernel_variant(function, pad_same(sheet, taps), filters, task)
                outcome = bench.times({name: variant})[name]
                del variant
                bench.release()
            times[name] = outcome
            if isinstance(outcome, TimedRun):
                estimates[name] = outcome.median
            elif isinstance(single, TimedRun):
                estimates[name] = single.median * batch * neurons
                notes.append(f"{name} at {batch} x {neurons}: extrapolated from 1 x 1, linearly")
        cells, value = times["neuroconv"], None
        best = min(estimates, key=lambda name: estimates[name], default="none")
        if isinstance(cells, TimedRun) and estimates:
            value = estimates[best] / cells.median
        figures = {"best_rival_over_neuroconv_ratio": figure(
            f"times faster than the best rival, {best}", value, at_least=bench.on("cuda", 10)
        )}  # fmt: skip
        sizes = {"batch": batch, "neurons": neurons, "sheet": list(shape), "filter": list(taps)}
        yield row(f"Purkinje population, {words(task)}", sizes, times, figures, notes)
        del sheet, filters, variants
        bench.release()


def image_layer_roof(bench: Bench) -> Iterator[Row]:
    """Compares image layers with the roof above them, in float32 and bfloat16.

    The roof is the measured rate of products, or what the copy allows to the bytes that a layer
    must read and write; FLOPs are those of its convolutions, as they run.
    """
    torch.manual_seed(0)
    batch = bench.pick(128, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16 autocast", torch.bfloat16)):
        peak = bench.peak(dtype)
        for channels, units, pixels in bench.pick(
            (*IMAGE_LAYERS, (64, 64, 56)), QUICK_IMAGE_LAYERS
        ):
            frames = bench.rand(batch, channels, 5, pixels, pixels)
            layer = bench.build(GranuleConv2d, channels, units, padding="same")
            variant = module_variant(layer, frames, "forward")

            def call(precision: str = precision, variant: Variant = variant) -> object:
                with arithmetic(precision, bench.device):
                    return variant.call()

            times = bench.times({"layer": Variant(call, variant.weights, bench.device)})
            costs = layer.closed_form(frames.shape)
            flop = sum(cost.executed_flop for cost in costs)
            outputs = batch * sum(cost.neurons for cost in costs) * 5
            roof = peak.attainable(flop / ((frames.numel() + outputs) * dtype.itemsize))
            figures = {}
            if isinstance(outcome := times["layer"], TimedRun):
                bound = "the matrix rate" if roof == peak.flop_per_s else "the bandwidth bound"
                figures["share_of_roof_ratio"] = figure(
                    f"of {bound}", flop / outcome.median / roof, at_least=bench.on("cuda", 0.5)
                )
            sizes = {"frames": list(frames.shape), "flop_per_second_roof": roof}
            name = f"GranuleConv2d {tuple(frames.shape)} under its roof, {precision}"
            yield row(name, sizes, times, figures)


def fused(bench: Bench) -> Iterator[Row]:
    """Checks 4,096 granule cells with the fused kernel against float64 on the same device, and
    compares it with products batched by torch and with grouped conv3d."""
    torch.manual_seed(0)
    neurons = bench.pick(4096, 64)
    for batch in bench.pick((32, 256), (4,)):
        cells = bench.build(Granule, neurons, neurons, output={"mean_wait": 0.0})
        by_conv3d = bench.build(
            with_backend, Granule, neurons, neurons, backend="direct", output={"mean_wait": 0.0}
        )
        activity = bench.rand(batch, neurons, 5)
        results, exact = {}, {}
        for which, module, inputs in (
            (results, cells, activity), (exact, deepcopy(cells).double(), activity.double())
        ):  # fmt: skip
            x = inputs.requires_grad_()
            with arithmetic("fp32", bench.device):
                y = module(x)
                grads = torch.autograd.grad(y, (x, *module.parameters()), torch.ones_like(y))
            which |= {"output": y, "axon_gradient": grads[0], "weight_gradient": grads[1]}
        sizes = {"batch": batch, "cells": neurons}
        yield row(f"granule cells by the fused kernel, batch {batch}", sizes,
                  figures=errors(results, exact, 1e-4))  # fmt: skip
        del results, exact
        for precision in ("fp32", "tf32", "bf16 autocast"):
            for task in TASKS:
                variants = {}
                for name, module in {"fused": cells, "plain": cells, "conv3d": by_conv3d}.items():
                    variant = module_variant(module, activity.detach(), task)

                    def call(variant: Variant = variant, enabled: bool = name == "fused",
                             precision: str = precision) -> object:  # fmt: skip
                        with arithmetic(precision, bench.device), fused_kernels(enabled):
                            return variant.call()

                    variants[name] = Variant(call, variant.weights, bench.device)
                times = bench.times(variants)
                figures = {
                    **over(times, "plain", "fused", "times faster than batched products"),
                    **over(times, "conv3d", "fused", "times faster than grouped conv3d"),
                }
                name = f"granule cells, batch {batch}, {precision}, {words(task)}"
                yield row(name, sizes, times, figures)


def graphs(bench: Bench) -> Iterator[Row]:
    """Compares small populations in inference, operator by operator, with one CUDA graph."""
    torch.manual_seed(0)
    for neurons in bench.pick((16, 64, 256, 1024, 4096), (16,)):
        for batch in (1, 32):
            cells = bench.build(Granule, neurons, neurons, output={"mean_wait": 0.0}).eval()
            activity = bench.rand(batch, neurons, 5)
            with torch.no_grad(), arithmetic("fp32", bench.device):
                recorded = graphed(cells, activity)
                results = {"output": recorded(activity)}
                figures = errors(results, {"output": cells(activity)}, 1e-5)
                calls = {"graphed": recorded, "eager": cells}
                times = bench.times({
                    name: Variant(lambda run=run, x=activity: run(x), (), bench.device)
                    for name, run in calls.items()
                })  # fmt: skip
            figures |= over(times, "eager", "graphed", "times faster as one graph")
            sizes = {"batch": batch, "cells": neurons}
            yield row(f"graph of {batch} x {neurons} granule cells", sizes, times, figures)


def profiles(bench: Bench) -> Iterator[Row]:
    """Profiles every cell and zoo entry under the device's measured roofs."""
    neurons, batch = bench.pick((64, 32), (2, 2))
    modules: dict[str, tuple[nn.Module, torch.Tensor]] = {}
    for name, kind in CELL_CLASSES.items():
        cells = kind(1_000, neurons)
        modules[name] = (cells, torch.rand(batch, 1_000, cells.time_steps))
    for name in list_models():
        large = name.startswith("resnet18")
        shape = (3, *(bench.pick(224, 64),) * 2) if large else (1, 28, 28)
        model = small_model(name, bench.quick, image_shape=shape, num_classes=10)
        modules[name] = (model, torch.rand(batch, *shape))
    for name, (module, inputs) in modules.items():
        counted = profile(module, inputs, name=name, counters=("closed_form", "exact"),
                          device=bench.device.type, timed=True)  # fmt: skip
        figures = {"counters_that_disagree": figure(
            "counters disagree", len(counted.disagreements), at_most=0
        )}  # fmt: skip
        yield row(f"profile of {name}", figures=figures, series=counted.to_dict())
