"""The dendrites of an image layer that read one channel each, as one operator from the frames to
the sum of their rates, without the zeros of a dense kernel: in C++ on the CPU. On CUDA
`kernels.claw_maps` runs.

Passes compute potentials where they need them: a few multiply-adds take less time than to write and
read one. Nothing but the frames is kept for the backward pass.

Shapes: B batch, C channels, T time steps, H x W positions; U units, K_T time taps, K_H branches and
D dendrites of each; H' x W' positions come out, M = W' * B * H' of them.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuroconv.kernels.column_convs import channel_convs
from neuroconv.kernels.columns import norm_backward, scale_and_offset, summed_rates
from neuroconv.kernels.native.claw import ClawLayer
from neuroconv.kernels.operator import Operator, or_empty
from neuroconv.kernels.patch_sum import empty_gradients
from neuroconv.kernels.patch_window import PatchWindow


def claw_sum(
    frames: Tensor,
    weight: Tensor,
    channels: Tensor,
    window: PatchWindow,
    linear: bool,
    gain: Tensor | None,
    shift: Tensor | None,
    eps: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums max(0, gain * potential + shift) over the dendrites, (T, M, U).

    Args:
        frames: (B, C, T, H, W).
        weight: (U, K_T, K_H, D).
        channels: that each dendrite reads, (U, D).
        linear, gain, shift, eps: as in `patch_sum`, with its results.
    """
    operands = (frames, weight, gain, shift, channels, packed(window), eps, linear)
    return _claw_sum(*operands)


def packed(window: PatchWindow) -> list[int]:
    """Returns a window as an operator takes it."""
    return [*window.kernel, *window.stride, *window.padding, *window.dilation]


def unpacked(sizes: Sequence[int]) -> PatchWindow:
    """Returns the window of what `packed` returned."""
    kernel, stride, *padding, dilation = zip(sizes[::2], sizes[1::2], strict=True)
    return PatchWindow(kernel, stride, (*padding[0], *padding[1]), dilation)


class _Operands(NamedTuple):
    frames: Tensor
    weight: Tensor
    gain: Tensor | None
    shift: Tensor | None
    channels: Tensor
    sizes: Sequence[int]  # of the window
    eps: float | None
    linear: bool

    @property
    def window(self) -> PatchWindow:
        return unpacked(self.sizes)

    def layer(self) -> ClawLayer:
        return ClawLayer(self.frames, self.weight, self.channels, self.window)

    def stage(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, int]:
        """Returns scale and offset of the potentials, (D, U), and whether they stay linear."""
        scale, offset = scale_and_offset(self.gain, self.shift, self.eps, mean, variance)
        if scale is None:
            scale = torch.ones_like(self.channels.T, dtype=self.weight.dtype)
        offset = torch.zeros_like(scale) if offset is None else offset
        return scale.contiguous(), offset.contiguous(), int(self.linear)


def _reference(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Runs torch's depthwise convolutions."""
    operands = _Operands(*arguments)
    frames, weight, gain, shift, channels, _, eps, linear = operands
    convs = channel_convs(frames, weight, channels, None, operands.window)
    potentials = torch.stack([x.permute(4, 0, 3, 2, 1).flatten(0, 2) for x in convs])
    return summed_rates(potentials, gain, shift, eps, linear)


def _fused(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    operands = _Operands(*arguments)
    weight, layer = operands.weight, operands.layer()
    mean, variance = or_empty(weight, None, None)
    if operands.eps is not None:
        mean, variance = _statistics(operands, layer)
    return layer.total(operands.stage(mean, variance)), mean, variance


def _statistics(operands: _Operands, layer: ClawLayer) -> tuple[Tensor, Tensor]:
    """Returns mean and biased variance of the potentials over positions and steps, (D, U)."""
    frames, weight = operands.frames, operands.weight
    # Sums are taken about a pivot near the mean, so that a large mean costs no digits. Where many
    # taps read the padding the first pivot is far from it, and a second pass goes about the mean.
    inputs = frames.mean((0, 2, 3, 4), dtype=weight.dtype)[operands.channels]
    pivot = (inputs * weight.sum((1, 2))).T.contiguous()
    count = frames.shape[0] * frames.shape[2] * math.prod(layer.out)
    for _ in range(2):
        shift, squares = layer.sums((torch.ones_like(pivot), pivot, 1)) / count
        mean, variance = pivot + shift, squares - shift.square()
        if (shift.square() <= 100 * variance).all():  # five digits are left of the variance
            break
        pivot = mean.to(weight.dtype)
    return mean.to(weight.dtype), variance.clamp_min(0).to(weight.dtype)


def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    operands = _Operands(*arguments)
    frames, weight = operands.frames, operands.weight
    rows, columns = operands.window.output_size(frames.shape[3], frames.shape[4])
    total = frames.new_empty(frames.shape[2], columns * frames.shape[0] * rows, len(weight))
    shape = (0,) if operands.eps is None else (weight.shape[3], len(weight))
    return total, weight.new_empty(shape), weight.new_empty(shape)


def _fused_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    operands, (mean, variance, needs) = _Operands(*arguments[:8]), arguments[8:]
    layer, stage = operands.layer(), operands.stage(mean, variance)
    planes, coeffs = layer.receive(grad), [torch.zeros_like(stage[0])] * 2
    to_gain = to_shift = None
    if operands.shift is not None:
        to_shift, to_gain = layer.sums(stage, planes).to(grad.dtype)
        if operands.eps is not None:
            norm, count = (stage[0], mean, variance), grad.shape[0] * grad.shape[1]
            to_gain, *coeffs = norm_backward(norm, operands.eps, count, to_shift, to_gain)
    to_frames, to_weight = layer.gradients(stage, coeffs, planes, needs)
    if to_weight is not None:
        to_weight = to_weight.to(operands.weight.dtype)
    pairs = zip((to_frames, to_weight, to_gain, to_shift), needs, strict=True)
    return or_empty(grad, *(x if needed else None for x, needed in pairs))


def _flops(*shapes: Any, **_: Any) -> int:
    """Counts two for each multiply-add of the dendrites' products."""
    operands = _Operands(*shapes[:8])
    samples, _, steps, *sizes = operands.frames
    positions = samples * steps * math.prod(operands.window.output_size(*sizes))
    return 2 * positions * math.prod(operands.weight)


_SCHEMA = (
    "Tensor frames, Tensor weight, Tensor? gain, Tensor? shift, Tensor channels, int[] sizes, "
    "float? eps, bool linear"
)
_claw_sum = Operator(
    f"claw_sum({_SCHEMA}) -> (Tensor, Tensor, Tensor)",
    _reference, fake=_fake, cpu=_fused, flops=_flops,
)  # fmt: skip
_claw_sum_backward = Operator(
    f"claw_sum_backward(Tensor grad, {_SCHEMA}, Tensor mean, Tensor variance, bool[] needs) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    None, fake=empty_gradients, cpu=_fused_backward,
)  # fmt: skip
_claw_sum.register_gradient(
    lambda grad, arguments, others, needs: _claw_sum_backward(grad, *arguments, *others, needs[:4]),
    _reference,
)
