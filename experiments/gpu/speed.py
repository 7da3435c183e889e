"""Speed and memory: the device's own peaks, then layers and training steps."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from measure import (
    Call,
    Row,
    Setup,
    arithmetic,
    peak_memory,
    ratios,
    release,
    time_calls,
)
from torch import Tensor, nn

from neuroconv.bench import first_line
from neuroconv.bench.image_layer import CausalConv3d
from neuroconv.comparison import match_parameters
from neuroconv.layers import DendriticConv, dendritic_conv
from neuroconv.neurons import Granule, GranuleConv2d, Purkinje
from neuroconv.zoo import create_model


def peaks(setup: Setup) -> Iterator[Row]:
    """What this device reaches: a square matrix product and a copy. Shares refer to these."""
    side, megabytes = (256, 16) if setup.quick else (8192, 4096)
    for precision, dtype in (
        ("bf16", torch.bfloat16), ("tf32", torch.float32), ("fp32", torch.float32)
    ):  # fmt: skip
        a, b = torch.randn(2, side, side, device=setup.device).to(dtype)
        with arithmetic(precision):
            times = time_calls({"product": _product(a, b)}, setup)["product"]
        setup.peaks[precision] = 2 * side**3 / times["median_ms"] * 1e3
        rate = {"flop_per_second": setup.peaks[precision]}
        yield {"peak": f"matrix product in {precision}", "side": side, **times, **rate}
    source = torch.empty(megabytes * 2**20, dtype=torch.uint8, device=setup.device)
    target = torch.empty_like(source)
    times = time_calls({"copy": lambda: target.copy_(source)}, setup)["copy"]
    setup.peaks["copy"] = 2 * len(source) / times["median_ms"] * 1e3
    yield {"peak": "copy, read and written", **times, "bytes_per_second": setup.peaks["copy"]}


def _product(a: Tensor, b: Tensor) -> Call:
    return lambda: a @ b


def purkinje(setup: Setup) -> Iterator[Row]:
    """Purkinje cells of full size: the FFT against conv3d, forward, and with both gradients.

    The full map and the gradients are computed, nothing less. The direct convolution is left out
    where its time at the smaller size foretells more than 6 seconds.
    """
    torch.manual_seed(0)
    sheet_shape, branches = ((10, 60), 4) if setup.quick else ((100, 1000), 10)
    sizes = ((1, 1), (2, 1)) if setup.quick else ((1, 1), (8, 1), (64, 1), (1, 8), (8, 8))
    slowest: dict[str, float] = {}  # seconds for one sample of one cell
    for batch, cells in sizes:
        sheet = torch.randn(batch, cells, 5, *sheet_shape, device=setup.device)
        filters = torch.randn(cells, 5, branches, sheet_shape[1], device=setup.device)
        flops = {
            backend: _flops(backend, cells, sheet.shape, (branches, sheet_shape[1], 5))
            for backend in ("fft", "direct")
        }
        for task in ("forward", "forward_backward"):
            variants = {
                f"{backend}_{precision}": _convolution(sheet, filters, backend, precision, task)
                for backend, precision in (("fft", "fp32"), ("direct", "fp32"), ("direct", "tf32"))
                if slowest.get(f"{backend}_{precision}_{task}", 0) * batch * cells < 6
            }
            rows = time_calls(variants, setup)
            for variant, row in rows.items():
                if "median_ms" not in row:
                    continue
                slowest[f"{variant}_{task}"] = row["median_ms"] / 1e3 / batch / cells
                if task == "forward":
                    backend, precision = variant.split("_")
                    rate = flops[backend] / row["median_ms"] * 1e3
                    row["executed_flop_per_second"] = rate
                    row["share_of_peak"] = setup.share(precision, rate)
                    moved = 4 * (2 * sheet.numel() + filters.numel()) / row["median_ms"] * 1e3
                    row["share_of_copy_bandwidth"] = setup.share("copy", moved)
            yield {
                "benchmark": "Purkinje cells of full size", "task": task, "batch": batch,
                "cells": cells, "sheet": sheet_shape, "filter": (branches, sheet_shape[1], 5),
                "executed_flop_forward": flops, "variants": rows, **ratios(rows, "fft_fp32"),
            }  # fmt: skip
        del sheet, filters
        release(setup)


def _flops(backend: str, cells: int, sheet: torch.Size, filter_shape: tuple[int, int, int]) -> int:
    with torch.device("meta"):
        layer = DendriticConv(cells, (sheet[3], sheet[4]), filter_shape, "same", backend)  # type: ignore[arg-type]
    (cost,) = layer.closed_form(sheet)
    return 2 * sum(cost.macs.values()) + cost.pointwise


def _convolution(sheet: Tensor, filters: Tensor, backend: str, precision: str, task: str) -> Call:
    x, w = sheet, filters
    if task == "forward_backward":
        x, w = (t.detach().requires_grad_() for t in (sheet, filters))
    grad = torch.ones_like(sheet)

    def call() -> object:
        with arithmetic(precision):
            y = dendritic_conv(x, w, "same", backend)  # type: ignore[arg-type]
            return y if task == "forward" else torch.autograd.grad(y, (x, w), grad)

    return call


def granule(setup: Setup) -> Iterator[Row]:
    """A population of granule cells by backend: whole cells, from axons to rates."""
    torch.manual_seed(0)
    cells = 64 if setup.quick else 4096
    for batch in (4,) if setup.quick else (32, 256):
        activity = torch.rand(batch, cells, 5, device=setup.device)
        for precision in ("fp32", "bf16"):
            for task in ("forward", "forward_backward"):
                variants = {}
                for backend in ("matmul", "direct", "fft"):
                    with torch.device(setup.device):
                        population = Granule(
                            cells, cells, backend=backend, norm="soma", mean_wait=0.0
                        )
                    variants[backend] = _layer(population, activity, precision, task, setup)
                rows = time_calls(variants, setup)
                yield {
                    "benchmark": "granule population", "task": task, "precision": precision,
                    "batch": batch, "cells": cells, "variants": rows, **ratios(rows, "matmul"),
                }  # fmt: skip


def image_layer(setup: Setup) -> Iterator[Row]:
    """The granule image layer against Conv3d on the same frames, and against Conv2d on one."""
    torch.manual_seed(0)
    sizes = ((4, 8),) if setup.quick else ((16, 32), (64, 32), (16, 112), (64, 112))
    batch = 2 if setup.quick else 32
    for channels, pixels in sizes:
        still = torch.rand(batch, channels, pixels, pixels, device=setup.device)
        frames = torch.rand(batch, channels, 5, pixels, pixels, device=setup.device)
        with torch.device(setup.device):
            conv2d = nn.Conv2d(channels, channels, (3, 4))
            layers: dict[str, tuple[nn.Module, Tensor]] = {
                "granule": (GranuleConv2d(channels, channels, padding="same"), frames),
                "conv3d": (CausalConv3d(channels, channels, (5, 3, 4)), frames),
                "granule_still": (
                    GranuleConv2d(channels, channels, padding="same", time_steps=1), still
                ),
                "conv2d": (nn.Sequential(nn.ZeroPad2d((1, 2, 1, 1)), conv2d), still),
            }  # fmt: skip
        for precision in ("fp32", "tf32", "bf16"):
            for task in ("forward", "forward_backward"):
                variants = {
                    name: _layer(layer, inputs, precision, task, setup)
                    for name, (layer, inputs) in layers.items()
                }
                rows = time_calls(variants, setup, seconds=0.2)
                yield {
                    "benchmark": "image layer", "task": task, "precision": precision,
                    "batch": batch, "channels": channels, "pixels": pixels, "time_steps": 5,
                    "variants": rows, **ratios(rows, "conv3d"), **ratios(rows, "conv2d"),
                }  # fmt: skip
        del layers, still, frames
        release(setup)


def _layer(layer: nn.Module, inputs: Tensor, precision: str, task: str, setup: Setup) -> Call:
    """A layer's forward pass, or with it the gradients of parameters and inputs."""
    layer.train()
    if task == "forward":

        def forward() -> object:
            with torch.no_grad(), arithmetic(precision), setup.autocast(precision):
                return layer(inputs)

        return forward
    x = inputs.detach().requires_grad_()
    wanted = (x, *layer.parameters())

    def both() -> object:
        with arithmetic(precision):
            with setup.autocast(precision):
                y = layer(x)
            return torch.autograd.grad(y, wanted, torch.ones_like(y))

    return both


def training_step(setup: Setup) -> Iterator[Row]:
    """Whole training steps on images that lie on the device: what a run reaches at best."""
    with torch.device("meta"):
        count = sum(p.numel() for p in create_model("granule_convnet").parameters())
    matched = match_parameters("plain_cnn", count, time_steps=5)
    entries: tuple[tuple[str, str, dict[str, object], int], ...] = (
        ("granule_convnet", "granule_convnet", {}, 128),
        ("control", "granule_convnet_conv3d", {}, 128),
        ("plain_cnn_frames", "plain_cnn", matched, 128),
        ("plain_cnn_still", "plain_cnn", {}, 128),
        ("cerebellum_small", "cerebellum_small", {}, 128),
        ("cerebellum_base", "cerebellum_base", {}, 32),
    )
    for label, name, keywords, batch in entries:
        if setup.quick:
            batch = 4
            if name == "cerebellum_base":
                keywords = {
                    "purkinje_cells": 1, "granule_cells": 60, "purkinje_sheet": (10, 60),
                    "purkinje_filter": (4, 60),
                }  # fmt: skip
        side = 8 if name == "cerebellum_base" else 28
        steps = 1 if label == "plain_cnn_still" else 5
        for precision in ("fp32", "tf32", "bf16"):
            torch.manual_seed(0)
            model = create_model(name, image_shape=(1, side, side), **keywords)
            frames = torch.rand(batch, 1, steps, side, side, device=setup.device)
            call = _step(model.to(setup.device).train(), frames, precision, setup)
            row = time_calls({"step": call}, setup)["step"]
            if "median_ms" in row:
                row["images_per_second"] = batch / row["median_ms"] * 1e3
            yield {
                "benchmark": "training step", "model": label, "precision": precision,
                "batch": batch, "image": side, "time_steps": steps,
                "parameters": sum(p.numel() for p in model.parameters()), **row,
            }  # fmt: skip
            del model, call
            release(setup)


def _step(model: nn.Module, frames: Tensor, precision: str, setup: Setup) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    labels = torch.arange(len(frames), device=setup.device) % 10

    def step() -> object:
        with arithmetic(precision):
            with setup.autocast(precision):
                logits = model(frames)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return step


def capacity(setup: Setup) -> Iterator[Row]:
    """How many whole Purkinje cells fit: memory by cell from two sizes, then nine tenths tried.

    One image at a time. "inference" is a forward pass, "training" a step of AdamW with its state.
    """
    if not setup.on_cuda:
        yield {"skipped": "device memory is measured on CUDA alone"}
        return
    small, large = (2, 4) if setup.quick else (8, 64)
    for task in ("inference", "training"):
        release(setup)
        room = torch.cuda.mem_get_info(setup.device)[0] / 2**20
        used = [_memory(cells, task, setup) for cells in (small, large)]
        by_cell = (used[1] - used[0]) / (large - small)
        fit = int((room - used[0]) / by_cell) + small
        row: Row = {
            "capacity": task, "memory_mib": room, "memory_mib_per_cell": by_cell,
            "cells_that_fit": fit,
        }  # fmt: skip
        if not setup.quick:
            tried = fit * 9 // 10
            try:
                row |= {"cells_tried": tried, "peak_memory_mib": _memory(tried, task, setup)}
            except RuntimeError as error:
                row["failed"] = first_line(error)
        yield row


def _memory(cells: int, task: str, setup: Setup) -> float:
    release(setup)
    with torch.device(setup.device):
        population = Purkinje(10_000, cells, norm="soma", mean_wait=0.0)
        activity = torch.rand(1, 10_000, 5)
    if task == "training":
        optimizer = torch.optim.AdamW(population.parameters(), lr=1e-4)

        def call() -> object:
            population(activity).sum().backward()
            optimizer.step()
            return optimizer.zero_grad()

    else:
        population.eval()

        def call() -> object:
            with torch.no_grad():
                return population(activity)

    call()  # the optimizer's state appears
    memory = peak_memory(call, setup)
    assert memory is not None  # this section runs on CUDA alone
    return memory
