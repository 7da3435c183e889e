"""The dendrites of an image layer as one operator on the CPU: from the frames to the sum of rates.

Torch's operators write the potentials of all dendrites, and norms, rectifier and sum read them
again (`kernels.columns`): with few channels that takes longer than the products. The kernels in C++
compute a tile at a time, in the cache, and skip the products with future steps. The backward pass
needs one bit of each potential: whether the rectifier passes it.

Shapes: B batch, C channels, T time steps, H x W positions; D dendrites, U units; K inputs of one
dendrite, (branches, T, C); H' x W' positions come out, M = W' * B * H' of them.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.layout import memory_order
from neuroconv.kernels import native
from neuroconv.kernels.columns import norm_backward, scale_and_offset, summed_rates
from neuroconv.kernels.native.image import ImageLayer, ImageSizes
from neuroconv.kernels.operator import Operator, empty_grads, needs_grad, or_empty
from neuroconv.kernels.patches import ColumnLayout, lay_out, lay_out_transpose

# Weights of one dendrite, K * T * U: larger ones do not fit the cache, and oneDNN is as fast.
_MOST_WEIGHTS = 1 << 16
# With at least this many inputs of a dendrite, or as many as its outputs, a norm's statistics come
# from the potentials, which are then saved for the backward pass; with fewer the moments of the
# inputs take less time.
_MANY_INPUTS = 64


def fits(frames: Tensor, weight: Tensor, inputs: int, outputs: int) -> bool:
    """Returns whether the kernels take a layer of K inputs and T * U outputs, and are faster than
    its convolutions."""
    return inputs * outputs <= _MOST_WEIGHTS and native.runs(frames, weight)


def patch_sum(
    frames: Tensor,
    weight: Tensor,
    layout: ColumnLayout,
    sizes: ImageSizes,
    linear: bool,
    gain: Tensor | None,
    shift: Tensor | None,
    eps: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums max(0, gain * potential + shift) over the dendrites, (T, M, U).

    Args:
        frames: (B, C, T, H, W).
        weight: (D, K, T * U).
        linear: leave the maximum out.
        gain, shift: (D, U), or None.
        eps: if given, potentials are first normalised by their mean and variance plus eps, (D, U),
            which are returned too and carry no gradient.
    """
    keep = needs_grad(frames, weight, gain, shift)
    columns = (*layout.padding, *layout[1:])
    return _patch_sum(frames, weight, gain, shift, columns, list(sizes), eps, linear, keep)[:3]


class _Operands(NamedTuple):
    frames: Tensor
    weight: Tensor
    gain: Tensor | None
    shift: Tensor | None
    columns: Sequence[int]
    sizes: Sequence[int]
    eps: float | None
    linear: bool

    def layout(self) -> tuple[ColumnLayout, ImageSizes]:
        """Unpacks the integers that the operator takes."""
        top, bottom, left, right, *rest = self.columns
        layout = ColumnLayout((top, bottom, left, right), *rest)
        return layout, ImageSizes(*self.sizes)


def _reference(*arguments: Any) -> tuple[Tensor, ...]:
    """Runs torch's operators on the windows that each dendrite reads."""
    operands = _Operands(*arguments[:8])
    layout, size = operands.layout()
    top, bottom, left, right = layout.padding
    padded = F.pad(operands.frames, (left, right, top, bottom))
    row_stride = size.row_stride * layout.row_step
    potentials = []
    for dendrite, taps in enumerate(operands.weight):
        first = dendrite * layout.dilation
        columns = padded[..., first :: layout.stride][..., : size.columns]
        rows = columns.unfold(3, size.branches, row_stride)  # (B, C, T, H', W', branches)
        windows = rows.permute(4, 0, 3, 5, 2, 1).flatten(0, 2).flatten(1)  # (M, K)
        potentials.append((windows @ taps).unflatten(1, (size.steps, size.units)))
    _, _, gain, shift, _, _, eps, linear = operands
    results = summed_rates(torch.stack(potentials), gain, shift, eps, linear)
    return *results, *or_empty(operands.frames, *[None] * 5)


def _cpu(*arguments: Any) -> tuple[Tensor, ...]:
    operands, keep = _Operands(*arguments[:8]), arguments[8]
    frames, weight, gain, shift, _, _, eps, linear = operands
    layout, size = operands.layout()
    layer = ImageLayer(lay_out(frames, layout), weight, layout, size)
    mean, variance = or_empty(frames, None, None)
    moments = None
    if eps is not None and _takes_moments(weight):
        moments = layer.moments()
        mean, variance = layer.statistics_of(moments)
    elif eps is not None:
        if keep:
            layer.keep()
        mean, variance = layer.statistics()
    scale, offset = scale_and_offset(gain, shift, eps, mean, variance)
    total = layer.total(scale, offset, linear, keep and layer.potentials is None and not linear)
    saved = (layer.buffer, layer.potentials, layer.bits, *(moments or (None, None)))
    return total, mean, variance, *or_empty(frames, *(saved if keep else [None] * 5))


def _takes_moments(weight: Tensor) -> bool:
    """Returns whether a norm's statistics are computed from the moments of the inputs."""
    return weight.shape[1] < min(_MANY_INPUTS, weight.shape[2])


def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    operands, keep = _Operands(*arguments[:8]), arguments[8]
    frames, weight, _, _, _, sizes, eps, linear = operands
    dendrites, inputs, outputs = weight.shape
    size = ImageSizes(frames.shape[0], *sizes[1:])
    total = frames.new_empty(size.steps, size.positions, size.units)
    shape = (0,) if eps is None else (dendrites, size.units)
    statistics = (frames.new_empty(shape), frames.new_empty(shape))
    buffer = potentials = bits = mean = covariance = None
    if keep:
        buffer = frames.new_empty(operands.layout()[0].buffer_shape(frames.shape))
        wide = native.padded(outputs)
        if eps is not None and _takes_moments(weight):
            mean = frames.new_empty(dendrites, inputs, dtype=torch.float64)
            covariance = frames.new_empty(dendrites, inputs, inputs, dtype=torch.float64)
        elif eps is not None:
            potentials = frames.new_empty(dendrites, size.positions, wide)
        if potentials is None and not linear:
            bits = native.bits(dendrites * size.positions, of=wide, like=frames)
    return total, *statistics, *or_empty(frames, buffer, potentials, bits, mean, covariance)


def _cpu_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    operands = _Operands(*arguments[:8])
    mean, variance, saved, needs = arguments[8:]
    frames, weight, gain, shift, _, _, eps, linear = operands
    layout, size = operands.layout()
    buffer, potentials, bits = (values if values.numel() else None for values in saved[:3])
    assert buffer is not None
    scale, offset = scale_and_offset(gain, shift, eps, mean, variance)
    layer = ImageLayer(buffer, weight, layout, size, potentials, bits)
    grad = grad.contiguous()
    count = size.positions * size.steps
    layer_needs = (needs[0], needs[1])
    to_gain: Tensor | None = None
    if potentials is not None:
        assert eps is not None
        assert scale is not None
        to_shift, products = layer.sums(scale, offset, linear, grad)
        to_gain, *coeffs = norm_backward((scale, mean, variance), eps, count, to_shift, products)
        back, to_weight, _ = layer.gradients(scale, grad, layer_needs, linear, offset, coeffs)
    else:
        # A gain's gradient follows from the weights', and a norm's statistics from both.
        layer_needs = (layer_needs[0], layer_needs[1] or eps is not None or needs[2])
        back, to_weight, passed = layer.gradients(scale, grad, layer_needs)
        to_shift = passed.sum(1)
        if gain is not None and to_weight is not None:
            assert scale is not None
            by_step = (to_weight * weight.detach()).sum(1).unflatten(1, passed.shape[1:])
            to_gain = by_step.sum(1)
            to_weight *= scale.repeat(1, size.steps).unsqueeze(1)
            if eps is not None:
                exact = (scale.double(), mean.double(), variance.double())
                to_gain, *coeffs = norm_backward(exact, eps, count, to_shift, to_gain)
                layer.add_statistics_gradient(back, to_weight, coeffs, saved[3:])
    if back is not None:
        back = lay_out_transpose(back, layout, frames.shape, memory_order(frames))
    if to_weight is not None:
        to_weight = to_weight.to(weight.dtype).contiguous()
    results = (back, to_weight, to_gain, to_shift if shift is not None else None)
    pairs = zip(results, needs, strict=True)
    return or_empty(
        frames, *(None if x is None or not needed else x.to(weight.dtype) for x, needed in pairs)
    )


def empty_gradients(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Allocates the gradients of an operator's frames, weights, gain and shift."""
    (frames, *learned), needs = arguments[:4], arguments[-1]
    order = memory_order(frames)
    to_frames, *grads = empty_grads(frames, (frames.permute(order), *learned), needs)
    if needs[0]:
        to_frames = to_frames.permute([order.index(axis) for axis in range(5)])
    return to_frames, *grads


def _flops(
    frames: Any, weight: Any, gain: Any, shift: Any, layout: Any, sizes: Any, *_: Any, **__: Any
) -> int:
    """Counts two for each multiply-add of the dendrites' products, future steps' zeros included."""
    return 2 * ImageSizes(*sizes).positions * math.prod(weight)


_SCHEMA = (
    "Tensor frames, Tensor weight, Tensor? gain, Tensor? shift, int[] columns, SymInt[] sizes, "
    "float? eps, bool linear"
)
_patch_sum = Operator(
    f"patch_sum({_SCHEMA}, bool keep) -> ({', '.join(['Tensor'] * 8)})",
    _reference, fake=_fake, cpu=_cpu, flops=_flops,
)  # fmt: skip
_patch_sum_backward = Operator(
    f"patch_sum_backward(Tensor grad, {_SCHEMA}, Tensor mean, Tensor variance, Tensor[] saved, "
    "bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)",
    None, fake=empty_gradients, cpu=_cpu_backward,
)  # fmt: skip
_patch_sum.register_gradient(
    lambda grad, arguments, others, needs: _patch_sum_backward(
        grad, *arguments[:8], *others[:2], list(others[2:]), needs[:4]
    ),
    _reference,
)
