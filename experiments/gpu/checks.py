"""Correctness: the device against float64 on the CPU, the zoo, and the counters."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from measure import Row, Setup, arithmetic, check
from torch import Tensor, nn

from neuroconv.flops import profile
from neuroconv.layers import SparseSynapses, dendritic_conv, sparse_wiring
from neuroconv.zoo import create_model, get_builder, list_models

TOLERANCES = {"fp32": 1e-5, "tf32": 5e-3, "bf16": 2e-2}


def backends(setup: Setup) -> Iterator[Row]:
    """Each backend and mode, forward and gradients, at each precision.

    "bf16" is autocast over float32 tensors, as in training; "bf16 tensors" holds everything in
    bfloat16 and is compared with float64 of the same rounded numbers.
    """
    torch.manual_seed(0)
    sheet, filters = torch.randn(3, 4, 5, 10, 12), torch.randn(4, 5, 4, 12)
    for mode in ("same", "valid", "per_dendrite"):
        exact = _with_gradients(sheet.double(), filters.double(), mode, "direct")
        rounded = _with_gradients(
            sheet.bfloat16().double(), filters.bfloat16().double(), mode, "direct"
        )
        for backend in ("direct", "fft", "matmul"):
            for precision in ("fp32", "tf32", "bf16", "bf16 tensors"):
                dtype = torch.bfloat16 if precision == "bf16 tensors" else torch.float32
                x, w = (t.to(setup.device, dtype) for t in (sheet, filters))
                with arithmetic(precision), setup.autocast(precision):
                    results = _with_gradients(x, w, mode, backend)
                wanted = rounded if precision == "bf16 tensors" else exact
                for part, result in results.items():
                    yield check(
                        f"dendritic_conv {part}", result, wanted[part],
                        TOLERANCES[precision.partition(" ")[0]],
                        mode=mode, backend=backend, precision=precision,
                    )  # fmt: skip


def _with_gradients(sheet: Tensor, filters: Tensor, mode: str, backend: str) -> dict[str, Tensor]:
    x, w = (t.detach().clone().requires_grad_() for t in (sheet, filters))
    y = dendritic_conv(x, w, mode, backend)  # type: ignore[arg-type]
    torch.manual_seed(1)
    grad = torch.randn(y.shape, dtype=torch.float32).to(y)
    dx, dw = torch.autograd.grad(y, (x, w), grad)
    return {"output": y.detach(), "sheet gradient": dx, "filter gradient": dw}


def full_neuron(setup: Setup) -> Iterator[Row]:
    """One Purkinje cell of full size by the FFT, against scalar products in float64.

    The reference is one sum over the window for each number looked at, written out here and
    sharing no code with any backend.
    """
    torch.manual_seed(0)
    sites, dendrites, branches = (10, 60, 4) if setup.quick else (100, 1000, 10)
    sheet, grad = torch.randn(2, 5, sites, dendrites)
    filters = torch.randn(5, branches, dendrites)
    x = sheet[None, None].to(setup.device).requires_grad_()
    w = filters[None].to(setup.device).requires_grad_()
    y = dendritic_conv(x, w, "same", "fft")
    dx, dw = torch.autograd.grad(y, (x, w), grad[None, None].to(setup.device))

    top, left = (branches - 1) // 2, (dendrites - 1) // 2
    sizes = filters.shape
    padded = F.pad(
        sheet.double(), (left, dendrites - 1 - left, top, branches - 1 - top, sizes[0] - 1, 0)
    )
    spread = F.pad(grad.double(), tuple(n for k in reversed(sizes) for n in (k - 1, k - 1)))
    taps, mirrored = filters.double(), filters.double().flip(0, 1, 2)
    places = [(0, 0, 0), (4, sites // 2, dendrites // 2), (4, sites - 1, dendrites - 1)]
    corners = [(0, 0, 0), (2, branches // 2, dendrites // 3), (4, branches - 1, dendrites - 1)]
    wanted = {
        "output": [(_window(padded, p, sizes) * taps).sum() for p in places],
        "sheet gradient": [
            (_window(spread, (t + sizes[0] - 1, s + top, d + left), sizes) * mirrored).sum()
            for t, s, d in places
        ],
        "filter gradient": [
            (_window(padded, k, grad.shape) * grad.double()).sum() for k in corners
        ],
    }  # fmt: skip
    found = {
        "output": [y[0, 0][p] for p in places],
        "sheet gradient": [dx[0, 0][p] for p in places],
        "filter gradient": [dw[0][k] for k in corners],
    }
    scale = {"output": y, "sheet gradient": dx, "filter gradient": dw}
    for part, numbers in wanted.items():
        largest = scale[part].detach().abs().max().double().cpu()  # errors are relative to it
        result = torch.stack([each.detach().double().cpu() for each in found[part]])
        row = check(
            f"full Purkinje neuron, {part}",
            torch.cat([result, largest[None]]),
            torch.cat([torch.stack(numbers), largest[None]]),
            TOLERANCES["fp32"],
        )
        terms = (grad if part == "filter gradient" else filters).numel()
        yield {**row, "sheet": (sites, dendrites), "scalar_products": len(numbers), "terms": terms}


def _window(tensor: Tensor, start: tuple[int, ...], size: torch.Size) -> Tensor:
    return tensor[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))]


def conv3d_bfloat16(setup: Setup) -> Iterator[Row]:
    """torch's own conv3d in bfloat16: some versions were silently wrong on CUDA."""
    torch.manual_seed(0)
    cases = [
        (8, 8, 1, (3, 3, 3)),
        (16, 32, 1, (5, 3, 4)),
        (8, 8, 8, (5, 3, 4)),
        (1, 1, 1, (5, 4, 12)),
    ]
    for channels, units, groups, kernel in cases:
        x = torch.randn(4, channels, 9, 16, 24)
        w = torch.randn(units, channels // groups, *kernel)
        exact = F.conv3d(x.bfloat16().double(), w.bfloat16().double(), groups=groups)
        x, w = (t.to(setup.device, torch.bfloat16) for t in (x, w))
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            result = F.conv3d(
                x.contiguous(memory_format=layout),
                w.contiguous(memory_format=layout),
                groups=groups,
            )
            yield check(
                "conv3d in bf16", result, exact, TOLERANCES["bf16"], channels=channels, units=units,
                groups=groups, kernel=kernel, layout=str(layout).removeprefix("torch."),
            )  # fmt: skip


def synapse_gradient(setup: Setup) -> Iterator[Row]:
    """The gradient that many synapses send back to one axon, its activity in bfloat16.

    Under autocast a Purkinje cell's inputs are bfloat16, and several hundred of its synapses sum
    their gradients on each axon.
    """
    torch.manual_seed(0)
    axons, cells, sheet = (50, 1, (10, 100)) if setup.quick else (2_000, 8, (100, 1_000))
    wiring = sparse_wiring(axons, cells, sheet[0] * sheet[1], sheet, claw=False, seed=0)
    synapses = SparseSynapses(wiring, axons, sheet)
    activity = torch.rand(2, axons, 5).bfloat16()
    grad = torch.randn(2, cells, 5, *sheet)
    x = activity.double().requires_grad_()
    (wanted,) = torch.autograd.grad(synapses.double()(x), x, grad.double())
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 1e-2)):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        x = activity.to(setup.device, dtype).requires_grad_()
        layer = synapses.float().to(setup.device)
        (result,) = torch.autograd.grad(layer(x), x, grad.to(setup.device))
        yield check(
            "synapses, gradient to the axons", result, wanted, tolerance, precision=precision,
            synapses_per_axon=cells * sheet[0] * sheet[1] // axons,
        )  # fmt: skip


def build(name: str, quick: bool) -> tuple[nn.Module, tuple[int, int, int], int]:
    """A zoo entry as its builder has it (smaller if quick), its image shape and classes."""
    torch.manual_seed(0)
    parameters = inspect.signature(get_builder(name)).parameters
    shape, classes = (parameters[key].default for key in ("image_shape", "num_classes"))
    small: dict[str, dict[str, Any]] = {
        "cerebellum_base": {
            "purkinje_cells": 1, "granule_cells": 60, "purkinje_sheet": (10, 60),
            "purkinje_filter": (4, 60),
        },
        "resnet18_granule": {"width": 8},
    }  # fmt: skip
    keywords = small.get(name, {}) if quick else {}
    if quick and shape[1] > 28:
        shape = (shape[0], 64, 64)
    return create_model(name, image_shape=shape, **keywords), shape, classes


def zoo(setup: Setup) -> Iterator[Row]:
    """Every entry: eval against float32 on the CPU, then a training step in bfloat16."""
    for name in list_models():
        model, shape, classes = build(name, setup.quick)
        images = torch.rand(4, *shape)
        model.eval()
        with torch.no_grad():
            wanted = model(images)
        model.to(setup.device)
        for precision, tolerance in (("fp32", 1e-4), ("tf32", 2e-2), ("bf16", 1e-1)):
            with torch.no_grad(), arithmetic(precision), setup.autocast(precision):
                result = model(images.to(setup.device))
            yield check(f"eval of {name}", result, wanted, tolerance, precision=precision)
        yield _training_step(name, model.train(), images, classes, setup)


def _training_step(name: str, model: nn.Module, images: Tensor, classes: int, setup: Setup) -> Row:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    labels = (torch.arange(len(images)) % classes).to(setup.device)
    with setup.autocast("bf16"):
        logits = model(images.to(setup.device))
    loss = F.cross_entropy(logits.float(), labels)
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    finite = all(g is not None and bool(g.isfinite().all()) for g in gradients)
    optimizer.step()
    moved = sum(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return {
        "check": f"training step of {name}",
        "precision": "bf16",
        "logits_dtype": str(logits.dtype).removeprefix("torch."),
        "loss": loss.item() if loss.isfinite() else None,
        "gradients_finite": finite,
        "parameters_moved": moved,
        "parameters": len(before),
        "ok": finite and bool(loss.isfinite()) and moved == len(before),
    }


def counters(setup: Setup) -> Iterator[Row]:
    """Closed form, exact counter and fvcore on the device, and all against meta tensors."""
    for name in list_models():
        model, shape, _ = build(name, setup.quick)
        images, place = torch.zeros(2, *shape), setup.device.type
        there = profile(model, images, name=name, device=place, fvcore_device=place)
        meta = profile(model, images, name=name, counters=("closed_form", "exact"))
        counts = {counter: dict(each.macs) for counter, each in there.counts.items()}
        yield {
            "check": f"counters on {name}",
            "devices": {counter: each.device for counter, each in there.counts.items()},
            "mac_per_batch_by_family": counts,
            "disagreements": list(there.disagreements),
            "skipped": dict(there.skipped),
            "ok": there.agree is True
            and len(counts) == 3
            and all(counts["exact"] == dict(each.macs) for each in meta.counts.values()),
        }
