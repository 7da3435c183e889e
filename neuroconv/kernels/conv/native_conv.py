"""The filters of small sheets on the CPU by kernels of our own: none is unrolled into a matrix, and
no product is made with its zeros. Samples lie innermost and fill the vectors.

Shapes: as in `kernels.conv.toeplitz`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroconv.kernels import native
from neuroconv.kernels.conv.sizes import Mode, plain_sizes
from neuroconv.kernels.conv.tap_index import sheet_reach


def takes(sheet: Tensor, filters: Tensor) -> bool:
    """Whether the kernels filter this sheet, (B, N, T, P, D), by (N, K_T, K_P, K_D)."""
    return native.takes(sheet, filters)


def native_conv(
    sheet: Tensor, filters: Tensor, mode: Mode, bias: Tensor | None, steps: int
) -> Tensor:
    """As `unrolled_conv`, where `takes` says so: (steps, N, O, B), dendrite by dendrite."""
    bias = None if bias is None else bias.to(filters.dtype)
    result: Tensor = _Conv.apply(sheet, filters, bias, mode, steps)
    return result[..., : len(sheet)]


class _Job:
    """The operands of a pass, some neurons at a time."""

    def __init__(self, sheet: Tensor, filters: Tensor, mode: Mode, steps: int) -> None:
        batch, self.neurons, self.time_steps, sites, dendrites = plain_sizes(sheet)
        self.filters, self.steps = filters, steps
        self.sheet, self.plane = sheet, (sites, dendrites)
        self.inputs = sites * dendrites
        taps = (int(filters.shape[2]), int(filters.shape[3]))
        self.reach = sheet_reach(self.plane, taps, mode, self.inputs)
        self.samples = native.whole(batch)

    def cells(self) -> Iterator[slice]:
        each = self.time_steps * self.inputs * self.samples
        return native.cells_at_once(self.neurons, each + self.filters[0].numel())

    def trees(self, cells: slice, bias: Tensor | None) -> native.Trees:
        points = self.sheet[:, cells]
        sample, neuron, step, site, dendrite = points.stride()
        along, across = (torch.arange(length, device="cpu") for length in self.plane)
        place = (across[:, None] * dendrite + along * site).flatten()
        heard = native.Heard(points, place, step, sample, self.time_steps, len(points), neuron)
        filters = self.filters[cells]
        return native.Trees(heard, self.neurons, self.reach, None, filters, bias, self.steps)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sheet: Tensor, filters: Tensor, bias: Tensor | None, mode: Mode, steps: int
    ) -> Tensor:
        ctx.save_for_backward(sheet, filters)
        ctx.mode = mode
        job = _Job(sheet, filters, mode, steps)
        result = sheet.new_empty(steps, job.neurons, job.reach.outputs, job.samples)
        for cells in job.cells():
            job.trees(cells, None if bias is None else bias[cells]).potentials(result[:, cells])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        sheet, filters = ctx.saved_tensors
        to_sheet, to_filters, to_bias = ctx.needs_input_grad[:3]
        job = _Job(sheet, filters, ctx.mode, len(grad))
        grad = grad.contiguous()
        sites, dendrites = job.plane
        shape = (job.neurons, job.time_steps, dendrites, sites, len(sheet))
        grad_sheet = sheet.new_empty(shape) if to_sheet else None
        grad_filters = torch.empty_like(filters) if to_filters else None
        grad_bias = filters.new_empty(job.neurons, len(job.reach.first)) if to_bias else None
        for cells in job.cells():
            trees = job.trees(cells, None)
            asked = (to_sheet, False, to_filters, to_bias)
            back, _, to_taps, own = trees.gradients(grad[:, cells], asked)
            if grad_sheet is not None and back is not None:
                grad_sheet[cells] = back[..., : len(sheet)].unflatten(2, (dendrites, sites))
            if grad_filters is not None and to_taps is not None:
                grad_filters[cells] = to_taps
            if grad_bias is not None and own is not None:
                grad_bias[cells] = own
        if grad_sheet is not None:
            grad_sheet = grad_sheet.permute(4, 0, 1, 3, 2)
        return grad_sheet, grad_filters, grad_bias, None, None
