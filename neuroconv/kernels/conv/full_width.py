"""The dendritic convolution where the filter spans all dendrites: one product over the dendrites.

Every tap (k_t, k_p) of time and branches is a row of weights over the dendrites, and every (step,
site) a column of the sheet: one matrix product gives all pairs of them, and what comes out at a
step and site is the sum along a diagonal of the pairs.

Shapes: as in `neuroconv.kernels.conv`, mode "valid" with K_D = D; R = P - K_P + 1 sites come out.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroconv.core.autocast import as_they_are, autocast_dtype
from neuroconv.kernels.conv.sizes import plain_sizes

# Points of a sheet from which on a product of one sample is worth its launch.
_LARGE_SHEET = 1 << 14


def across_conv(sheet: Tensor, filters: Tensor, steps: int) -> Tensor:
    """(B, N, T, P, D), (N, K_T, K_P, D) -> (B, N, steps, R, 1)."""
    if (half := autocast_dtype(sheet)) is not None:
        sheet, filters = sheet.to(half), filters.to(half)
    with as_they_are(sheet):
        if torch.jit.is_tracing():  # a tracer cannot look into a Function
            return _forward(sheet, filters, steps)
        result: Tensor = _AcrossConv.apply(sheet, filters, steps)
    return result


def _columns(sheet: Tensor) -> list[tuple[slice, Tensor, bool]]:
    """Samples, and their steps and sites as the columns of matrices over the dendrites, in the
    order that they lie in: (P, T, B), as synapses give them, or (T, P) of one sample. Small sheets
    are copied into the first order rather than gone through one by one."""
    batch, _, *sizes = plain_sizes(sheet)
    if batch > 1 and (sheet.stride(0) == 1 or math.prod(sizes) < _LARGE_SHEET):
        return [(slice(0, batch), sheet.permute(1, 4, 3, 2, 0).flatten(2), True)]
    return [  # of each sample (N, D, T * P)
        (slice(sample, sample + 1), sheet[sample].flatten(1, 2).transpose(1, 2), False)
        for sample in range(batch)
    ]


def _by_tap(products: Tensor, sizes: tuple[int, int, int, int], batch_last: bool) -> Tensor:
    """A view of (N, K_T * K_P, columns) as (N, K_T, K_P, T, P, B)."""
    k_time, branches, time_steps, sites = sizes
    taps = products.unflatten(1, (k_time, branches))
    if batch_last:
        return taps.unflatten(3, (sites, time_steps, -1)).transpose(3, 4)
    return taps.unflatten(3, (time_steps, sites)).unsqueeze(-1)


def _meeting(pairs: Tensor) -> Tensor:
    """Of (N, K_T, K_P, T, P, B) the diagonals that meet at a site, (N, K_T, K_P, T, R, B).

    Of branch k, site r + k: the two move together, which is a stride of its own.
    """
    strides = list(pairs.stride())
    strides[2] += strides[4]
    rows = pairs.shape[4] - pairs.shape[2] + 1
    return pairs.as_strided((*pairs.shape[:4], rows, pairs.shape[5]), strides)


def _forward(sheet: Tensor, filters: Tensor, steps: int) -> Tensor:
    neurons, time_steps, sites, _ = plain_sizes(sheet)[1:]
    k_time, branches = plain_sizes(filters)[1:3]
    weights = filters.flatten(1, 2)
    first = time_steps - steps
    results = []
    for _, columns, batch_last in _columns(sheet):
        products = torch.bmm(weights, columns)
        pairs = _by_tap(products, (k_time, branches, time_steps, sites), batch_last)
        meets = _meeting(pairs).sum(2)
        total = meets[:, -1, first:]
        for lag in range(1, min(k_time, time_steps)):
            start = max(first, lag)
            total[:, start - first :] += meets[:, k_time - 1 - lag, start - lag : time_steps - lag]
        results.append(total)  # (N, steps, R, B)
    if not results:
        return sheet.new_empty(0, neurons, steps, sites - branches + 1, 1)
    joined = results[0] if len(results) == 1 else torch.cat(results, 3)
    return joined.permute(3, 0, 1, 2).unsqueeze(-1)


class _AcrossConv(torch.autograd.Function):
    """The pairs are as many as the sheet has points times K_T * K_P / D; they are not kept."""

    @staticmethod
    def forward(ctx: Any, sheet: Tensor, filters: Tensor, steps: int) -> Tensor:
        ctx.save_for_backward(sheet, filters)
        return _forward(sheet, filters, steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        sheet, filters = ctx.saved_tensors
        to_sheet, to_filters = ctx.needs_input_grad[:2]
        time_steps, sites, _ = plain_sizes(sheet)[2:]
        neurons, k_time, branches, _ = plain_sizes(filters)
        first = time_steps - int(grad.shape[2])
        out = grad.squeeze(-1).permute(1, 2, 3, 0)  # (N, steps, R, B)
        weights = filters.flatten(1, 2)
        grad_sheet = torch.empty_like(sheet) if to_sheet else None
        total = torch.zeros_like(weights) if to_filters else None
        rows = sites - branches + 1
        for samples, columns, batch_last in _columns(sheet):
            shifted = sheet.new_zeros(
                neurons, k_time, time_steps, rows, samples.stop - samples.start
            )
            for lag in range(min(k_time, time_steps)):
                start = max(first, lag)
                past = out[:, start - first :, :, samples]
                shifted[:, k_time - 1 - lag, start - lag : time_steps - lag] = past
            spread = sheet.new_zeros(neurons, k_time * branches, columns.shape[2])
            pairs = _by_tap(spread, (k_time, branches, time_steps, sites), batch_last)
            for branch in range(branches):
                pairs[:, :, branch, :, branch : branch + rows] = shifted
            if total is not None:
                total.baddbmm_(spread, columns.transpose(1, 2))
            if grad_sheet is not None:
                back = torch.bmm(weights.transpose(1, 2), spread)  # (N, D, columns)
                if batch_last:
                    split = back.unflatten(2, (sites, time_steps, -1))
                    grad_sheet.permute(1, 4, 3, 2, 0).copy_(split)
                else:
                    split = back.unflatten(2, (time_steps, sites)).permute(0, 2, 3, 1)
                    grad_sheet[samples].copy_(split.unsqueeze(0))
        grad_filters = None if total is None else total.view_as(filters)
        return grad_sheet, grad_filters, None
