"""The operator `tree_sum` in torch's operators, a few neurons at a time.

Shapes: as in `kernels.tree_sum`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels import cuda
from neuroconv.kernels.conv.toeplitz import (
    input_gradient,
    matrix_gradient,
    neuron_chunks,
    window_products,
)
from neuroconv.kernels.effective_filters import EffectiveFilters, TreeOperands, TreeSpec
from neuroconv.kernels.operator import empty_grads


def rows(activity: Tensor) -> Tensor:
    """Returns one row for each step and axon, and a last one of zeros, (T * F + 1, B)."""
    return F.pad(activity.permute(2, 1, 0).flatten(0, 1), (0, 0, 0, 1))


def row_index(presynaptic: Tensor, axons: int, time_steps: int, history: int = 0) -> Tensor:
    """Returns the rows that trees read, (N, history + T, A), zeros before the window."""
    step = torch.arange(time_steps, device=presynaptic.device) * axons
    now = presynaptic[:, None, :] + step[:, None]
    return F.pad(now, (0, 0, history, 0), value=axons * time_steps)


def summed_rates(potential: Tensor, branches: int, tree: TreeSpec) -> Tensor:
    """Sums the rates of potentials (T, N, O, B) to (T, N, B)."""
    rate = potential if tree.linear else potential.relu()
    if tree.reduction == "max":
        return rate.unflatten(2, (-1, branches)).amax(3).sum(2)
    total = rate.sum(2)
    return total * (1 / branches) if tree.reduction == "mean" else total


class _Operands:
    """The operands of one pass over a population's trees, a few neurons at a time."""

    def __init__(self, operands: TreeOperands) -> None:
        activity, weight, filters, bias, self.tree = operands
        self.weight, self.filters = weight.to(activity.dtype), filters.to(activity.dtype)
        self.bias = None if bias is None else bias.to(activity.dtype)
        self.batch, self.axons, self.time_steps = activity.shape
        self.neurons, self.k_time = self.filters.shape[:2]
        self.rows, self.presynaptic = rows(activity), self.tree.presynaptic
        self.merger = EffectiveFilters(self.filters, self.tree)
        sizes = cuda.Sizes.of(self.filters, self.tree)
        self.branches, self.outputs = sizes.sites, sizes.sites * sizes.dendrites

    def chunks(self) -> Iterator[slice]:
        fan_in = self.tree.fan_in
        floats = self.batch * self.time_steps * (fan_in + self.outputs)
        return neuron_chunks(self.rows, self.neurons, floats + self.k_time * fan_in * self.outputs)

    def effective(self, cells: slice) -> Tensor:
        return self.merger.merge(self.weight[cells], self.filters[cells])

    def inputs(self, cells: slice, history: int = 0) -> Tensor:
        """Gathers the activity of the presynaptic axons, (n, history + T, A, B)."""
        index = row_index(self.presynaptic[cells], self.axons, self.time_steps, history)
        return self.rows.index_select(0, index.flatten()).view(*index.shape, self.batch)

    def potential(self, cells: slice, effective: Tensor, inputs: Tensor) -> Tensor:
        """Computes the potentials of all branches, (T, n, O, B)."""
        steps = self.time_steps
        out = inputs.new_empty(steps, len(inputs), self.outputs, self.batch)
        window_products(effective, inputs, self.k_time, steps, out=out)
        if self.bias is not None:
            out += self.bias[cells].repeat_interleave(self.branches, 1).unsqueeze(-1)
        return out


def plain(*arguments: Any) -> tuple[Tensor, Tensor]:
    values, effective, _ = TreeOperands.unpack(arguments)
    activity, operands = values.activity, _Operands(values)
    total = activity.new_empty(operands.time_steps, operands.neurons, operands.batch)
    for cells in operands.chunks():
        merged = operands.effective(cells) if effective is None else effective[cells]
        potential = operands.potential(cells, merged, operands.inputs(cells))
        total[:, cells] = summed_rates(potential, operands.branches, values.tree)
    return total, activity.new_empty(0, dtype=torch.int16)


def plain_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    values, _, needs = TreeOperands.unpack(arguments)
    activity, tree, operands = values.activity, values.tree, _Operands(values)
    k_time, time_steps = operands.k_time, operands.time_steps
    # The sum over all synapses of an axon needs float32 at least, also for half precision.
    wide = torch.promote_types(activity.dtype, torch.float32)
    to_activity, to_weight, to_filters, to_bias = tree_grads(values, (False, *needs[1:]))
    to_rows = operands.rows.new_zeros(operands.rows.shape, dtype=wide) if needs[0] else None
    for cells in operands.chunks():
        effective = operands.effective(cells)
        inputs = operands.inputs(cells, history=k_time - 1)
        potential = operands.potential(cells, effective, inputs[:, k_time - 1 :])
        local = _rate_gradient(potential, grad[:, cells], operands.branches, tree)  # (n, T, O, B)
        if needs[3]:
            to_bias[cells] = local.unflatten(2, (-1, operands.branches)).sum((1, 3, 4))
        if to_rows is not None:
            back = input_gradient(effective, local, k_time, time_steps).transpose(0, 1)
            index = row_index(operands.presynaptic[cells], operands.axons, time_steps)
            to_rows.index_add_(0, index.flatten(), back.flatten(0, 2).to(wide))
        if needs[1] or needs[2]:
            merged = operands.merger.gradients(
                matrix_gradient(inputs, local, k_time),
                operands.weight[cells], operands.filters[cells], needs[1:3],
            )  # fmt: skip
            for target, part in zip((to_weight, to_filters), merged, strict=True):
                if part is not None:
                    target[cells] = part
    if to_rows is not None:
        shape = (time_steps, operands.axons, operands.batch)
        to_activity = to_rows[:-1].view(shape).permute(2, 1, 0).to(activity.dtype)
    return to_activity, to_weight, to_filters, to_bias


def tree_grads(operands: TreeOperands, needs: Sequence[bool]) -> tuple[Tensor, ...]:
    """Allocates the gradients, the activity's with the samples innermost."""
    activity, *learned = operands[:4]
    like = (activity.permute(2, 1, 0), *learned)
    to_activity, *grads = empty_grads(activity, like, needs)
    return to_activity.permute(2, 1, 0) if needs[0] else to_activity, *grads


def _rate_gradient(potential: Tensor, grad: Tensor, branches: int, tree: TreeSpec) -> Tensor:
    """Differentiates `summed_rates`: from grad (T, n, B) to the potentials' (n, T, O, B)."""
    if tree.reduction == "max":  # ties share the gradient, as in torch.amax
        rate = (potential if tree.linear else potential.relu()).unflatten(2, (-1, branches))
        largest = rate == rate.amax(3, keepdim=True)
        local = (largest / largest.sum(3, keepdim=True) * grad[:, :, None, None]).flatten(2, 3)
        local = local if tree.linear else local * (potential > 0)
        return local.to(grad.dtype).transpose(0, 1).contiguous()
    passed = grad * (1 / branches) if tree.reduction == "mean" else grad
    passed = passed.transpose(0, 1).unsqueeze(2)  # (n, T, 1, B)
    if tree.linear:
        return passed.expand(-1, -1, potential.shape[2], -1).contiguous()
    return (potential > 0).transpose(0, 1) * passed
