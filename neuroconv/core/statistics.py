"""Running statistics of batch norms, without the bias of their initial values.

A batch norm starts its running variance at 1; after 15 training passes with momentum 0.1 a fifth of
that is left (0.9^15), which dominates small variances. In evaluation the norm's output is then too
small. After a convolution this is harmless: the mean of its potentials is near zero. A rate is
never negative: its mean, one to two of its standard deviations, shrinks with its input, while the
next norm subtracts the mean of full-sized rates, and rectifiers silence what is below zero. The
error about doubles from layer to layer, and a deep network is silent in evaluation.

What remains is that statistics lag behind weights which still change fast. Before evaluating such
a network let `torch.optim.swa_utils.update_bn(batches, model)` compute them for its last weights.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def correct_statistics(norm: _BatchNorm) -> None:
    """Makes running statistics weighted averages of the batches from now on, as in Adam's moments.

    Statistics up to now serve evaluation until the first training pass, and count no more after
    it. Norms with a cumulative average (momentum=None), or without running statistics, stay.
    """
    if not norm.momentum or norm.running_mean is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.zero_()
    if _to_averages not in norm._forward_hooks.values():
        norm.register_forward_pre_hook(_to_sums)
        norm.register_forward_hook(_to_averages)


def drop_correction(norm: nn.Module) -> None:
    """Removes the hooks of `correct_statistics`, which evaluation does not need."""
    for hooks in (norm._forward_pre_hooks, norm._forward_hooks):
        for key in [key for key, hook in hooks.items() if hook in (_to_sums, _to_averages)]:
            del hooks[key]


def _to_sums(norm: Any, inputs: Any) -> None:
    for statistic, weight in _weighted(norm):
        statistic.mul_(weight)


def _to_averages(norm: Any, inputs: Any, output: Any) -> None:
    for statistic, weight in _weighted(norm):
        statistic.div_(weight)


def _weighted(norm: Any) -> list[tuple[Tensor, Tensor]]:
    """Returns each running statistic of a norm in training with the weight of all its batches."""
    if not (norm.training and norm.momentum):
        return []
    weight = 1 - (1 - norm.momentum) ** norm.num_batches_tracked
    statistics = (norm.running_mean, norm.running_var)
    if torch.compiler.is_exporting():
        return [(x, weight) for x in statistics]
    # Autograd saves them, but does not use them in training: it is not to notice the change.
    return [(x.data, weight) for x in statistics]
