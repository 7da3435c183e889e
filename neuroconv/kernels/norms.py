"""Batch norms of an image layer, run with what follows them.

Shapes: M positions (batch x height x width), T time steps, U units; a column holds the potentials
of one dendrite of all units, (M, T * U).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuroconv.core.counting import is_watched
from neuroconv.kernels.columns import columns_sum

# (gain, shift, eps) of a norm -> the dendrites' sum (T, M, U), and with an eps mean and biased
# variance of each dendrite of each unit, (dendrites, U).
Summing = Callable[[Tensor | None, Tensor | None, float | None], tuple[Tensor, Tensor, Tensor]]

# FLOPs that turn a norm's running statistics, weight and bias into scale and offset, for each unit.
SCALE_FLOPS = 5


def norms_agree(norms: Sequence[nn.Module]) -> bool:
    """Returns whether these norms may run as one: plain batch norms with equal settings and without
    hooks, except a counter's."""
    if any(type(norm) is not nn.BatchNorm2d for norm in norms):
        return False
    kinds = {
        (norm.training, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for norm in norms
        if isinstance(norm, nn.BatchNorm2d)
    }
    plain = all(affine and tracked for *_, affine, tracked in kinds)
    return len(kinds) <= 1 and plain and not is_watched(*norms)


def normalised_sum(
    norms: Sequence[nn.Module], columns: Sequence[Tensor], linear: bool = False
) -> Tensor:
    """Normalises each column by its nn.BatchNorm2d, rectifies and sums them; see `normalised`."""
    units = sum(norm.num_features for norm in norms[:1] if isinstance(norm, nn.BatchNorm2d))

    def summed(
        gain: Tensor | None, shift: Tensor | None, eps: float | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return columns_sum(columns, gain, shift, units, eps, linear)

    return normalised(norms, summed, columns[0].numel() // units)


def normalised(norms: Sequence[nn.Module], summing: Summing, count: int) -> Tensor:
    """Sums dendrites of `count` values each, (T, M, U), normalised by norms that pass
    `norms_agree`.

    In training the norms use batch statistics and update their running ones.

    Raises:
        ValueError: in training, one value for each unit, as nn.BatchNorm2d raises it.
    """
    plain = [norm for norm in norms if isinstance(norm, nn.BatchNorm2d)]
    first = plain[0]
    gain = torch.stack([norm.weight for norm in plain])
    shift = torch.stack([norm.bias for norm in plain])
    if not first.training:
        means = torch.stack([_buffer(norm.running_mean) for norm in plain])
        variances = torch.stack([_buffer(norm.running_var) for norm in plain])
        scale = gain * (variances + first.eps).rsqrt()
        return summing(scale, torch.addcmul(shift, means, scale, value=-1), None)[0]
    if count < 2:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got {count} for each of "
            f"{first.num_features} units"
        )
    total, means, variances = summing(gain, shift, first.eps)
    with torch.no_grad():
        for norm, mean, variance in zip(plain, means, variances, strict=True):
            _buffer(norm.num_batches_tracked).add_(1)
            part = norm.momentum
            weight = 1 / float(_buffer(norm.num_batches_tracked)) if part is None else part
            _buffer(norm.running_mean).lerp_(mean, weight)
            _buffer(norm.running_var).lerp_(variance * (count / (count - 1)), weight)
    return total


def _buffer(buffer: Tensor | None) -> Tensor:
    assert buffer is not None  # `norms_agree` takes norms with running statistics alone
    return buffer
