"""Closed forms of the operations of `tree_sum`.

Shapes: as in `kernels.tree_sum`.
"""

import torch

from neuroconv.kernels.conv.sizes import output_size, step_pairs
from neuroconv.kernels.effective_filters import TreeSpec, merge_costs


def effective_filter_numbers(filters: torch.Size, tree: TreeSpec) -> int:
    """Counts the numbers in the effective filters of filters of this shape."""
    neurons, k_time, branches, across = filters
    sites, dendrites = tree.sheet
    rows, cols = output_size(tree.sheet, (branches, across), tree.mode)
    if tree.mode == "per_dendrite":
        return neurons * dendrites * k_time * (1 if tree.claw else sites) * rows
    return neurons * k_time * tree.fan_in * rows * cols


def tree_costs(
    batch: int, steps: int, filters: torch.Size, synapses: int, tree: TreeSpec
) -> tuple[int, int, int]:
    """Counts what `tree_sum` runs, without its bias and rectifier: multiply-adds of the products,
    also of those that merge weights and taps once for all samples; FLOPs of merging without a claw;
    FLOPs of the sums over sites and dendrites."""
    neurons, k_time, branches, across = filters
    k_time = min(k_time, steps)  # older taps only read the zeros before the window
    sites, dendrites = tree.sheet
    rows, cols = output_size(tree.sheet, (branches, across), tree.mode)
    totals = batch * neurons * steps
    summed = totals * (cols if tree.mode == "per_dendrite" else 1)
    sums = totals * rows * cols + summed * (tree.reduction == "mean")
    if tree.reduction == "max":
        sums += totals * cols
    trees, fan_in, outputs = neurons, tree.fan_in, rows * cols
    if tree.mode == "per_dendrite":  # each dendrite by itself, and then the dendrites' sum
        sums += totals * cols
        trees, fan_in, outputs = neurons * dendrites, 1 if tree.claw else sites, rows
        across, synapses = 1, sites
        tree = tree._replace(sheet=(sites, 1), mode="valid")
    taps = torch.Size((trees, k_time, branches, across))
    products, flops = merge_costs(taps, synapses, tree)
    products += batch * trees * fan_in * outputs * step_pairs(steps, k_time, steps)
    return products, flops, sums
