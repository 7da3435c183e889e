"""A dendritic tree as one stage, on the CPU by kernels of our own.

A neuron hears its axons, filters, rectifies and sums for some samples at a time, all in the cache.
Weights and taps of a claw are joined there too, along its sites. For the backward pass a bit of
each potential is kept: whether its rectifier passes anything.

Shapes: as in `kernels.tree_sum`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroconv.core.autocast import autocast_dtype
from neuroconv.kernels import native
from neuroconv.kernels.conv.sizes import plain_sizes
from neuroconv.kernels.conv.tap_index import claw_reach, sheet_reach
from neuroconv.kernels.effective_filters import Tree


def takes(activity: Tensor, weight: Tensor, filters: Tensor, tree: Tree) -> bool:
    """Whether the kernels compute these trees, for an activity (B, F, T)."""
    known = tree.reduction != "max" and autocast_dtype(activity) is None
    return known and native.takes(activity, weight, filters)


def native_sum(
    activity: Tensor, weight: Tensor, filters: Tensor, bias: Tensor | None, tree: Tree
) -> Tensor:
    """The rates of each neuron's dendrites, summed, (T, N, B), where `takes` says so."""
    learned = (each for each in (activity, weight, filters, bias) if each is not None)
    keep = torch.is_grad_enabled() and any(each.requires_grad for each in learned)
    total: Tensor = _Sum.apply(activity, weight, filters, bias, tree, keep)
    return total[..., : len(activity)]


def _reach(filters: torch.Size, tree: Tree) -> native.Reach:
    reach = claw_reach if tree.claw else sheet_reach
    return reach(tree.sheet, (int(filters[2]), int(filters[3])), tree.mode, tree.axons)


class _Job:
    def __init__(
        self, activity: Tensor, weight: Tensor, filters: Tensor, bias: Tensor | None, tree: Tree
    ) -> None:
        self.weight, self.filters, self.bias, self.tree = weight, filters, bias, tree
        self.batch, self.axons, self.time_steps = plain_sizes(activity)
        self.neurons = len(filters)
        self.rows = native.whole_vectors(activity.permute(2, 1, 0))  # (T, F, B')
        self.reach = _reach(filters.shape, tree)
        self.share = 1 / self.reach.rows if tree.reduction == "mean" else 1.0
        self.heard = tree.heard.long()
        if len(self.heard) and not 0 <= self.heard.min() <= self.heard.max() < self.axons:
            raise IndexError(
                f"the wiring names axons {int(self.heard.min())} to {int(self.heard.max())}; there "
                f"are {self.axons}"
            )

    def cells(self) -> Iterator[slice]:
        back = self.time_steps * self.tree.axons * self.rows.shape[-1]
        return native.cells_at_once(self.neurons, back)

    def trees(self, cells: slice) -> native.Trees:
        samples = int(self.rows.shape[-1])
        first, step = self.heard[cells] * samples, self.axons * samples
        heard = native.Heard(self.rows, first, step, 1, self.time_steps, samples)
        bias = None if self.bias is None else self.bias[cells].to(self.rows.dtype)
        learned = (self.weight[cells], self.filters[cells], bias)
        return native.Trees(heard, self.neurons, self.reach, *learned, self.time_steps)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        activity: Tensor,
        weight: Tensor,
        filters: Tensor,
        bias: Tensor | None,
        tree: Tree,
        keep: bool,
    ) -> Tensor:
        job = _Job(activity, weight, filters, bias, tree)
        total = activity.new_empty(job.time_steps, job.neurons, job.rows.shape[-1])
        trees = job.trees(slice(None))
        passes = trees.bits(job.time_steps) if keep and not tree.linear else None
        trees.total(tree.linear, job.share, total, passes)
        ctx.save_for_backward(activity, weight, filters, bias, passes)
        ctx.tree = tree
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        activity, weight, filters, bias, passes = ctx.saved_tensors
        tree: Tree = ctx.tree
        to_activity, *learns = ctx.needs_input_grad[:4]
        job = _Job(activity, weight, filters, bias, tree)
        grad = grad.contiguous()
        grad_rows = torch.zeros_like(job.rows) if to_activity else None
        whole = [
            torch.empty_like(each) if asked and each is not None else None
            for each, asked in zip((weight, filters, bias), learns, strict=True)
        ]
        for cells in job.cells():  # what trees give back is held of some neurons at a time
            trees = job.trees(cells)
            own = None if passes is None else passes[cells]
            asked = (to_activity, *learns)
            back, *found = trees.gradients(grad[:, cells], asked, job.share, own)
            if grad_rows is not None and back is not None:
                trees.scatter(back, grad_rows)
            for each, part in zip(whole, found, strict=True):
                if each is not None and part is not None:
                    each[cells] = part
        grad_activity = None
        if grad_rows is not None:
            grad_activity = grad_rows[..., : job.batch].permute(2, 1, 0)
        return grad_activity, *whole, None, None
