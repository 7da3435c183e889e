"""The dendritic convolution of small sheets, as products of the filters' matrices (`toeplitz`).

On the CPU kernels in C++ filter the sheet directly (`native_conv`), without a matrix and its zeros.

Shapes: as in `kernels.conv.toeplitz`.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.autocast import autocast_dtype, without_autocast
from neuroconv.kernels import native
from neuroconv.kernels.conv import native_conv
from neuroconv.kernels.conv.costs import problem_macs
from neuroconv.kernels.conv.sizes import ConvProblem, Mode, output_plane, plain_sizes
from neuroconv.kernels.conv.toeplitz import (
    input_gradient,
    matrix_gradient,
    neuron_chunks,
    toeplitz_matrices,
    toeplitz_transpose,
    window_products,
    within_window,
)
from neuroconv.kernels.operator import Operator, empty_grads


def toeplitz_conv(
    sheet: Tensor,
    filters: Tensor,
    mode: Mode,
    bias: Tensor | None,
    steps: int,
    matrices: Tensor | None = None,
) -> Tensor:
    """Convolves (B, N, T, P, D) with (N, K_T, K_P, K_D) to (B, N, steps, P', D').

    Args:
        bias: (N, D'), or None.
        matrices: the result of `toeplitz_matrices` for these filters; computed if None.
    """
    if matrices is None:
        filters = within_window(filters, int(sheet.shape[2]))
    if (half := autocast_dtype(sheet)) is not None:
        sheet, filters = sheet.to(half), filters.to(half)
        bias = None if bias is None else bias.to(half)
        matrices = None if matrices is None else matrices.to(half)
    rows, cols = output_plane(sheet, filters, mode)
    with without_autocast(sheet):
        run = _reference if native.prefers_reference(sheet, filters) else _toeplitz_conv
        result: Tensor = run(sheet, filters, bias, mode, steps, matrices)
    return result.unflatten(2, (cols, rows)).permute(4, 1, 0, 3, 2)


class _Operands(NamedTuple):
    sheet: Tensor
    filters: Tensor
    bias: Tensor | None
    mode: Mode
    steps: int
    matrices: Tensor | None


def _reference(*arguments: Any) -> Tensor:
    """Filters all neurons at once, (steps, N, O, B)."""
    sheet, filters, bias, mode, steps, matrices = _Operands(*arguments)
    matrices = toeplitz_matrices(filters, _plane(sheet), mode) if matrices is None else matrices
    result = torch.stack(window_products(matrices, _points(sheet), filters.shape[1], steps))
    if bias is None:
        return result
    rows = output_plane(sheet, filters, mode)[0]
    return result + bias.repeat_interleave(rows, 1).unsqueeze(-1)


def _plane(sheet: Tensor) -> tuple[int, int]:
    return int(sheet.shape[3]), int(sheet.shape[4])


def _points(sheet: Tensor) -> Tensor:
    """Copies a sheet (B, N, T, P, D) to inputs (N, T, P * D, B), in `toeplitz_matrices`' order."""
    return sheet.permute(1, 2, 4, 3, 0).flatten(2, 3).contiguous()


def _chunks(sheet: Tensor, filters: Tensor, outputs: int) -> Iterator[slice]:
    """Yields neurons whose inputs, outputs and matrices fit a CPU's cache."""
    batch, neurons, steps, sites, dendrites = plain_sizes(sheet)
    points = sites * dendrites
    floats = steps * batch * (points + outputs) + int(filters.shape[1]) * points * outputs
    return neuron_chunks(sheet, neurons, floats)


def _plain(*arguments: Any) -> Tensor:
    """Filters some neurons at a time, (steps, N, O, B)."""
    sheet, filters, bias, mode, steps, matrices = _Operands(*arguments)
    rows = output_plane(sheet, filters, mode)[0]
    batch, neurons = plain_sizes(sheet)[:2]
    result = sheet.new_empty(steps, neurons, math.prod(output_plane(sheet, filters, mode)), batch)
    for cells in _chunks(sheet, filters, int(result.shape[2])):
        part = result[:, cells]
        chunk = (
            toeplitz_matrices(filters[cells], _plane(sheet), mode)
            if matrices is None
            else matrices[cells]
        )
        window_products(chunk, _points(sheet[:, cells]), int(filters.shape[1]), steps, out=part)
        if bias is not None:
            part += bias[cells].repeat_interleave(rows, 1).unsqueeze(-1)
    return result


def _cpu(*arguments: Any) -> Tensor:
    """Filters in C++, (steps, N, O, B) in rows of whole vectors: to copy them out takes time."""
    sheet, filters, bias, mode, steps, matrices = _Operands(*arguments)
    if matrices is None and native.runs(sheet, filters):
        return native_conv.forward(sheet, filters, mode, bias, steps)
    return _plain(*arguments)


def _fake(*arguments: Any) -> Tensor:
    sheet, filters, _, mode, steps, matrices = _Operands(*arguments)
    batch, neurons = sheet.shape[:2]
    outputs = math.prod(output_plane(sheet, filters, mode))
    whole_rows = matrices is None and native.runs(sheet, filters)
    samples = native.padded(batch) if whole_rows else batch
    return sheet.new_empty(steps, neurons, outputs, samples)[..., :batch]


def _flops(sheet: Any, filters: Any, bias: Any, mode: Mode, steps: int, *_: Any, **__: Any) -> int:
    batch, neurons, *window = sheet
    problem = ConvProblem(tuple(window), tuple(filters[1:]), mode, batch, neurons, steps)
    return 2 * problem_macs(problem, "matmul")["matmul"]


def _plain_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Recomputes the matrices, which are never kept."""
    sites, dendrites = plane = _plane(sheet)
    k_time, time_steps = int(filters.shape[1]), int(sheet.shape[2])
    to_sheet, to_filters, to_bias = grads = _fake_backward(grad, sheet, filters, mode, needs)
    for cells in _chunks(sheet, filters, grad.shape[2]):
        local = grad[:, cells].transpose(0, 1).contiguous()
        if needs[0]:
            matrices = toeplitz_matrices(filters[cells], plane, mode)
            back = input_gradient(matrices, local, k_time, time_steps)
            split = back.transpose(0, 1).unflatten(2, (dendrites, sites))
            to_sheet.permute(1, 2, 4, 3, 0)[cells] = split
        if needs[1]:
            inputs = F.pad(_points(sheet[:, cells]), (0, 0, 0, 0, k_time - 1, 0))
            back = matrix_gradient(inputs, local, k_time)
            to_filters[cells] = toeplitz_transpose(back, filters[cells].shape, plane, mode)
        if needs[2]:
            to_bias[cells] = local.unflatten(2, (to_bias.shape[1], -1)).sum((1, 3, 4))
    return grads


def _cpu_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    if not native.runs(sheet, filters):
        return _plain_backward(grad, sheet, filters, mode, needs)
    grads = _fake_backward(grad, sheet, filters, mode, needs)
    native_conv.backward(grad, sheet, filters, mode, grads)
    return grads


def _fake_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Allocates the gradients, the sheet's with the neurons outermost and the batch innermost."""
    bias = filters.new_empty(()).expand(len(filters), output_plane(sheet, filters, mode)[1])
    points = sheet.permute(1, 2, 4, 3, 0)
    to_sheet, *learned = empty_grads(sheet, (points, filters, bias), needs)
    return to_sheet.permute(4, 0, 1, 3, 2) if needs[0] else to_sheet, *learned


_toeplitz_conv = Operator(
    "toeplitz_conv(Tensor sheet, Tensor filters, Tensor? bias, str mode, int steps, "
    "Tensor? matrices) -> Tensor",
    _plain, fake=_fake, cpu=_cpu, flops=_flops,
)  # fmt: skip
_toeplitz_conv_backward = Operator(
    "toeplitz_conv_backward(Tensor grad, Tensor sheet, Tensor filters, str mode, bool[] needs) "
    "-> (Tensor, Tensor, Tensor)",
    _plain_backward, fake=_fake_backward, cpu=_cpu_backward,
)  # fmt: skip
_toeplitz_conv.register_gradient(
    lambda grad, arguments, _, needs: _toeplitz_conv_backward(
        grad, *arguments[:2], arguments[3], needs[:3]
    ),
    _reference,
)
