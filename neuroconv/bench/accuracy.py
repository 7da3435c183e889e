"""Errors of every backend, output and both gradients, against float64."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from neuroconv.bench.kernels import ours
from neuroconv.bench.record import Bench, Figure, Row
from neuroconv.kernels.conv import BACKENDS, Backend, Mode

_AT_MOST = {"fp32": 1e-5, "bf16 tensors": 2e-2, "bf16 autocast": 2e-2}
_PARTS = {
    "output": "output",
    "sheet_gradient": "sheet's gradient",
    "filter_gradient": "filters' gradient",
}
# (mode, batch, neurons, sheet, taps); the reference is the direct convolution in float64.
_CASES: tuple[tuple[Mode, int, int, tuple[int, ...], tuple[int, ...]], ...] = (
    ("same", 3, 4, (5, 10, 12), (5, 4, 12)),
    ("valid", 3, 4, (5, 10, 12), (5, 4, 12)),
    ("per_dendrite", 3, 4, (5, 10, 12), (5, 4, 12)),
    ("same", 8, 256, (5, 4, 4), (5, 3, 4)),
)
# One full Purkinje cell. Here the FFT in float64 is the reference: direct takes a minute.
_FULL = ((5, 100, 1000), (5, 10, 1000))


def accuracy(bench: Bench) -> Iterator[Row]:
    """The largest error over the largest reference, the worst of all modes."""
    torch.manual_seed(0)
    backends: tuple[Backend, ...] = tuple(each for each in BACKENDS if each != "auto")  # type: ignore[misc]
    for precision in _AT_MOST:
        for backend in backends:
            worst = dict.fromkeys(_PARTS, 0.0)
            for mode, batch, neurons, sheet, taps in bench.pick(_CASES, _CASES[:3]):
                found = _errors(
                    bench, mode, backend, precision, (batch, neurons, *sheet), (neurons, *taps),
                    "direct",
                )  # fmt: skip
                worst = {part: max(worst[part], found[part]) for part in _PARTS}
            sizes: dict[str, Any] = {
                "backend": backend,
                "precision": precision,
                "modes": ["same", "valid", "per_dendrite"],
            }
            yield _row(f"{backend}, {precision}", sizes, precision, worst)
    sheet, taps = bench.pick(_FULL, ((5, 10, 60), (5, 4, 60)))
    found = _errors(bench, "same", "auto", "fp32", (1, 1, *sheet), (1, *taps), "fft")
    sizes = {"sheet": list(sheet), "filter": list(taps), "precision": "fp32"}
    yield _row("Purkinje of full size, auto, fp32", sizes, "fp32", found)


def _row(name: str, sizes: dict[str, Any], precision: str, errors: dict[str, float]) -> Row:
    figures = [
        Figure(f"{part}_error_over_largest", f"error of the {words}", errors[part],
               at_most=_AT_MOST[precision])
        for part, words in _PARTS.items()
    ]  # fmt: skip
    return Row(f"accuracy of {name}", sizes, {}, figures)


def _errors(
    bench: Bench,
    mode: Mode,
    backend: Backend,
    precision: str,
    sheet_shape: tuple[int, ...],
    filter_shape: tuple[int, ...],
    reference: Backend,
) -> dict[str, float]:
    """bf16 tensors are compared with float64 of the same rounded numbers."""
    sheet, filters = torch.randn(sheet_shape), torch.randn(filter_shape)
    dtype = torch.bfloat16 if precision == "bf16 tensors" else torch.float32
    sheet, filters = sheet.to(dtype), filters.to(dtype)
    grad_seed = 1
    wanted = _with_gradients(sheet.double(), filters.double(), mode, reference, grad_seed)
    with torch.autocast(bench.device.type, torch.bfloat16, enabled=precision == "bf16 autocast"):
        found = _with_gradients(
            sheet.to(bench.device), filters.to(bench.device), mode, backend, grad_seed
        )
    return {part: _error(found[part], wanted[part]) for part in _PARTS}


def _with_gradients(
    sheet: Tensor, filters: Tensor, mode: Mode, backend: Backend, seed: int
) -> dict[str, Tensor]:
    x, w = (each.detach().requires_grad_() for each in (sheet, filters))
    y = ours(mode, backend)(x, w)
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(y.shape, generator=generator).to(y)
    dx, dw = torch.autograd.grad(y, (x, w), grad)
    return {"output": y.detach(), "sheet_gradient": dx, "filter_gradient": dw}


def _error(found: Tensor, wanted: Tensor) -> float:
    exact = wanted.double().cpu()
    return float((found.double().cpu() - exact).abs().max() / exact.abs().max())
