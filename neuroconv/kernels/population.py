"""Fusion of a population's stages into one operator, where that is possible and faster.

`Population.forward` is the definition, stage by stage. It calls `fused_current` first, which
computes the same numbers from the axons to the summed current by `tree_sum`, or returns None.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.core.autocast import autocast_dtype
from neuroconv.core.counting import is_counting, is_watched
from neuroconv.kernels import tree_sum_cpu
from neuroconv.kernels.conv.choice import concrete_batch, fuses_tree
from neuroconv.kernels.effective_filters import TreeOperands, TreeSpec
from neuroconv.kernels.operator import kernel_stage, kernels_enabled, refuse_batch_statistics
from neuroconv.kernels.tree_costs import effective_filter_numbers
from neuroconv.kernels.tree_sum import effective_filters, tree_sum
from neuroconv.kernels.whole_dendrites import dense_current, runs_dense

# The stages that `tree_sum` computes, in order; no other stage may act between them.
_FUSED = ("sparse_synapses", "dendritic_conv", "dendritic_rate", "dendritic_summation")


def fused_current(cells: Any, activity: Tensor) -> Tensor | None:
    """Computes the summed current (B, N, T) of a `neurons.Population` by one operator from activity
    (B, F, T), or returns None where the stages have to run one by one."""
    refuse_batch_statistics(cells)
    if not kernels_enabled() or activity.dim() != 3 or 0 in activity.shape[2:]:
        return None
    batch, steps = concrete_batch(activity.shape[0]), int(activity.shape[2])
    synapses, dendrites, summation = cells.synapses, cells.dendrites, cells.summation
    if not fuses(cells, batch, steps):
        if not _runs_dense(cells, batch, steps):
            return None
        return summation.law_of(dense_current(cells, activity) * summation.scale)
    synapses.check(activity)
    tree = tree_spec(cells)
    filters = dendrites.taps()
    weight = synapses.effective_weight().to(filters.dtype)
    if autocast_dtype(activity) is None:
        activity = activity.to(filters.dtype)
    operands = TreeOperands(activity, weight, filters, dendrites.bias, tree)
    effective = None
    if not cells.training and not tree_sum_cpu.takes(operands):
        sources = (*synapses.weight_sources(), dendrites.weight)
        numbers = effective_filter_numbers(filters.shape, tree)
        compute = partial(effective_filters, weight, filters, tree)
        effective = cells.filter_cache.get(sources, tree.claw, numbers, compute)
    total = tree_sum(*operands, effective)
    return summation.law_of(total * summation.scale)


def fuses(cells: Any, batch: int, steps: int, *, evaluation: bool = False) -> bool:
    """Returns whether a window of this size runs from axons to summation as one operator.

    It does where no stage acts between synapses, filter and rectifier and no law on each dendrite,
    where these have no hooks, and where a product of small matrices is the fastest backend. With
    `evaluation` the answer is that of evaluation without gradients, whatever the current mode.
    """
    dendrites = cells.dendrites
    return _stages_join(cells, evaluation) and fuses_tree(
        dendrites.problem(batch, steps),
        tree_spec(cells).fan_in,
        dendrites.backend,
        gradients=torch.is_grad_enabled() and not evaluation,
        device=dendrites.weight.device.type,
    )


def _runs_dense(cells: Any, batch: int, steps: int) -> bool:
    """Returns whether the stages run as dense products, with zeros that no counter should see."""
    tree, axons = cells.dendrites.tree, cells.in_features
    whole = tree.mode == "per_dendrite" and tree.out == (1, tree.sheet[1])
    return (
        whole
        and cells.dendrites.backend == "auto"
        and not (is_counting() or cells.checkpoint or torch.compiler.is_compiling())
        and runs_dense(batch, axons, tree.sheet[0])
        and axons * tree.kernel[0] <= batch * steps * tree.sheet[0]  # less memory than a sheet
        and _stages_join(cells, evaluation=False)
    )


def _stages_join(cells: Any, evaluation: bool) -> bool:
    """Returns whether nothing acts between synapses, filter, rectifier and sum."""
    stages = (cells.synapses, cells.dendrites, cells.dendritic_rate, cells.summation)
    absent = (cells.threshold_norm, cells.transmitters, cells.dendritic_norm, cells.spike)
    if tuple(map(kernel_stage, stages)) != _FUSED or not all(map(_is_identity, absent)):
        return False
    if cells.dendritic_rate.law != "linear":  # it acts before the dendrites are added up
        return False
    if is_watched(*stages, *absent, cells.unit_dropout):
        return False
    return _is_identity(cells.unit_dropout) or evaluation or not cells.unit_dropout.acts


def tree_spec(cells: Any) -> TreeSpec:
    """Returns wiring and shape of the trees of a population with sparse synapses."""
    synapses, rate = cells.synapses, cells.dendritic_rate
    return TreeSpec(
        synapses.wiring, synapses.sheet_shape, cells.dendrites.mode,
        synapses.claw_check(synapses.wiring), rate.reduction, rate.linear,
    )  # fmt: skip


def _is_identity(stage: Any) -> bool:
    return type(stage) is nn.Identity or getattr(stage, "kinds", 0) == 1
