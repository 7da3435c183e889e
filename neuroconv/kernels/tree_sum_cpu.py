"""The operator `tree_sum` on the CPU, in C++.

A neuron's inputs are gathered, filtered, rectified and summed for a few samples at a time, all in
the cache, and so are weights and taps of a claw merged along its sites. The backward pass needs one
bit of each potential: whether the rectifier passes it.

Shapes: as in `kernels.tree_sum`; B' is the batch padded to whole vectors.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from neuroconv.core.autocast import autocast_dtype
from neuroconv.kernels import native
from neuroconv.kernels.conv.sizes import output_size, plain_sizes
from neuroconv.kernels.conv.tap_index import claw_taps, sheet_taps
from neuroconv.kernels.effective_filters import TreeOperands, TreeSpec


def takes(
    activity: Tensor, weight: Tensor, filters: Tensor, _: Tensor | None, tree: TreeSpec
) -> bool:
    """Returns whether the kernels compute these operands."""
    simple = tree.reduction != "max" and autocast_dtype(activity) is None
    return simple and native.runs(activity, weight, filters)


def forward(arguments: TreeOperands, keep: bool) -> tuple[Tensor, Tensor]:
    """Sums the rates of each neuron's dendrites, (T, N, B), and returns the potentials' bits."""
    activity, _, filters, _, tree = arguments
    operands = _Operands(*arguments)
    total = activity.new_empty(operands.time_steps, operands.neurons, operands.rows.shape[-1])
    passes = empty_passes(activity, filters, tree, keep)
    bits = passes if passes.numel() else None
    operands.trees(slice(None)).total(tree.linear, operands.share, total, bits)
    return total[..., : operands.batch].contiguous(), passes


def empty_passes(activity: Tensor, filters: Tensor, tree: TreeSpec, keep: bool) -> Tensor:
    """Allocates one bit for each potential, if they are to be kept."""
    if not keep or tree.linear:
        return activity.new_empty(0, dtype=torch.int16)
    # By sizes alone: an index computed while shapes are traced would be kept without its values.
    branches, across = filters.shape[2:]
    outputs = math.prod(output_size(tree.sheet, (branches, across), tree.mode))
    rows = (len(filters), activity.shape[2], outputs)
    return native.bits(*rows, of=native.padded(activity.shape[0]), like=activity)


def backward(
    grad: Tensor, arguments: TreeOperands, passes: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Computes the gradients of activity, weight, filters and bias, empty where not needed."""
    activity, operands = arguments.activity, _Operands(*arguments)
    grad = native.pad_samples(grad)
    grad_rows = torch.zeros_like(operands.rows) if needs[0] else None
    grads = [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if needed and tensor is not None
        else activity.new_empty(0)
        for tensor, needed in zip(arguments[1:4], needs[1:], strict=True)
    ]
    for cells in operands.chunks():  # limits the memory of the inputs' gradients
        trees = operands.trees(cells)
        bits = passes[cells] if passes.numel() else None
        to_inputs, *parts = trees.gradients(grad[:, cells], needs, operands.share, bits)
        if grad_rows is not None and to_inputs is not None:
            trees.scatter(to_inputs, grad_rows)
        for whole, part in zip(grads, parts, strict=True):
            if part is not None:
                whole[cells] = part
    if grad_rows is None:
        return activity.new_empty(0), *grads
    return grad_rows[..., : operands.batch].contiguous().permute(2, 1, 0), *grads


def _tap_index(filters: torch.Size, tree: TreeSpec) -> native.TapIndex:
    index = claw_taps if tree.claw else sheet_taps
    return index(tree.sheet, (int(filters[2]), int(filters[3])), tree.mode, tree.fan_in)


class _Operands:
    """The kernels' operands, packed."""

    def __init__(
        self, activity: Tensor, weight: Tensor, filters: Tensor, bias: Tensor | None, tree: TreeSpec
    ) -> None:
        self.weight, self.filters, self.bias, self.tree = weight, filters, bias, tree
        self.batch, self.axons, self.time_steps = plain_sizes(activity)
        self.neurons = len(filters)
        self.rows = native.pad_samples(activity.permute(2, 1, 0))  # (T, F, B')
        self.taps = _tap_index(filters.shape, tree)
        self.share = 1 / self.taps.rows if tree.reduction == "mean" else 1.0
        self.presynaptic = tree.presynaptic.long()
        lowest, highest = self.presynaptic.aminmax() if len(self.presynaptic) else (0, 0)
        if not 0 <= lowest <= highest < self.axons:
            raise IndexError(
                f"the wiring names axons {int(lowest)} to {int(highest)}; there are {self.axons}"
            )

    def chunks(self) -> Iterator[slice]:
        numbers = self.time_steps * self.tree.fan_in * self.rows.shape[-1]
        return native.cells_at_once(self.neurons, numbers)

    def trees(self, cells: slice) -> native.Trees:
        samples = int(self.rows.shape[-1])
        first, step = self.presynaptic[cells] * samples, self.axons * samples
        inputs = native.TreeInputs(self.rows, first, step, 1, self.time_steps, samples)
        bias = None if self.bias is None else self.bias[cells].to(self.rows.dtype)
        learned = (self.weight[cells], self.filters[cells], bias)
        return native.Trees(inputs, self.neurons, self.taps, *learned, self.time_steps)
