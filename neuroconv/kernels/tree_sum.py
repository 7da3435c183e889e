"""A dendritic tree as one stage: from the axons to the current that reaches the soma.

Synapse, filter and rectifier of a small tree, without a sheet in memory. Receptor weights and taps
are joined into one matrix, the potential that each axon leaves on the branches
(`kernels.effective_filters`). Some neurons at a time hear their axons, are filtered, rectified and
summed, all in the cache. The backward pass does the same once more instead of keeping any of it.
On CUDA small trees run as one kernel (`kernels.cuda`), on the CPU by kernels in C++
(`kernels.tree_sum_cpu`).

Shapes: B batch, F axons, N neurons, T time steps, S synapses, P sites, D dendrites, K time taps;
A axons that one tree hears, O = P' * D' branches that come out.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroconv.core.autocast import as_they_are, autocast_dtype
from neuroconv.kernels import cuda as fused
from neuroconv.kernels import tree_sum_cpu as native_tree
from neuroconv.kernels.conv.sizes import output_size, plain_sizes, step_pairs
from neuroconv.kernels.conv.toeplitz import (
    input_gradient,
    matrix_gradient,
    neuron_chunks,
    window_products,
    within,
)
from neuroconv.kernels.effective_filters import Joining, Tree, join_costs


def tree_current(
    activity: Tensor,
    weight: Tensor,
    filters: Tensor,
    bias: Tensor | None,
    tree: Tree,
    responses: Tensor | None = None,
) -> Tensor:
    """The dendrites' rates, summed over the dendrites of each neuron.

    Args:
        activity: of the axons, (B, F, T).
        weight: of the synapses, (N, S).
        filters: (N, K_T, K_P, K_D).
        bias: resting potentials of the dendrites, (N, D'), or None.
        tree: the rest.
        responses: what `tree_responses` made of weights and filters, to be used while no gradient
            is asked for; made anew if None. With them the kernels of `kernels.tree_sum_cpu`, which
            make none, are left out.

    Returns:
        the sum, (B, N, T): of mode "per_dendrite" too.
    """
    neurons, columns = len(filters), tree.mode == "per_dendrite"
    if responses is None:
        filters = within(filters, int(activity.shape[2]))
    if columns:
        weight, filters, bias, tree = _columns(weight, filters, bias, tree)
    weight = weight.to(filters.dtype)
    if (half := autocast_dtype(activity)) is not None:
        activity, weight, filters = activity.to(half), weight.to(half), filters.to(half)
        bias = None if bias is None else bias.to(half)
    else:
        activity = activity.to(filters.dtype)
    if responses is not None:  # made in the weights' own precision
        responses = responses.to(activity.dtype)
    with as_they_are(activity):
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            total = _traced(activity, weight, filters, bias, tree)
        elif responses is None and native_tree.takes(activity, weight, filters, tree):
            total = native_tree.native_sum(activity, weight, filters, bias, tree)
        else:
            total = _Tree.apply(activity, weight, filters, bias, tree, responses)
    if columns:  # add the dendrites of a neuron
        total = total.unflatten(1, (neurons, -1)).sum(2)
    return total.permute(2, 1, 0)


def tree_responses(weight: Tensor, filters: Tensor, tree: Tree) -> Tensor:
    """The potential that each axon leaves on the branches, (N, K * A, O); of "per_dendrite" for
    each dendrite, (N * D, K * A, O)."""
    if tree.mode == "per_dendrite":
        weight, filters, _, tree = _columns(weight, filters, None, tree)
    with as_they_are(filters):
        return Joining(filters, tree).responses(weight, filters)


def response_numbers(filters: torch.Size, tree: Tree) -> int:
    """How many numbers `tree_responses` holds for filters of this shape."""
    neurons, k_time, branches, across = filters
    sites, dendrites = tree.sheet
    rows, cols = output_size(tree.sheet, (branches, across), tree.mode)
    if tree.mode == "per_dendrite":
        return neurons * dendrites * k_time * (1 if tree.claw else sites) * rows
    heard = tree.axons
    return neurons * k_time * heard * rows * cols


def tree_costs(
    batch: int, steps: int, filters: torch.Size, synapses: int, tree: Tree
) -> tuple[int, int, int]:
    """What `tree_current` runs, without its bias and rectifier.

    Returns:
        multiply-adds of the products, those that join weights and taps once for all samples among
        them; FLOPs that join them otherwise; FLOPs of the sums over sites and dendrites.
    """
    neurons, k_time, branches, across = filters
    k_time = min(k_time, steps)  # older taps would meet rest alone
    sites, dendrites = tree.sheet
    rows, cols = output_size(tree.sheet, (branches, across), tree.mode)
    totals = batch * neurons * steps
    summed = totals * (cols if tree.mode == "per_dendrite" else 1)
    sums = totals * rows * cols + summed * (tree.reduction == "mean")
    if tree.reduction == "max":
        sums += totals * cols
    trees, heard, outputs = neurons, tree.axons, rows * cols
    if tree.mode == "per_dendrite":  # each dendrite by itself, and then the dendrites' sum
        sums += totals * cols
        trees, heard, outputs = neurons * dendrites, 1 if tree.claw else sites, rows
        across, synapses = 1, sites
        tree = tree._replace(sheet=(sites, 1), mode="valid")
    taps = torch.Size((trees, k_time, branches, across))
    joining, joins = join_costs(taps, synapses, tree)
    return batch * trees * heard * outputs * step_pairs(steps, k_time, steps) + joining, joins, sums


def _columns(
    weight: Tensor, filters: Tensor, bias: Tensor | None, tree: Tree
) -> tuple[Tensor, Tensor, Tensor | None, Tree]:
    """A dendrite on its own is a neuron of one dendrite; empty places hear an axon by nothing."""
    sites, dendrites = tree.sheet
    empty = sites * dendrites - tree.wiring.shape[1]
    wiring = F.pad(tree.wiring, (0, empty)).reshape(-1, sites)
    weight = F.pad(weight, (0, empty)).reshape(-1, sites)
    filters = filters.movedim(3, 1).flatten(0, 1).unsqueeze(-1)
    bias = None if bias is None else bias.reshape(-1, 1)
    return weight, filters, bias, tree._replace(wiring=wiring, sheet=(sites, 1), mode="valid")


def _rows(activity: Tensor) -> Tensor:
    """One row for each step and axon, and a last one of zeros, (T * F + 1, B)."""
    return F.pad(activity.permute(2, 1, 0).flatten(0, 1), (0, 0, 0, 1))


def _index(heard: Tensor, axons: int, time_steps: int, history: int = 0) -> Tensor:
    """The rows that trees hear, (N, history + T, A): the history before the window is zeros."""
    step = torch.arange(time_steps, device=heard.device) * axons
    now = heard[:, None, :] + step[:, None]
    return F.pad(now, (0, 0, history, 0), value=axons * time_steps)


def _total(potential: Tensor, branches: int, tree: Tree) -> Tensor:
    """Rates of (T, N, O, B) potentials, summed, (T, N, B); works in place where it can."""
    rate = potential if tree.linear else potential.relu()
    if tree.reduction == "max":
        return rate.unflatten(2, (-1, branches)).amax(3).sum(2)
    total = rate.sum(2)
    return total * (1 / branches) if tree.reduction == "mean" else total


def _sizes(filters: Tensor, tree: Tree) -> fused.Sizes:
    k_time, branches, across = plain_sizes(filters)[1:]
    sites, dendrites = output_size(tree.sheet, (branches, across), tree.mode)
    return fused.Sizes(tree.axons, k_time, sites, dendrites)


def _traced(
    activity: Tensor, weight: Tensor, filters: Tensor, bias: Tensor | None, tree: Tree
) -> Tensor:
    """All neurons at once, by operators that a tracer sees and a compiler fuses: (T, N, B)."""
    time_steps, k_time = activity.shape[2], filters.shape[1]
    branches = _sizes(filters, tree).sites
    index = _index(tree.heard, activity.shape[1], time_steps)
    inputs = _rows(activity).index_select(0, index.flatten()).view(*index.shape, -1)
    made = Joining(filters, tree).responses(weight, filters)
    potential = torch.stack(window_products(made, inputs, k_time, time_steps))
    if bias is not None:
        potential = potential + bias.repeat_interleave(branches, 1).unsqueeze(-1)
    return _total(potential, branches, tree)


class _Tree(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        activity: Tensor,
        weight: Tensor,
        filters: Tensor,
        bias: Tensor | None,
        tree: Tree,
        responses: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(activity, weight, filters, bias)
        ctx.tree = tree
        sizes = _sizes(filters, tree)
        ctx.fused = fused.fits(activity, len(filters), sizes)
        if ctx.fused:
            made = responses
            if made is None:
                made = Joining(filters, tree).responses(weight, filters)
            shape = (sizes, tree.reduction, tree.linear)
            return fused.current(activity, tree.heard, made, bias, *shape)
        job = _Job(activity, weight, filters, bias, tree)
        total = activity.new_empty(activity.shape[2], job.neurons, activity.shape[0])
        for cells in job.chunks():
            made = job.responses(cells) if responses is None else responses[cells]
            total[:, cells] = _total(
                job.potential(cells, made, job.inputs(cells)), job.branches, tree
            )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        activity, weight, filters, bias = ctx.saved_tensors
        tree: Tree = ctx.tree
        to_activity, to_weight, to_filters, to_bias = ctx.needs_input_grad[:4]
        # The kernel adds up an axon's gradient in no fixed order.
        if ctx.fused and not (to_activity and torch.are_deterministic_algorithms_enabled()):
            return _fused_backward(ctx, grad)
        job = _Job(activity, weight, filters, bias, tree)
        k_time = filters.shape[1]
        # Sums over all that listen to an axon: in float32 at least, whatever the activity is in.
        wide = torch.promote_types(activity.dtype, torch.float32)
        grad_rows = job.rows.new_zeros(job.rows.shape, dtype=wide) if to_activity else None
        grad_weight = torch.empty_like(weight) if to_weight else None
        grad_filters = torch.empty_like(filters) if to_filters else None
        grad_bias = torch.empty_like(bias) if to_bias and bias is not None else None
        for cells in job.chunks():
            made = job.responses(cells)
            inputs = job.inputs(cells, history=k_time - 1)
            potential = job.potential(cells, made, inputs[:, k_time - 1 :])
            own = _rate_gradient(potential, grad[:, cells], job.branches, tree)  # (n, T, O, B)
            if grad_bias is not None:
                grad_bias[cells] = own.unflatten(2, (-1, job.branches)).sum((1, 3, 4))
            if grad_rows is not None:
                back = input_gradient(made, own, k_time, own.shape[1]).transpose(0, 1)
                index = _index(job.heard[cells], activity.shape[1], own.shape[1])
                grad_rows.index_add_(0, index.flatten(), back.flatten(0, 2).to(wide))
            if grad_weight is None and grad_filters is None:
                continue
            to_responses = matrix_gradient(inputs, own, k_time)
            to_both = job.joining.gradients(
                to_responses, weight[cells], filters[cells], (to_weight, to_filters)
            )
            for whole, part in zip((grad_weight, grad_filters), to_both, strict=True):
                if whole is not None and part is not None:
                    whole[cells] = part
        grad_activity = None
        if grad_rows is not None:
            shape = (activity.shape[2], activity.shape[1], activity.shape[0])
            grad_activity = grad_rows[:-1].view(shape).permute(2, 1, 0).to(activity.dtype)
        return grad_activity, grad_weight, grad_filters, grad_bias, None, None


def _fused_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """As `_Tree.backward`, by the fused kernel."""
    activity, weight, filters, bias = ctx.saved_tensors
    to_activity, to_weight, to_filters, to_bias = ctx.needs_input_grad[:4]
    tree: Tree = ctx.tree
    joining, sizes = Joining(filters, tree), _sizes(filters, tree)
    made = joining.responses(weight, filters)
    back, to_responses, rest = fused.gradients(
        activity, tree.heard, made, bias, sizes, tree.reduction, tree.linear, grad, to_activity
    )
    own = joining.gradients(to_responses, weight, filters, (to_weight, to_filters))
    found = (back, *own, rest if to_bias else None)
    given = (activity, weight, filters, bias)
    cast = (
        None if each is None else each.to(like.dtype)
        for each, like in zip(found, given, strict=True)
    )
    return (*cast, None, None)


class _Job:
    """One pass over a population's trees, some neurons at a time."""

    def __init__(
        self, activity: Tensor, weight: Tensor, filters: Tensor, bias: Tensor | None, tree: Tree
    ) -> None:
        self.weight, self.filters, self.bias, self.tree = weight, filters, bias, tree
        self.batch, self.axons, self.time_steps = activity.shape
        self.neurons, self.k_time = filters.shape[:2]
        self.rows, self.heard = _rows(activity), tree.heard
        self.joining = Joining(filters, tree)
        sizes = _sizes(filters, tree)
        self.branches, self.outputs = sizes.sites, sizes.sites * sizes.dendrites

    def chunks(self) -> Iterator[slice]:
        axons = self.tree.axons
        floats = self.batch * self.time_steps * (axons + self.outputs)
        return neuron_chunks(self.rows, self.neurons, floats + self.k_time * axons * self.outputs)

    def responses(self, cells: slice) -> Tensor:
        return self.joining.responses(self.weight[cells], self.filters[cells])

    def inputs(self, cells: slice, history: int = 0) -> Tensor:
        """What the neurons hear, (n, history + T, A, B)."""
        index = _index(self.heard[cells], self.axons, self.time_steps, history)
        return self.rows.index_select(0, index.flatten()).view(*index.shape, self.batch)

    def potential(self, cells: slice, responses: Tensor, inputs: Tensor) -> Tensor:
        """Of all branches, (T, n, O, B)."""
        steps = self.time_steps
        out = inputs.new_empty(steps, len(inputs), self.outputs, self.batch)
        window_products(responses, inputs, self.k_time, steps, out=out)
        if self.bias is not None:
            out += self.bias[cells].repeat_interleave(self.branches, 1).unsqueeze(-1)
        return out


def _rate_gradient(potential: Tensor, grad: Tensor, branches: int, tree: Tree) -> Tensor:
    """Gradient to the potentials, (n, T, O, B), of `_total`'s sum: grad is (T, n, B)."""
    if tree.reduction == "max":  # ties share it, as amax has it
        with torch.enable_grad():
            leaf = potential.detach().requires_grad_()
            (own,) = torch.autograd.grad(_total(leaf, branches, tree), leaf, grad)
        return own.transpose(0, 1).contiguous()
    passed = grad * (1 / branches) if tree.reduction == "mean" else grad
    passed = passed.transpose(0, 1).unsqueeze(2)  # (n, T, 1, B)
    if tree.linear:
        return passed.expand(-1, -1, potential.shape[2], -1).contiguous()
    return (potential > 0).transpose(0, 1) * passed
