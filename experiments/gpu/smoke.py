"""Sections of `run.py --smoke`: everything runs, and computes what float64 does on the CPU."""

import importlib.metadata
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from checks import arithmetic, errors
from internals import kernel_state, launched, mend_interpreter, triton_kernels, triton_state
from loads import loads
from recording import Bench, Row, error, figure, not_run, over, row
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiled
from variants import TASKS, module_variant
from workloads import small_model

from neuroconv.flops import profile
from neuroconv.layers import ReleaseOrWait
from neuroconv.neurons import CELL_CLASSES, Granule, GranuleConv2d, Purkinje
from neuroconv.zoo import list_models

NEEDED = (
    "torch", "torchvision", "triton", "numpy", "scipy", "scikit-learn", "safetensors", "rich",
    "jinja2", "matplotlib", "fvcore", "tyro", "tomli-w", "pytest",
)  # fmt: skip
CUDA_ALONE = "it needs CUDA"
LOGITS = (("fp32", 1e-4), ("tf32", 2e-2), ("bf16 autocast", 1e-1))  # and the error that is allowed
FIRST_OPERATORS = 12  # of a profiler's table
DIRECT_MACS = 10**11  # that fvcore may run: a full cell's direct convolution is a quarter of it


def imports(bench: Bench) -> Iterator[Row]:
    """Shows what is installed, what the machine is, and which kernels run on it."""
    installed = {}
    for name in NEEDED:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = None
    missing = sum(version is None for version in installed.values())
    absent = figure("packages are missing: see --wheels", missing, at_most=0)
    yield row("packages", installed, figures={"missing_packages": absent})
    kernels = {"C++": kernel_state(), "Triton": triton_state(bench.device)}
    if not bench.on_cuda:
        yield row("kernels", kernels)
        yield not_run("Triton's kernels on the device", CUDA_ALONE)
        return
    fields = "name,driver_version,power.limit,clocks.max.sm,clocks.max.mem,memory.total"
    words = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20).stdout
    on = figure("Triton's kernels run", int(kernels["Triton"] == "on"), at_least=1)
    yield row("kernels", {**kernels, "nvidia_smi": answer.split(", ")}, figures={"triton": on})


# --- kernels against float64


def kernels(bench: Bench) -> Iterator[Row]:
    """Checks each kernel, forward and backward, against float64 on the CPU in six cases."""
    torch.manual_seed(0)
    if not bench.on_cuda and triton_state(bench.device) == "on":
        mend_interpreter()
    still: dict[str, Any] = {"output": {"mean_wait": 0.0}}  # no noise
    small: dict[str, Any] = {"tree": {"sheet": [5, 20], "filter": [3, 20, 5]}}
    cells, sheets = bench.pick((64, {}), (32, small))
    axons, listeners = bench.pick((2_000, 8), (100, 1))
    pixels = bench.pick(28, 6)
    cases: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "granule cells": (Granule(cells, cells, **still), (4, cells, 5)),
        "granule cells, wired at random": (
            Granule(cells, cells, wiring={"kind": "random", "claw": False}, **still), (4, cells, 5)
        ),
        "Purkinje cells": (
            Purkinje(500, 2, taps={"backend": "fft"}, **sheets, **still), (2, 500, 5)
        ),
        "synapses, hundreds to an axon": (Purkinje(axons, listeners).synapses, (2, axons, 5)),
        "image layer": (
            GranuleConv2d(4, 8, padding="same", norm="both"), (2, 4, 5, pixels, pixels)
        ),
        "image layer of claws": (
            GranuleConv2d(4, 8, padding="same", wiring="claw"), (2, 4, 5, pixels, pixels)
        ),
    }  # fmt: skip
    started: set[str] = set()
    for name, (module, shape) in cases.items():
        inputs = torch.rand(*shape)
        exact = _results(deepcopy(module).double(), inputs.double())
        module.to(bench.device)
        for precision in ("fp32", "bf16 autocast")[: 1 + bench.on_cuda]:
            with arithmetic(precision, bench.device), launched() as names:
                results = _results(module, inputs.to(bench.device))
            started |= set(names)
            figures = errors(results, exact, 1e-4) if precision == "fp32" else {
                part: figure(f"error of the {part}, root mean square", _rms(result, exact[part]),
                             at_most=0.1)
                for part, result in results.items()
            }  # fmt: skip
            yield row(f"{name}, {precision}", {"kernels": names}, figures=figures)
    if triton_state(bench.device) != "on":
        yield not_run("Triton's kernels", triton_state(bench.device))
        return
    left_out = sorted(triton_kernels() - started)
    none = figure("Triton kernels that no case started", len(left_out), at_most=0)
    yield row("Triton's kernels", {"started": sorted(started), "left_out": left_out},
              figures={"left_out_kernels": none})  # fmt: skip
    if not bench.on_cuda:
        yield not_run("kernels in bfloat16 and compiled for the device", CUDA_ALONE)


def _rms(result: Tensor, exact: Tensor) -> float:
    """Returns the error over the values, where rectifiers near their thresholds open or close."""
    exact = exact.detach().double().cpu()
    return float((result.detach().double().cpu() - exact).norm() / exact.norm())


def _results(module: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    x, weights = inputs.detach().requires_grad_(), list(module.parameters())
    y = module.train()(x)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    grads = torch.autograd.grad(y, (x, *weights), grad)
    sizes = torch.stack([grad.double().norm() for grad in grads[1:]])
    return {"output": y, "input_gradient": grads[0], "norms_of_weight_gradients": sizes}


def captured(bench: Bench) -> Iterator[Row]:
    """Captures `ReleaseOrWait` in training, both ways, as a CUDA graph, and replays it."""
    release = ReleaseOrWait(mean_wait=0.5, wait_ms=20, step_ms=5)
    rate = bench.rand(64, 512, 20).add_(0.1).requires_grad_()

    def both_ways() -> tuple[Tensor, Tensor]:
        released = release(rate)
        return released, *torch.autograd.grad(released, rate, torch.ones_like(released))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        both_ways()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        released, grad = both_ways()
    replays = []
    for _ in range(10):
        graph.replay()
        replays.append(released.clone())
    same = sum(torch.equal(a, b) for a, b in zip(replays, islice(replays, 1, None), strict=False))
    kept = torch.stack(replays).mean() / rate.mean()
    figures = {
        "equal_replays": figure("replays repeat the noise of the one before", same, at_most=0),
        "rate_error": figure("off the mean rate", abs(float(kept) - 1), at_most=0.02),
        **errors({"gradient": grad * rate}, {"gradient": released}, 1e-5),
    }
    yield row("ReleaseOrWait as a graph", {"rates": list(rate.shape)}, figures=figures)


# --- the zoo


def _images(bench: Bench, name: str) -> Tensor:
    large = name.startswith("resnet18")
    return torch.rand(4, 3 if large else 1, *[bench.pick(224, 64) if large else 28] * 2)


def training(bench: Bench) -> Iterator[Row]:
    """Checks every entry: its logits, a training step in bfloat16, and who waits meanwhile."""
    for name in list_models(installed=True):
        images = _images(bench, name)
        model = small_model(name, bench.quick, image_shape=images.shape[1:], num_classes=10).eval()
        with torch.no_grad():
            exact = model(images)
        model, images = model.to(bench.device), images.to(bench.device)
        figures = {}
        for precision, tolerance in bench.pick(LOGITS, LOGITS[-1:]):  # fp32 is a CPU's own
            with torch.no_grad(), arithmetic(precision, bench.device):
                logits = model(images)
            figures[f"{precision.partition(' ')[0]}_error_over_largest"] = figure(
                f"error of the logits in {precision}", error(logits, exact), at_most=tolerance
            )
        before = [weight.detach().clone() for weight in model.parameters()]
        step = _step(model.train(), images, bench)
        step()
        still = sum(
            torch.equal(old, new) or new.grad is None or not bool(new.grad.isfinite().all())
            for old, new in zip(before, model.parameters(), strict=True)
        )
        text = "parameters that a step in bf16 leaves as they were, or not finite"
        figures["still_or_not_finite"] = figure(text, still, at_most=0)
        notes = []
        if bench.on_cuda:
            notes = waits(step)
            figures["waits_for_the_device"] = figure(
                "times the host waits for the device in a step", len(notes), at_most=0
            )
        yield row(name, {"images": list(images.shape)}, figures=figures, notes=notes)
    if not bench.on_cuda:
        yield not_run("logits in fp32 and tf32 against the CPU's", CUDA_ALONE)
        yield not_run("set_sync_debug_mode around a step", CUDA_ALONE)


def _step(model: nn.Module, images: Tensor, bench: Bench) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    labels = torch.arange(len(images), device=bench.device)

    def step() -> None:
        optimizer.zero_grad()
        with arithmetic("bf16 autocast", bench.device):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def waits(call: Callable[[], object]) -> list[str]:
    """Returns where a call makes the host wait for a GPU, as torch's debug mode warns of it."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [
        f"{os.path.relpath(warning.filename)}:{warning.lineno}: {warning.message}"
        for warning in caught if "called a synchronizing" in str(warning.message)
    ]  # fmt: skip


def counters(bench: Bench) -> Iterator[Row]:
    """Checks that the three counters agree, on full cells and every entry, run on the device."""
    full: dict[str, Any] = {"taps": {"backend": "direct"}}
    for name, kind in CELL_CLASSES.items():
        yield _counted(bench, f"{name} cell", kind(1_000, 1), torch.rand(1, 1_000, 5))
    filters = "purkinje cell, 10x1000x5 as a direct convolution"
    yield _counted(bench, filters, Purkinje(1_000, 1, **full), torch.rand(1, 1_000, 5))
    for name in list_models(installed=True):
        images = _images(bench, name)
        model = small_model(name, bench.quick, image_shape=images.shape[1:], num_classes=10)
        yield _counted(bench, name, model, images)


def _counted(bench: Bench, name: str, model: nn.Module, inputs: Tensor) -> Row:
    device = bench.device.type
    counted = profile(
        model.eval(), inputs, name=name, device=device if bench.on_cuda else "meta",
        fvcore_device=device, fvcore_limit=DIRECT_MACS,
    )  # fmt: skip
    macs = {counter: counts.mac for counter, counts in counted.counts.items()}
    notes = [f"{counter}: {reason}" for counter, reason in counted.skipped.items()]
    notes += [*counted.disagreements, *map(str, counted.uncounted)]
    figures = {
        "mac": figure(f"MAC by {', '.join(macs)}", max(macs.values())),
        "wrong": figure("counters are missing, differ or lack a rule", len(notes), at_most=0),
    }
    return row(f"counters of {name}", {"mac": macs}, figures=figures, notes=notes)


# --- times


def peaks(bench: Bench) -> Iterator[Row]:
    """Measures the device's peaks on random numbers: products by precision, a copy."""
    for precision in ("fp32", "tf32", "bf16") if bench.on_cuda else ("fp32", "bf16"):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        with arithmetic(precision, bench.device):
            peak = bench.peak(dtype)
        figures = {
            "flop_per_second": figure(f"FLOP/s, by {peak.kernel}", peak.flop_per_s),
            "copy_bytes_per_second": figure("bytes/s, read and written", peak.byte_per_s),
        }
        yield row(f"peaks in {precision}", figures=figures, series=peak.to_dict())


def workloads(bench: Bench) -> Iterator[Row]:
    """Times the three workloads at one size, with a profiler's table of each."""
    torch.manual_seed(0)
    for name, load in loads(bench).items():
        module, inputs = load()
        with arithmetic("fp32", bench.device):
            variants = {task: module_variant(module, inputs, task) for task in TASKS}
            times = bench.times(variants)
            series = {"table": operator_table(variants[TASKS[1]].call, bench)}
        figures = over(times, *reversed(TASKS), "times as long both ways as forward")
        for task, outcome in times.items():
            seconds = getattr(outcome, "median", None)
            figures[f"{task}_seconds"] = figure(f"seconds, {task.replace('_', ' and ')}", seconds)
        yield row(name, {"inputs": list(inputs.shape)}, times, figures, series=series)
        del module, inputs, variants
        bench.release()


def operator_table(call: Callable[[], object], bench: Bench) -> list[str]:
    """Returns a call's operators and kernels by the time that they take, a line each."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * bench.on_cuda]
    with profiled(activities=kinds, acc_events=True) as run:
        call()
        if bench.on_cuda:
            torch.cuda.synchronize()
    key, kind = ("self_cpu_time_total", DeviceType.CPU)
    if bench.on_cuda:  # of kernels: the operators that launch them have their times too
        key, kind = ("self_device_time_total", DeviceType.CUDA)
    events = [event for event in run.key_averages() if event.device_type == kind]
    events.sort(key=lambda event: -getattr(event, key))
    total, calls = sum(getattr(e, key) for e in events), sum(event.count for event in events)
    return [f"{total:11,.0f} us {calls:5} in all, once both ways"] + [
        f"{getattr(event, key):11,.0f} us {event.count:5} x {event.key[:90]}"
        for event in events[:FIRST_OPERATORS]
    ]
