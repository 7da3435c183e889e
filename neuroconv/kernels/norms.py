"""Batch norms of an image layer, fused with the rectifier and the sum after them.

Shapes: M positions (batch x height x width), T time steps, U units; a column holds the potentials
of one dendrite of all units, (M, T * U).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.core.counting import is_watched

# (gain, shift, eps) of a norm -> the dendrites' sum (T, M, U), and with an eps mean and biased
# variance of each dendrite of each unit, (dendrites, U).
Summing = Callable[[Tensor | None, Tensor | None, float | None], tuple[Tensor, Tensor, Tensor]]

# FLOPs that turn a norm's running statistics, weight and bias into scale and offset, for each unit.
SCALE_FLOPS = 5


def norms_agree(norms: Sequence[Any]) -> bool:
    """Returns whether these norms may run as one: plain batch norms with equal settings and without
    hooks, except a counter's."""
    if any(type(norm) not in (nn.BatchNorm2d, nn.BatchNorm3d) for norm in norms):
        return False
    kinds = {(norm.training, norm.eps, norm.momentum) for norm in norms}
    plain = all(norm.affine and norm.track_running_stats for norm in norms)
    return len(kinds) <= 1 and plain and not is_watched(*norms)


def normalised(
    norms: Sequence[Any], summing: Summing, count: int, bias: Tensor | None = None
) -> Tensor:
    """Sums the rates of dendrites of `count` values each, (T, M, U), normalised by norms that pass
    `norms_agree`, or shifted by a bias where there are none.

    In training the norms use batch statistics and update their running ones.

    Raises:
        ValueError: in training, one value for each unit, as nn.BatchNorm2d raises it.
    """
    if not norms:
        return summing(None, bias, None)[0]
    first = norms[0]
    gain, shift = _stacked(norms, "weight"), _stacked(norms, "bias")
    if not first.training:
        means, variances = _stacked(norms, "running_mean"), _stacked(norms, "running_var")
        scale = gain * (variances + first.eps).rsqrt()
        return summing(scale, torch.addcmul(shift, means, scale, value=-1), None)[0]
    if count < 2:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got {count} for each of "
            f"{first.num_features} units"
        )
    total, means, variances = summing(gain, shift, first.eps)
    with torch.no_grad():
        numbers = [norm.num_batches_tracked for norm in norms]
        torch._foreach_add_(numbers, 1)
        unbiased = variances * (count / (count - 1))
        for name, batch in (("running_mean", means), ("running_var", unbiased)):
            running = [getattr(norm, name) for norm in norms]
            values = [*batch.to(running[0].dtype)]
            if first.momentum is not None:
                torch._foreach_lerp_(running, values, first.momentum)
                continue
            for average, value, number in zip(running, values, numbers, strict=True):
                # The weight as a tensor: the host does not wait for the number.
                average.lerp_(value, number.to(average).reciprocal())
    return total


def _stacked(norms: Sequence[Any], name: str) -> Tensor:
    """Stacks a tensor of each norm, (dendrites, U), in float32 at least."""
    tensors = torch.stack([getattr(norm, name) for norm in norms])
    return tensors.to(torch.promote_types(tensors.dtype, torch.float32))
