"""The dendritic convolution where the filter spans all dendrites: one product over the dendrites.

Every tap (k_t, k_p) of time and branches is a row of weights over the dendrites, and every (step,
site) a column of the sheet: one matrix product gives all pairs of them, and the output at a step
and site is the sum along a diagonal of the pairs.

Shapes: as in `neuroconv.kernels.conv`, mode "valid" with K_D = D; R = P - K_P + 1 sites come out.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.autocast import autocast_dtype, without_autocast
from neuroconv.core.counting import blocks
from neuroconv.kernels.conv.sizes import plain_sizes
from neuroconv.kernels.operator import Operator, needs_reference

# Points of a sheet from which on a product of one sample is worth its launch.
_LARGE_SHEET = 1 << 14


def full_width_conv(sheet: Tensor, filters: Tensor, steps: int) -> Tensor:
    """Convolves (B, N, T, P, D) with (N, K_T, K_P, D) to (B, N, steps, R, 1)."""
    if (half := autocast_dtype(sheet)) is not None:
        sheet, filters = sheet.to(half), filters.to(half)
    with without_autocast(sheet):
        run = _reference if needs_reference() else _full_width_conv
        result: Tensor = run(sheet, filters, steps)
    return result.permute(3, 0, 1, 2).unsqueeze(-1)


def _reference(sheet: Tensor, filters: Tensor, steps: int) -> Tensor:
    """Computes (N, steps, R, B) without operators in place."""
    time_steps, sites = int(sheet.shape[2]), int(sheet.shape[3])
    k_time, branches = plain_sizes(filters)[1:3]
    columns = sheet.permute(1, 4, 2, 3, 0).flatten(2)
    products = torch.bmm(filters.flatten(1, 2), columns).unflatten(1, (k_time, branches))
    pairs = products.unflatten(3, (time_steps, sites, -1))  # (N, K_T, K_P, T, P, B)
    rows = sites - branches + 1
    taps = [pairs[:, :, branch, :, branch : branch + rows] for branch in range(branches)]
    sums = torch.stack(taps).sum(0)  # (N, K_T, T, R, B)
    lags = [
        F.pad(sums[:, k_time - 1 - lag, : time_steps - lag], (0, 0, 0, 0, lag, 0))
        for lag in range(min(k_time, time_steps))
    ]
    return torch.stack(lags).sum(0)[:, time_steps - steps :]


def _columns(sheet: Tensor) -> Iterator[tuple[slice, Tensor, bool]]:
    """Yields samples with their steps and sites as the columns of matrices over the dendrites.

    Columns keep their order in memory, (P, T, B), as synapses write them, or (T, P) of one sample;
    small sheets are copied into the first.
    """
    batch, _, *sizes = plain_sizes(sheet)
    if batch > 1 and (sheet.stride(0) == 1 or math.prod(sizes) < _LARGE_SHEET):
        yield slice(0, batch), sheet.permute(1, 4, 3, 2, 0).flatten(2), True
        return
    for sample in blocks(batch, 1, sheet.is_meta):  # (N, D, T * P)
        yield sample, sheet[sample.start].flatten(1, 2).transpose(1, 2), False


def _by_tap(products: Tensor, sizes: tuple[int, int, int, int], batch_last: bool) -> Tensor:
    """Views (N, K_T * K_P, columns) as (N, K_T, K_P, T, P, B)."""
    k_time, branches, time_steps, sites = sizes
    taps = products.unflatten(1, (k_time, branches))
    if batch_last:
        return taps.unflatten(3, (sites, time_steps, -1)).transpose(3, 4)
    return taps.unflatten(3, (time_steps, sites)).unsqueeze(-1)


def _diagonals(pairs: Tensor) -> Tensor:
    """Returns a view (N, K_T, K_P, T, R, B) of (N, K_T, K_P, T, P, B): branch k at site r + k."""
    strides = list(pairs.stride())
    strides[2] += strides[4]  # branch and site advance together
    rows = pairs.shape[4] - pairs.shape[2] + 1
    return pairs.as_strided((*pairs.shape[:4], rows, pairs.shape[5]), strides)


def _plain(sheet: Tensor, filters: Tensor, steps: int) -> Tensor:
    """Computes (N, steps, R, B)."""
    neurons, time_steps, sites, _ = plain_sizes(sheet)[1:]
    k_time, branches = plain_sizes(filters)[1:3]
    weights = filters.flatten(1, 2)
    first = time_steps - steps
    result: Tensor | None = None
    for samples, columns, batch_last in _columns(sheet):
        products = torch.bmm(weights, columns)
        pairs = _by_tap(products, (k_time, branches, time_steps, sites), batch_last)
        sums = _diagonals(pairs).sum(2)
        total = sums[:, -1, first:]  # (N, steps, R, B), or of one sample
        for lag in range(1, min(k_time, time_steps)):
            start = max(first, lag)
            total[:, start - first :] += sums[:, k_time - 1 - lag, start - lag : time_steps - lag]
        if len(sheet) == total.shape[3]:
            return total
        if result is None:
            result = total.new_empty(*total.shape[:3], len(sheet))
        result[..., samples] = total
    rows = sites - branches + 1
    return sheet.new_empty(neurons, steps, rows, 0) if result is None else result


def _contiguous(sheet: Tensor, filters: Tensor, steps: int) -> Tensor:
    """Copies the result of `_plain`: compilers expect an operator's result in its own memory."""
    return _plain(sheet, filters, steps).clone(memory_format=torch.contiguous_format)


def _flops(sheet: Any, filters: Any, *_: Any, **__: Any) -> int:
    return 2 * sheet[0] * sheet[2] * sheet[3] * math.prod(filters)


def _fake(sheet: Tensor, filters: Tensor, steps: int) -> Tensor:
    batch, neurons, _, sites, _ = sheet.shape
    return sheet.new_empty(neurons, steps, sites - filters.shape[2] + 1, batch)


def _plain_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Recomputes the pairs, which take K_T * K_P / D times the memory of the sheet."""
    time_steps, sites, _ = plain_sizes(sheet)[2:]
    neurons, k_time, branches, _ = plain_sizes(filters)
    first = time_steps - int(grad.shape[1])
    weights = filters.flatten(1, 2)
    grad_sheet, _ = _fake_backward(grad, sheet, filters, needs)
    total = torch.zeros_like(weights) if needs[1] else None
    rows = sites - branches + 1
    for samples, columns, batch_last in _columns(sheet):
        shifted = sheet.new_zeros(neurons, k_time, time_steps, rows, samples.stop - samples.start)
        for lag in range(min(k_time, time_steps)):
            start = max(first, lag)
            past = grad[:, start - first :, :, samples]
            shifted[:, k_time - 1 - lag, start - lag : time_steps - lag] = past
        spread = sheet.new_zeros(neurons, k_time * branches, columns.shape[2])
        pairs = _by_tap(spread, (k_time, branches, time_steps, sites), batch_last)
        for branch in range(branches):
            pairs[:, :, branch, :, branch : branch + rows] = shifted
        if total is not None:
            total.baddbmm_(spread, columns.transpose(1, 2))
        if needs[0]:
            in_order = grad_sheet.permute(1, 4, 3, 2, 0)
            if batch_last and in_order.is_contiguous():  # nothing is copied
                torch.bmm(weights.transpose(1, 2), spread, out=in_order.flatten(2))
                continue
            back = torch.bmm(weights.transpose(1, 2), spread)  # (N, D, columns)
            if batch_last:
                split = back.unflatten(2, (sites, time_steps, -1))
                in_order.copy_(split)
            else:
                split = back.unflatten(2, (time_steps, sites)).permute(0, 2, 3, 1)
                grad_sheet[samples].copy_(split.unsqueeze(0))
    return grad_sheet, sheet.new_empty(0) if total is None else total.view_as(filters)


def _fake_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    to_filters = filters.new_empty(filters.shape) if needs[1] else sheet.new_empty(0)
    return torch.empty_like(sheet) if needs[0] else sheet.new_empty(0), to_filters


_full_width_conv = Operator(
    "full_width_conv(Tensor sheet, Tensor filters, int steps) -> Tensor",
    _plain, fake=_fake, cpu=_contiguous, cuda=_contiguous, flops=_flops,
)  # fmt: skip
_full_width_conv_backward = Operator(
    "full_width_conv_backward(Tensor grad, Tensor sheet, Tensor filters, bool[] needs) "
    "-> (Tensor, Tensor)",
    _plain_backward, fake=_fake_backward,
)  # fmt: skip
_full_width_conv.register_gradient(
    lambda grad, arguments, _, needs: _full_width_conv_backward(grad, *arguments[:2], needs[:2]),
    _reference,
)
