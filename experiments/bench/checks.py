"""Sections on correctness: the device against float64 on the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from internals import FORCED
from neurons import purkinje_sizes
from recording import Bench, Row, error, figure, row
from torch import Tensor
from variants import neuroconv
from workloads import CLAW, GRANULE

TOLERANCES = {"fp32": 1e-5, "tf32": 5e-3, "bf16 tensors": 2e-2, "bf16 autocast": 2e-2}
_PARTS = {
    "output": "output",
    "sheet_gradient": "sheet's gradient",
    "filter_gradient": "filters' gradient",
}
_ROOT = Path(__file__).resolve().parents[2]
_TESTS_SECONDS = 100.0
_MODES = ("same", "valid", "per_dendrite")
Operands = tuple[Tensor, Tensor]


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Runs float32 products in "tf32", or else in full float32, under autocast if "bf16 autocast".

    Convolutions and matrix products are both set, so that neither has torch's own default.
    """
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16 autocast"):
            yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def with_gradients(
    function: Callable[..., Tensor], operands: Operands, seed: int = 1
) -> dict[str, Tensor]:
    """Returns the output and both gradients, for a random gradient of the output."""
    x, w = (operand.detach().requires_grad_() for operand in operands)
    y = function(x, w)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y)
    results = (y.detach(), *torch.autograd.grad(y, (x, w), grad))
    return dict(zip(_PARTS, results, strict=True))


def errors(results: dict[str, Tensor], exact: dict[str, Tensor], at_most: float) -> dict[str, Any]:
    """Returns the figures of these results' errors."""
    return {
        f"{part}_error_over_largest": figure(
            f"error of the {_PARTS.get(part, part)}", error(result, exact[part]), at_most=at_most
        )
        for part, result in results.items()
    }


# (mode, batch, neurons, sheet, taps); the reference is the direct convolution in float64.
_CASES = (
    *((mode, 3, 4, (5, 10, 12), (5, 4, 12)) for mode in _MODES),
    ("same", 8, 256, GRANULE, CLAW),
)


def accuracy(bench: Bench) -> Iterator[Row]:
    """Checks every backend, mode and precision, output and both gradients, against float64."""
    torch.manual_seed(0)
    for precision in [name for name in TOLERANCES if bench.on_cuda or name != "tf32"]:
        for backend in FORCED:
            worst = dict.fromkeys(_PARTS, 0.0)
            for mode, batch, neurons, sheet, taps in bench.pick(_CASES, _CASES[:3]):
                sizes = (batch, neurons, *sheet), (neurons, *taps)
                current = _conv_errors(bench, mode, backend, precision, sizes, "direct")
                worst = {part: max(worst[part], current[part]) for part in _PARTS}
            yield _accuracy_row(backend, precision, worst)
    shape, taps = purkinje_sizes(bench)
    # The FFT in float64 is the reference here: the direct convolution takes a minute.
    worst = _conv_errors(bench, "same", "auto", "fp32", ((1, 1, *shape), (1, *taps)), "fft")
    yield _accuracy_row("Purkinje of full size, auto", "fp32", worst)


def _accuracy_row(name: str, precision: str, worst: dict[str, float]) -> Row:
    figures = {
        f"{part}_error_over_largest": figure(
            f"error of the {text}", worst[part], at_most=TOLERANCES[precision]
        )
        for part, text in _PARTS.items()
    }
    sizes = {"precision": precision, "modes": list(_MODES)}
    return row(f"accuracy of {name}, {precision}", sizes, {}, figures)


def _conv_errors(
    bench: Bench, mode: str, backend: str, precision: str,
    sizes: tuple[tuple[int, ...], tuple[int, ...]], reference: str,
) -> dict[str, float]:  # fmt: skip
    """Returns errors by part; bf16 tensors are compared with their own values in float64."""
    dtype = torch.bfloat16 if precision == "bf16 tensors" else torch.float32
    operands = [torch.randn(size).to(dtype) for size in sizes]
    exact = with_gradients(neuroconv(mode, reference), [operand.double() for operand in operands])
    with arithmetic(precision, bench.device):
        moved = [operand.to(bench.device) for operand in operands]
        results = with_gradients(neuroconv(mode, backend), moved)
    return {part: error(results[part], exact[part]) for part in _PARTS}
