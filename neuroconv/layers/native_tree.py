"""A dendritic tree as one stage, on the CPU by kernels of our own.

A neuron hears its axons, filters, rectifies and sums for some samples at a time, all in the cache;
the backward pass does it again. Weights and taps of a claw are joined along its sites alone: the
kernel finds by itself which of them reach a dendrite.

Shapes: as in `layers.tree`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroconv.layers import native
from neuroconv.layers.autocast import autocast_dtype
from neuroconv.layers.conv.reach import claw_reach, sheet_reach, sheet_taps, sheet_taps_back
from neuroconv.layers.conv.sizes import plain_sizes
from neuroconv.layers.joining import Joining, Tree


def takes(activity: Tensor, weight: Tensor, filters: Tensor, tree: Tree) -> bool:
    """Whether the kernels compute these trees, for an activity (B, F, T)."""
    samples = int(activity.shape[0])
    known = tree.reduction != "max" and samples >= native.LEAST_SAMPLES
    known = known and autocast_dtype(activity) is None
    return known and native.takes(activity, weight, filters)


def native_sum(
    activity: Tensor,
    weight: Tensor,
    filters: Tensor,
    bias: Tensor | None,
    tree: Tree,
    taps: Tensor | None,
) -> Tensor:
    """The rates of each neuron's dendrites, summed, (T, N, B), where `takes` says so.

    Args:
        taps: what `native_taps` made of weights and filters; made anew if None.
    """
    total: Tensor = _Sum.apply(activity, weight, filters, bias, tree, taps)
    return total[..., : len(activity)]


def native_taps(weight: Tensor, filters: Tensor, tree: Tree) -> Tensor:
    """The taps as the kernels read them, (N, K, S): of a claw with its weights."""
    if not tree.claw:
        return sheet_taps(filters, tree.sheet, tree.mode)
    along = Joining(filters, tree).along(weight, filters)
    return along.view(len(filters), filters.shape[1], -1)


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
        share = 1 / self.reach.rows if tree.reduction == "mean" else 1.0
        self.stage = (tree.linear, share)
        self.heard = tree.heard.long()
        if len(self.heard) and not 0 <= self.heard.min() <= self.heard.max() < self.axons:
            raise IndexError(
                f"the wiring names axons {int(self.heard.min())} to {int(self.heard.max())}; there "
                f"are {self.axons}"
            )

    def cells(self) -> Iterator[slice]:
        back = self.time_steps * self.tree.axons * self.rows.shape[-1]
        taps = self.reach.numbers * int(self.filters.shape[1])
        return native.cells_at_once(self.neurons, back + taps)

    def taps(self, cells: slice) -> Tensor:
        return native_taps(self.weight[cells], self.filters[cells], self.tree)

    def trees(self, cells: slice, taps: Tensor) -> native.Trees:
        samples = int(self.rows.shape[-1])
        first, step = self.heard[cells] * samples, self.axons * samples
        heard = native.Heard(self.rows, first, step, 1, self.time_steps, samples)
        weight = None if self.tree.claw else self.weight[cells]
        bias = None if self.bias is None else self.bias[cells].to(self.rows.dtype)
        return native.Trees(heard, self.neurons, self.reach, weight, taps, bias, self.time_steps)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        activity: Tensor,
        weight: Tensor,
        filters: Tensor,
        bias: Tensor | None,
        tree: Tree,
        taps: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(activity, weight, filters, bias)
        ctx.tree = tree
        job = _Job(activity, weight, filters, bias, tree)
        assert taps is None or taps.shape[2] == job.reach.numbers
        total = activity.new_empty(job.time_steps, job.neurons, job.rows.shape[-1])
        for cells in job.cells():
            made = job.taps(cells) if taps is None else taps[cells]
            job.trees(cells, made).total(*job.stage, total[:, cells])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        activity, weight, filters, bias = ctx.saved_tensors
        tree: Tree = ctx.tree
        to_activity, to_weight, to_filters, to_bias = ctx.needs_input_grad[:4]
        job = _Job(activity, weight, filters, bias, tree)
        grad = grad.contiguous()
        grad_rows = torch.zeros_like(job.rows) if to_activity else None
        grad_weight = torch.empty_like(weight) if to_weight else None
        grad_filters = torch.empty_like(filters) if to_filters else None
        grad_bias = torch.empty_like(bias) if to_bias and bias is not None else None
        learns = to_filters or (to_weight and tree.claw)
        for cells in job.cells():
            trees = job.trees(cells, job.taps(cells))
            asked = (to_activity, to_weight, learns, grad_bias is not None)
            back, own, taps, rest = trees.gradients(grad[:, cells], True, *job.stage, asked)
            if grad_rows is not None and back is not None:
                trees.scatter(back, grad_rows)
            if grad_bias is not None and rest is not None:
                grad_bias[cells] = rest
            if tree.claw and taps is not None:
                taken = Joining(filters[cells], tree).taken_apart(
                    taps, weight[cells], filters[cells], (to_weight, to_filters)
                )
            elif taps is not None:
                taken = own, sheet_taps_back(taps, filters[cells].shape, tree.sheet, tree.mode)
            else:
                taken = own, None
            for whole, part in zip((grad_weight, grad_filters), taken, strict=True):
                if whole is not None and part is not None:
                    whole[cells] = part
        grad_activity = None
        if grad_rows is not None:
            grad_activity = grad_rows[..., : job.batch].permute(2, 1, 0)
        return grad_activity, grad_weight, grad_filters, grad_bias, None, None
