"""Batch norms of an image layer, run with what follows them.

Shapes: M positions (batch x height x width), T time steps, U units; a column holds the potentials
of one dendrite of all units, (M, T * U).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuroconv.core.counting import is_watched
from neuroconv.kernels.columns import columns_sum

# Sums dendrites with (gain, shift, eps) of a norm: the sum (T, M, U), and with an eps the mean and
# biased variance of each dendrite of each unit by which it was normalised, (dendrites, U).
Summing = Callable[[Tensor | None, Tensor | None, float | None], tuple[Tensor, Tensor, Tensor]]


# Of a norm's running statistics, its weight and bias, for each dendrite of a unit: what makes a
# scale and an offset of them.
SCALE_FLOPS = 5


def norms_agree(norms: Sequence[nn.Module]) -> bool:
    """Whether these norms may run in one: plain batch norms that agree in what they normalise by,
    and
    that no hook watches but a counter's."""
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
    """What `norms_agree` says: each column by its own nn.BatchNorm2d, rectified, and summed, (T, M,
    U).

    Raises:
        ValueError: in training, one value for each unit, as nn.BatchNorm2d raises it.
    """
    units = sum(norm.num_features for norm in norms[:1] if isinstance(norm, nn.BatchNorm2d))

    def summed(
        gain: Tensor | None, shift: Tensor | None, eps: float | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return columns_sum(columns, gain, shift, units, eps, linear)

    return normalised(norms, summed, columns[0].numel() // units)


def normalised(norms: Sequence[nn.Module], summing: Summing, count: int) -> Tensor:
    """A sum of dendrites of `count` values each, normalised by what `norms_agree` says.

    In training the statistics are the values' own, and the norms' running ones follow them.

    Raises:
        ValueError: in training, one value for each unit, as nn.BatchNorm2d raises it.
    """
    plain = [norm for norm in norms if isinstance(norm, nn.BatchNorm2d)]
    first = plain[0]
    gain = torch.stack([norm.weight for norm in plain])
    shift = torch.stack([norm.bias for norm in plain])
    if not first.training:
        means = torch.stack([_known(norm.running_mean) for norm in plain])
        variances = torch.stack([_known(norm.running_var) for norm in plain])
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
            _known(norm.num_batches_tracked).add_(1)
            part = norm.momentum
            weight = 1 / float(_known(norm.num_batches_tracked)) if part is None else part
            _known(norm.running_mean).lerp_(mean, weight)
            _known(norm.running_var).lerp_(variance * (count / (count - 1)), weight)
    return total


def _known(buffer: Tensor | None) -> Tensor:
    assert buffer is not None  # `norms_agree` takes norms with running statistics alone
    return buffer


def rectified_sum(
    columns: Sequence[Tensor], units: int, linear: bool = False, shift: Tensor | None = None
) -> Tensor:
    """The sum of the columns' rates, (T, M, U): max(0, potential), or with `linear` as it is.

    A `shift`, (dendrites, U), is added to the potentials.
    """
    return columns_sum(columns, None, shift, units, None, linear)[0]
