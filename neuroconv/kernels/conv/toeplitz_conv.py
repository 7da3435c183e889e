"""The dendritic convolution of small sheets, as products of the filters' matrices (`toeplitz`).

On the CPU kernels in C++ filter the sheet directly (`native_conv`), without a matrix and its zeros.

Shapes: as in `kernels.conv.toeplitz`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.autocast import autocast_dtype, without_autocast
from neuroconv.kernels import native
from neuroconv.kernels.conv import native_conv
from neuroconv.kernels.conv.costs import problem_macs
from neuroconv.kernels.conv.sizes import ConvProblem, Mode, output_size, plain_sizes
from neuroconv.kernels.conv.toeplitz import (
    input_gradient,
    matrix_gradient,
    neuron_chunks,
    toeplitz_matrices,
    toeplitz_transpose,
    window_products,
    within_window,
)
from neuroconv.kernels.operator import Operator


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
    sites, dendrites = plain_sizes(sheet)[3:]
    rows, cols = output_size((sites, dendrites), (filters.shape[2], filters.shape[3]), mode)
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
    plane = (int(sheet.shape[3]), int(sheet.shape[4]))
    matrices = toeplitz_matrices(filters, plane, mode) if matrices is None else matrices
    result = torch.stack(window_products(matrices, _points(sheet), filters.shape[1], steps))
    if bias is None:
        return result
    rows = output_size(plane, (filters.shape[2], filters.shape[3]), mode)[0]
    return result + bias.repeat_interleave(rows, 1).unsqueeze(-1)


def _points(sheet: Tensor) -> Tensor:
    """Copies a sheet (B, N, T, P, D) to inputs (N, T, P * D, B), in `toeplitz_matrices`' order."""
    return sheet.permute(1, 2, 4, 3, 0).flatten(2, 3).contiguous()


def _plain(*arguments: Any) -> Tensor:
    """Filters some neurons at a time, (steps, N, O, B)."""
    sheet, filters, bias, mode, steps, matrices = _Operands(*arguments)
    batch, neurons, _, sites, dendrites = plain_sizes(sheet)
    _, k_time, branches, across = plain_sizes(filters)
    rows, cols = output_size((sites, dendrites), (branches, across), mode)
    result = sheet.new_empty(steps, neurons, rows * cols, batch)
    for cells in neuron_chunks(sheet, neurons, _floats(sheet, filters, rows * cols)):
        part = result[:, cells]
        plane = (sites, dendrites)
        chosen = (
            toeplitz_matrices(filters[cells], plane, mode) if matrices is None else matrices[cells]
        )
        window_products(chosen, _points(sheet[:, cells]), k_time, steps, out=part)
        if bias is not None:
            part += bias[cells].repeat_interleave(rows, 1).unsqueeze(-1)
    return result


def _cpu(*arguments: Any) -> Tensor:
    sheet, filters, bias, mode, steps, matrices = _Operands(*arguments)
    if matrices is None and native.runs(sheet, filters):
        return native_conv.forward(sheet, filters, mode, bias, steps)
    return _plain(*arguments)


def _fake(*arguments: Any) -> Tensor:
    sheet, filters, _, mode, steps, _ = _Operands(*arguments)
    batch, neurons, _, sites, dendrites = sheet.shape
    rows, cols = output_size((sites, dendrites), (filters.shape[2], filters.shape[3]), mode)
    return sheet.new_empty(steps, neurons, rows * cols, batch)


def _flops(sheet: Any, filters: Any, bias: Any, mode: Mode, steps: int, *_: Any, **__: Any) -> int:
    batch, neurons, *window = sheet
    problem = ConvProblem(tuple(window), tuple(filters[1:]), mode, batch, neurons, steps)
    return 2 * problem_macs(problem, "matmul")["matmul"]


def _plain_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Recomputes the matrices, which are never kept."""
    time_steps, sites, dendrites = plain_sizes(sheet)[2:]
    k_time, branches, across = plain_sizes(filters)[1:]
    cols = output_size((sites, dendrites), (branches, across), mode)[1]
    to_sheet, to_filters, to_bias = _empty_grads(sheet, filters, cols, needs)
    grad_points = to_sheet.permute(1, 2, 4, 3, 0) if needs[0] else None
    for cells in neuron_chunks(sheet, len(filters), _floats(sheet, filters, grad.shape[2])):
        local = grad[:, cells].transpose(0, 1).contiguous()
        if grad_points is not None:
            matrices = toeplitz_matrices(filters[cells], (sites, dendrites), mode)
            back = input_gradient(matrices, local, k_time, time_steps)
            grad_points[cells] = back.transpose(0, 1).unflatten(2, (dendrites, sites))
        if needs[1]:
            inputs = F.pad(_points(sheet[:, cells]), (0, 0, 0, 0, k_time - 1, 0))
            back = matrix_gradient(inputs, local, k_time)
            to_filters[cells] = toeplitz_transpose(
                back, filters[cells].shape, (sites, dendrites), mode
            )
        if needs[2]:
            to_bias[cells] = local.unflatten(2, (cols, -1)).sum((1, 3, 4))
    return to_sheet, to_filters, to_bias


def _empty_grads(
    sheet: Tensor, filters: Tensor, cols: int, needs: Sequence[bool], native_order: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Allocates the gradients, the sheet's with the batch innermost and neurons or steps first."""
    batch, neurons, time_steps, sites, dendrites = sheet.shape
    to_sheet = sheet.new_empty(0)
    if needs[0] and native_order:
        shape = (neurons, time_steps, dendrites, sites, batch)
        to_sheet = sheet.new_empty(shape).permute(4, 0, 1, 3, 2)
    elif needs[0]:
        shape = (time_steps, neurons, dendrites, sites, batch)
        to_sheet = sheet.new_empty(shape).permute(4, 1, 0, 3, 2)
    to_filters = filters.new_empty(filters.shape if needs[1] else (0,))
    return to_sheet, to_filters, filters.new_empty((neurons, cols) if needs[2] else (0,))


def _cpu_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    if not native.runs(sheet, filters):
        return _plain_backward(grad, sheet, filters, mode, needs)
    cols = _columns_out(sheet, filters, mode)
    grads = _empty_grads(sheet, filters, cols, needs, native_order=True)
    native_conv.backward(grad, sheet, filters, mode, grads)
    return grads


def _columns_out(sheet: Tensor, filters: Tensor, mode: Mode) -> int:
    plane = (int(sheet.shape[3]), int(sheet.shape[4]))
    return output_size(plane, (filters.shape[2], filters.shape[3]), mode)[1]


def _fake_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    order = native.runs(sheet, filters)
    return _empty_grads(sheet, filters, _columns_out(sheet, filters, mode), needs, order)


def _floats(sheet: Tensor, filters: Tensor, outputs: int) -> int:
    """Counts the floats of one neuron in a chunk: inputs, outputs and matrices."""
    batch, _, steps, sites, dendrites = plain_sizes(sheet)
    points = sites * dendrites
    return steps * batch * (points + outputs) + int(filters.shape[1]) * points * outputs


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
