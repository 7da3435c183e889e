"""A population's dendrites as one operator: from the axons to the current that reaches the soma.

Synapses, filter, rectifier and sum of small trees run without a sheet in memory. Weights and taps
are merged into effective filters (`kernels.effective_filters`); for a few neurons at a time the
inputs are gathered, filtered, rectified and summed in the cache. The backward pass recomputes
everything. On CUDA small trees run as one Triton kernel (`kernels.cuda`), on the CPU in C++
(`kernels.tree_sum_cpu`).

Shapes: B batch, F axons, N neurons, T time steps, S synapses, P sites, D dendrites, K time taps;
A inputs of one tree, O = P' * D' output branches.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.autocast import autocast_dtype, without_autocast
from neuroconv.kernels import cuda, native, tree_sum_cpu
from neuroconv.kernels.constants import derived
from neuroconv.kernels.conv.toeplitz import window_products, within_window
from neuroconv.kernels.effective_filters import EffectiveFilters, TreeOperands, TreeSpec
from neuroconv.kernels.operator import Operator, needs_grad
from neuroconv.kernels.tree_costs import tree_costs
from neuroconv.kernels.tree_sum_plain import (
    plain,
    plain_backward,
    row_index,
    rows,
    summed_rates,
    tree_grads,
)


def tree_sum(
    activity: Tensor,
    weight: Tensor,
    filters: Tensor,
    bias: Tensor | None,
    tree: TreeSpec,
    effective: Tensor | None = None,
) -> Tensor:
    """Sums the dendrites' rates of each neuron, (B, N, T).

    Args:
        activity: of the axons, (B, F, T).
        weight: of the synapses, (N, S).
        filters: (N, K_T, K_P, K_D).
        bias: resting potentials of the dendrites, (N, D'), or None.
        tree: wiring and shape of the trees.
        effective: the result of `effective_filters`, used while no gradient is needed.
    """
    neurons, columns = len(filters), tree.mode == "per_dendrite"
    if effective is None:
        filters = within_window(filters, int(activity.shape[2]))
    if columns:
        weight, filters, bias, tree = _columns(weight, filters, bias, tree)
    weight = weight.to(filters.dtype)
    bias = None if bias is None else bias.to(filters.dtype)
    activity = activity.to(autocast_dtype(activity) or filters.dtype)
    if effective is not None:  # computed in the weights' own precision
        effective = effective.to(activity.dtype)
    with without_autocast(activity):
        operands = (activity, weight, filters, bias, *tree)
        if native.prefers_reference(activity, weight, filters):
            total = _reference(*operands)
        else:
            total = _tree_sum(*operands, effective, needs_grad(activity, weight, filters, bias))[0]
    if columns:  # add the dendrites of a neuron
        total = total.unflatten(1, (neurons, -1)).sum(2)
    return total.permute(2, 1, 0)


def effective_filters(weight: Tensor, filters: Tensor, tree: TreeSpec) -> Tensor:
    """Computes the effective filters, (N, K * A, O); in mode "per_dendrite" (N * D, K * A, O)."""
    if tree.mode == "per_dendrite":
        weight, filters, _, tree = _columns(weight, filters, None, tree)
    with without_autocast(filters):
        return EffectiveFilters(filters, tree).merge(weight, filters)


def _columns(
    weight: Tensor, filters: Tensor, bias: Tensor | None, tree: TreeSpec
) -> tuple[Tensor, Tensor, Tensor | None, TreeSpec]:
    """Turns each dendrite into a neuron of one dendrite; empty positions have a weight of zero."""
    sites, dendrites = tree.sheet
    empty = sites * dendrites - tree.wiring.shape[1]
    wiring = derived(tree.wiring, sites, lambda: F.pad(tree.wiring, (0, empty)).reshape(-1, sites))
    weight = F.pad(weight, (0, empty)).reshape(-1, sites)
    filters = filters.movedim(3, 1).flatten(0, 1).unsqueeze(-1)
    bias = None if bias is None else bias.reshape(-1, 1)
    return weight, filters, bias, tree._replace(wiring=wiring, sheet=(sites, 1), mode="valid")


def _reference(
    activity: Tensor, weight: Tensor, filters: Tensor, bias: Tensor | None, *rest: Any
) -> Tensor:
    """Runs all neurons at once by operators that a compiler can fuse, (T, N, B)."""
    tree = TreeSpec.unpack(rest[:6])
    weight, filters = weight.to(activity.dtype), filters.to(activity.dtype)
    bias = None if bias is None else bias.to(activity.dtype)
    time_steps, k_time = int(activity.shape[2]), filters.shape[1]
    branches = cuda.Sizes.of(filters, tree).sites
    index = row_index(tree.presynaptic, activity.shape[1], time_steps)
    inputs = rows(activity).index_select(0, index.flatten()).unflatten(0, index.shape)
    merged = EffectiveFilters(filters, tree).merge(weight, filters)
    potential = torch.stack(window_products(merged, inputs, k_time, time_steps))
    if bias is not None:
        potential = potential + bias.repeat_interleave(branches, 1).unsqueeze(-1)
    return summed_rates(potential, branches, tree)


def _cpu(*arguments: Any) -> tuple[Tensor, Tensor]:
    operands, effective, keep = TreeOperands.unpack(arguments)
    if effective is None and tree_sum_cpu.takes(operands):
        return tree_sum_cpu.forward(operands, keep)
    return _cuda(*arguments)


def _cuda(*arguments: Any) -> tuple[Tensor, Tensor]:
    operands = TreeOperands.unpack(arguments)[0]
    if not cuda.fits(operands):
        return plain(*arguments)
    return cuda.current(operands), operands.activity.new_empty(0, dtype=torch.int16)


def _fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    operands, effective, keep = TreeOperands.unpack(arguments)
    activity = operands.activity
    total = activity.new_empty(activity.shape[2], len(operands.filters), activity.shape[0])
    keep = keep and effective is None and tree_sum_cpu.takes(operands)
    return total, tree_sum_cpu.empty_passes(operands, keep)


def _cpu_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    operands, passes, needs = TreeOperands.unpack(arguments)
    if tree_sum_cpu.takes(operands) and (operands.tree.linear or passes.numel()):
        return tree_sum_cpu.backward(grad, operands, passes, needs)
    return _cuda_backward(grad, *arguments)


def _cuda_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    operands, _, needs = TreeOperands.unpack(arguments)
    if not cuda.fits(operands):
        return plain_backward(grad, *arguments)
    return cuda.gradients(operands, grad, needs[0])


def _fake_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    operands, _, needs = TreeOperands.unpack(arguments)
    return tree_grads(operands, needs)


def _flops(
    activity: Any, weight: Any, filters: Any, bias: Any, wiring: Any, *rest: Any, **_: Any
) -> int:
    """Counts two for each multiply-add of `tree_costs`."""
    tree = TreeSpec.unpack((torch.empty(wiring, device="meta"), *rest[:5]))
    return 2 * tree_costs(activity[0], activity[2], filters, weight[1], tree)[0]


_SCHEMA = (
    "Tensor activity, Tensor weight, Tensor filters, Tensor? bias, Tensor wiring, int[] sheet, "
    "str mode, bool claw, str reduction, bool linear"
)
_tree_sum = Operator(
    f"tree_sum({_SCHEMA}, Tensor? effective, bool keep) -> (Tensor, Tensor)",
    plain, fake=_fake, cpu=_cpu, cuda=_cuda, flops=_flops,
)  # fmt: skip
_tree_sum_backward = Operator(
    f"tree_sum_backward(Tensor grad, {_SCHEMA}, Tensor passes, bool[] needs) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    plain_backward, fake=_fake_backward, cpu=_cpu_backward, cuda=_cuda_backward,
)  # fmt: skip
_tree_sum.register_gradient(
    lambda grad, arguments, others, needs: _tree_sum_backward(
        grad, *arguments[:-2], others[0], needs[:4]
    ),
    _reference,
)
