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
from neuroconv.kernels.effective_filters import TreeOperands
from neuroconv.kernels.native.trees import TreeInputs, Trees, cells_at_once, pad_samples
from neuroconv.kernels.operator import empty_grads


def takes(operands: TreeOperands) -> bool:
    """Returns whether the kernels compute these operands."""
    activity, weight, filters, _, tree = operands
    simple = tree.reduction != "max" and autocast_dtype(activity) is None
    return simple and native.runs(activity, weight, filters)


def forward(arguments: TreeOperands, keep: bool) -> tuple[Tensor, Tensor]:
    """Sums the rates of each neuron's dendrites, (T, N, B), and returns the potentials' bits."""
    operands, linear = _Operands(arguments), arguments.tree.linear
    total = operands.rows.new_empty(operands.time_steps, operands.neurons, operands.rows.shape[-1])
    passes = empty_passes(arguments, keep)
    bits = passes if passes.numel() else None
    operands.trees(slice(None)).total(linear, operands.share, total, bits)
    return total[..., : operands.batch].contiguous(), passes


def empty_passes(operands: TreeOperands, keep: bool) -> Tensor:
    """Allocates one bit for each potential, or none if nothing is saved."""
    activity, _, filters, _, tree = operands
    if not keep or tree.linear:
        return activity.new_empty(0, dtype=torch.int16)
    # From sizes alone: an index cached while shapes are traced would have no values.
    outputs = math.prod(output_size(tree.sheet, (filters.shape[2], filters.shape[3]), tree.mode))
    rows = (len(filters), activity.shape[2], outputs)
    return native.bits(*rows, of=native.padded(activity.shape[0]), like=activity)


def backward(
    grad: Tensor, arguments: TreeOperands, passes: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Computes the gradients of activity, weight, filters and bias, empty where not needed."""
    operands = _Operands(arguments)
    grad = pad_samples(grad)
    to_rows = torch.zeros_like(operands.rows) if needs[0] else None
    grads = empty_grads(arguments.activity, arguments[:4], (False, *needs[1:]))
    for cells in operands.chunks():  # limits the memory of the inputs' gradients
        trees = operands.trees(cells)
        bits = passes[cells] if passes.numel() else None
        to_inputs, *parts = trees.gradients(grad[:, cells], needs, operands.share, bits)
        if to_rows is not None and to_inputs is not None:
            trees.scatter(to_inputs, to_rows)
        for target, part in zip(grads[1:], parts, strict=True):
            if part is not None:
                target[cells] = part
    if to_rows is None:
        return grads
    return to_rows[..., : operands.batch].contiguous().permute(2, 1, 0), *grads[1:]


class _Operands:
    """The kernels' operands, packed."""

    def __init__(self, operands: TreeOperands) -> None:
        activity, self.weight, self.filters, self.bias, tree = operands
        self.batch, self.axons, self.time_steps = plain_sizes(activity)
        self.neurons, self.fan_in = len(self.filters), tree.fan_in
        self.rows = pad_samples(activity.permute(2, 1, 0))  # (T, F, B')
        taps = (int(self.filters.shape[2]), int(self.filters.shape[3]))
        self.taps = (claw_taps if tree.claw else sheet_taps)(
            tree.sheet, taps, tree.mode, tree.fan_in
        )
        self.share = 1 / self.taps.rows if tree.reduction == "mean" else 1.0
        self.presynaptic = tree.presynaptic.long()
        lowest, highest = self.presynaptic.aminmax() if len(self.presynaptic) else (0, 0)
        if not 0 <= lowest <= highest < self.axons:
            raise IndexError(
                f"the wiring names axons {int(lowest)} to {int(highest)}; there are {self.axons}"
            )

    def chunks(self) -> Iterator[slice]:
        numbers = self.time_steps * self.fan_in * self.rows.shape[-1]
        return cells_at_once(self.neurons, numbers)

    def trees(self, cells: slice) -> Trees:
        samples = int(self.rows.shape[-1])
        first, step = self.presynaptic[cells] * samples, self.axons * samples
        inputs = TreeInputs(self.rows, first, step, 1, self.time_steps, samples)
        bias = None if self.bias is None else self.bias[cells].to(self.rows.dtype)
        learned = (self.weight[cells], self.filters[cells], bias)
        return Trees(inputs, self.neurons, self.taps, *learned, self.time_steps)
