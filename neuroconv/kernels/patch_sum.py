"""The dendrites of an image layer as one operator on the CPU: from the frames to the sum of rates.

With torch's operators the potentials of all dendrites are written, and read again by their norms,
the rectifier and the sum (`kernels.columns`): for few channels that takes longer than the products.
The kernels in C++ compute them a tile at a time, in the cache, and leave out of the products the
steps that lie in a dendrite's future. For the backward pass one bit of each potential is kept:
whether its rectifier passes anything.

Shapes: B batch, C channels, T time steps, H x W positions; D dendrites, U units; K inputs of one
dendrite, (branches, T, C); H' x W' positions come out, M = W' * B * H' of them.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.layout import memory_order
from neuroconv.kernels import native
from neuroconv.kernels.columns import scale_and_offset, summed_rates, through_a_norm
from neuroconv.kernels.operator import Operator, optional
from neuroconv.kernels.patches import Reading, lay_out, take_back

# Weights of one dendrite, K * T * U: more of them leave the cache, and oneDNN is as fast.
_MOST_WEIGHTS = 1 << 16
# From this many inputs of a dendrite on, or from as many as it has outputs, a norm's statistics are
# taken of the potentials, which are then kept for the backward pass; of fewer, of the inputs and
# their products, which take less time.
_KEPT_INPUTS = 64


def fits(frames: Tensor, weight: Tensor, inputs: int, outputs: int) -> bool:
    """Whether the kernels compute this layer, and are faster than its convolutions.

    Args:
        weight: of the layer.
        inputs, outputs: K and T * U.
    """
    return inputs * outputs <= _MOST_WEIGHTS and native.runs(frames, weight)


def patch_sum(
    frames: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    reading: Reading,
    sizes: native.ImageSizes,
    eps: float | None = None,
    linear: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum over dendrites of max(0, gain * potential + shift).

    Args:
        frames: (B, C, T, H, W).
        weight: (D, K, T * U).
        gain, shift: (D, U), or None.
        sizes: of the layer and its maps.
        eps: if given, potentials are first normalised by their own mean and variance, to which it
            is added.
        linear: leave the maximum out.

    Returns:
        the sum, (T, M, U), and with an eps mean and biased variance, (D, U), through which no
        gradient flows but the sum's own.
    """
    learns = any(
        values is not None and values.requires_grad for values in (frames, weight, gain, shift)
    )
    keep = torch.is_grad_enabled() and learns
    layout = (*reading.padding, *reading[1:])
    total, mean, variance, _ = _patch_sum(
        frames, weight, gain, shift, layout, list(sizes), eps, linear, keep
    )
    return total, mean, variance


def _unpack(layout: Sequence[int], sizes: Sequence[int]) -> tuple[Reading, native.ImageSizes]:
    padding = (layout[0], layout[1], layout[2], layout[3])
    return Reading(padding, *layout[4:]), native.ImageSizes(*sizes)


def _reference(
    frames: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    layout: Sequence[int],
    sizes: Sequence[int],
    eps: float | None,
    linear: bool,
    keep: bool = False,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """By plain operators, from the windows that each dendrite reads."""
    reading, size = _unpack(layout, sizes)
    top, bottom, left, right = reading.padding
    padded = F.pad(frames, (left, right, top, bottom))
    row_stride = size.row_stride * reading.row_step
    potentials = []
    for dendrite, taps in enumerate(weight):
        first = dendrite * reading.dilation
        columns = padded[..., first :: reading.stride][..., : size.columns]
        rows = columns.unfold(3, size.branches, row_stride)  # (B, C, T, H', W', branches)
        windows = rows.permute(4, 0, 3, 5, 2, 1).flatten(0, 2).flatten(1)  # (M, K)
        potentials.append((windows @ taps).unflatten(1, (size.steps, size.units)))
    return *summed_rates(torch.stack(potentials), gain, shift, eps, linear), []


def _cpu(
    frames: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    layout: Sequence[int],
    sizes: Sequence[int],
    eps: float | None,
    linear: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    reading, size = _unpack(layout, sizes)
    layer = native.ImageLayer(lay_out(frames, reading), weight, reading, size)
    mean, variance = frames.new_empty(0), frames.new_empty(0)
    moments = None
    if eps is not None and _takes_moments(weight):
        moments = layer.moments()
        mean, variance = layer.statistics_of(moments)
    elif eps is not None:
        if keep:
            layer.keep()
        mean, variance = layer.statistics()
    scale, offset = scale_and_offset(gain, shift, eps, mean, variance)
    total = layer.total(scale, offset, linear, keep and layer.kept is None and not linear)
    kept: list[Tensor | None] = [layer.room, layer.kept, layer.bits, *(moments or (None, None))]
    kept = kept if keep else []
    return (
        total,
        mean,
        variance,
        [frames.new_empty(0) if values is None else values for values in kept],
    )


def _takes_moments(weight: Tensor) -> bool:
    """Whether a norm's statistics follow from the moments of the inputs."""
    return weight.shape[1] < min(_KEPT_INPUTS, weight.shape[2])


def _fake(
    frames: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    layout: Sequence[int],
    sizes: Sequence[int],
    eps: float | None,
    linear: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    reading, _ = _unpack(layout, sizes)
    dendrites, inputs, outputs = weight.shape
    size = native.ImageSizes(frames.shape[0], *sizes[1:])
    total = frames.new_empty(size.steps, size.places, size.units)
    shape = (0,) if eps is None else (dendrites, size.units)
    statistics = (frames.new_empty(shape), frames.new_empty(shape))
    if not keep:
        return total, *statistics, []
    kept = [
        frames.new_empty(reading.room(frames.shape)),
        frames.new_empty(0),
        frames.new_empty(0),
        frames.new_empty(0),
        frames.new_empty(0),
    ]
    wide = native.whole(outputs)
    if eps is not None and _takes_moments(weight):
        kept[3] = frames.new_empty(dendrites, inputs, dtype=torch.float64)
        kept[4] = frames.new_empty(dendrites, inputs, inputs, dtype=torch.float64)
    elif eps is not None:
        kept[1] = frames.new_empty(dendrites, size.places, wide)
    if not kept[1].numel() and not linear:
        kept[2] = native.bits(dendrites * size.places, of=wide, like=frames)
    return total, *statistics, kept


def _cpu_backward(
    grad: Tensor,
    frames: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    layout: Sequence[int],
    sizes: Sequence[int],
    eps: float | None,
    linear: bool,
    mean: Tensor,
    variance: Tensor,
    kept: Sequence[Tensor],
    needs: Sequence[bool],
) -> tuple[Tensor, ...]:
    reading, size = _unpack(layout, sizes)
    room, potentials, bits, *moments = (values if values.numel() else None for values in kept)
    assert room is not None
    scale, offset = scale_and_offset(gain, shift, eps, mean, variance)
    layer = native.ImageLayer(room, weight, reading, size, potentials, bits)
    grad = grad.contiguous()
    count = size.places * size.steps
    asks = (needs[0], needs[1])
    to_gain: Tensor | None = None
    if potentials is not None:
        assert eps is not None
        assert scale is not None
        to_shift, products = layer.sums(scale, offset, linear, grad)
        to_gain, *through = through_a_norm((scale, mean, variance), eps, count, to_shift, products)
        back, to_weight, _ = layer.gradients(scale, grad, asks, linear, offset, through)
    else:
        # A gain's gradient follows from the weights', and a norm's statistics from both.
        asks = (asks[0], asks[1] or eps is not None or needs[2])
        back, to_weight, passed = layer.gradients(scale, grad, asks)
        to_shift = passed.sum(1)
        if gain is not None and to_weight is not None:
            assert scale is not None
            by_step = (to_weight * weight.detach()).sum(1).unflatten(1, passed.shape[1:])
            to_gain = by_step.sum(1)
            to_weight *= scale.repeat(1, size.steps).unsqueeze(1)
            if eps is not None:
                exact = (scale.double(), mean.double(), variance.double())
                to_gain, *through = through_a_norm(exact, eps, count, to_shift, to_gain)
                assert moments[0] is not None
                assert moments[1] is not None
                layer.mend(back, to_weight, through, (moments[0], moments[1]))
    if back is not None:
        order = memory_order(frames)
        back = take_back(back, reading, frames.shape, order)
    if to_weight is not None:
        to_weight = to_weight.to(weight.dtype).contiguous()
    results = (back, to_weight, to_gain, to_shift if shift is not None else None)
    return tuple(
        frames.new_empty(0) if result is None or not needed else result.to(weight.dtype)
        for result, needed in zip(results, needs, strict=True)
    )


def _fake_backward(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    frames, *others = rest[:4]
    needs = rest[-1]
    results = [grad.new_empty(0)]
    if needs[0]:
        order = memory_order(frames)
        back = frames.new_empty([frames.shape[axis] for axis in order])
        results = [back.permute([order.index(axis) for axis in range(5)])]
    for values, needed in zip(others, needs[1:], strict=True):
        shape = values.shape if needed and values is not None else (0,)
        results.append(grad.new_empty(shape))
    return tuple(results)


def _flops(
    frames: Any, weight: Any, gain: Any, shift: Any, layout: Any, sizes: Any, *_: Any, **__: Any
) -> int:
    """Two for each multiply-add of the dendrites' products, zeros of the future included."""
    return 2 * native.ImageSizes(*sizes).places * math.prod(weight)


def _gradient(
    grad: Tensor, arguments: Sequence[Any], others: Sequence[Tensor], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    *operands, _ = arguments
    mean, variance, *kept = others
    grads = _patch_sum_backward(grad, *operands, mean, variance, kept, needs[:4])
    return (*optional(grads, needs), *(None for _ in needs[4:]))


_OPERANDS = (
    "Tensor frames, Tensor weight, Tensor? gain, Tensor? shift, int[] layout, SymInt[] sizes, "
    "float? eps, bool linear"
)
_patch_sum = Operator(
    f"patch_sum({_OPERANDS}, bool keep) -> (Tensor, Tensor, Tensor, Tensor[])",
    _reference, fake=_fake, cpu=_cpu, flops=_flops,
)  # fmt: skip
_patch_sum_backward = Operator(
    f"patch_sum_backward(Tensor grad, {_OPERANDS}, Tensor mean, Tensor variance, Tensor[] kept, "
    "bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)",
    None, fake=_fake_backward, cpu=_cpu_backward,
)  # fmt: skip
_patch_sum.register_gradient(_gradient, _reference)
