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

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuroconv.core.counting import is_exporting


def correct_statistics(norm: _BatchNorm) -> None:
    """Makes running statistics weighted averages of the batches from now on, as in Adam's moments.

    Statistics up to now serve evaluation until the first training pass, and count no more after
    it. Norms with a cumulative average (momentum=None), or without running statistics, stay.
    It is done by hooks, which `nn.SyncBatchNorm.convert_sync_batchnorm` drops: call that before.
    """
    if not norm.momentum or norm.running_mean is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.zero_()
    if _correct not in norm._forward_hooks.values():
        norm.register_forward_pre_hook(_remember)
        norm.register_forward_hook(_correct)


def drop_correction(norm: nn.Module) -> None:
    """Removes the hooks of `correct_statistics`, which evaluation does not need."""
    for hooks in (norm._forward_pre_hooks, norm._forward_hooks):
        for key in [key for key, hook in hooks.items() if hook in (_remember, _correct)]:
            del hooks[key]


def _remember(norm: Any, inputs: Any) -> None:
    norm.statistics_before = [x.clone() for x in _statistics(norm)]


def _correct(norm: Any, inputs: Any, output: Any) -> None:
    """Takes the part of the past out that the weights of the batches up to now leave over."""
    for statistic, before in zip(_statistics(norm), norm.statistics_before, strict=True):
        rest = (1 - norm.momentum) ** norm.num_batches_tracked
        statistic.sub_(rest * before).div_(1 - rest)
    del norm.statistics_before


def _statistics(norm: Any) -> list[Tensor]:
    """Returns the running statistics of a norm in training."""
    if not (norm.training and norm.momentum):
        return []
    statistics = [norm.running_mean, norm.running_var]
    # Autograd saves them, but does not use them in training: it is not to notice the change.
    return statistics if is_exporting() else [x.data for x in statistics]
