"""Running statistics of batch norms, without the bias of their initial values.

A batch norm starts its running mean at 0 and its running variance at 1; each training pass replaces
the fraction `momentum` of them. After 15 passes with momentum 0.1 a fifth of the start is left,
0.9^15 = 0.21, which dominates where the variances of a layer are far below 1. In evaluation the
norm's output is then smaller than in training.

After a convolution this is harmless: the mean of its potentials is near zero, and the next norm
merely receives a smaller input. A rate is never negative. Its mean is one to two of its standard
deviations, and shrinks with its input; the next norm still subtracts the mean of full-sized rates,
which shifts the rates below zero, where a rectifier silences them. The error about doubles from
layer to layer, so that a deep network with accurate statistics of its first layers can still be
silent in evaluation. Without the initial values' share the error vanishes in all layers at once.

What remains is that statistics lag behind weights which still change fast. Before evaluating such
a network let `torch.optim.swa_utils.update_bn(batches, model)` compute them for its last weights.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


def correct_statistics(norm: _BatchNorm) -> None:
    """Makes running statistics weighted averages of the batches from now on, as in Adam's moments.

    Statistics up to now are used in evaluation until the first training pass, and not after it.
    Norms with a cumulative average (momentum=None), or without running statistics, stay as they
    are.
    """
    if not norm.momentum or norm.running_mean is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.zero_()
    if _divide not in norm._forward_hooks.values():
        norm.register_forward_pre_hook(_multiply)
        norm.register_forward_hook(_divide)


def _multiply(norm: Any, inputs: Any) -> None:
    """Turns averages into sums of weighted batches, to which the pass adds another."""
    if norm.training and norm.momentum:
        for statistic in _statistics(norm):
            statistic.mul_(_weight(norm))


def _divide(norm: Any, inputs: Any, output: Any) -> None:
    """Turns sums of weighted batches into averages."""
    if norm.training and norm.momentum:
        for statistic in _statistics(norm):
            statistic.div_(_weight(norm))


def _statistics(norm: Any) -> list[Tensor]:
    """Returns the running statistics for changes that autograd is not to notice: it has saved them,
    but differentiates a norm in training without."""
    statistics = [norm.running_mean, norm.running_var]
    return statistics if torch.compiler.is_exporting() else [x.data for x in statistics]


def _weight(norm: Any) -> Tensor:
    """Returns the sum of the weights of all batches, 1 - (1 - momentum)^passes."""
    weight: Tensor = 1 - (1 - norm.momentum) ** norm.num_batches_tracked
    return weight
