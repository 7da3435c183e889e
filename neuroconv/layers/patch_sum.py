"""The dendrites of an image layer as one stage on the CPU: from the frames to the sum of rates.

By torch's operators the potentials of all dendrites are written, and read again by their norms, the
rectifier and the sum (`layers.columns`): for few channels that takes longer than the products. The
kernels of `layers.native` make them a tile at a time, in the cache, and make them again in the
backward pass; steps that a dendrite cannot know yet are left out of the products.

Shapes: B batch, C channels, T time steps, H x W places; D dendrites, U units; K inputs of one
dendrite, (branches, T, C); H' x W' places come out, M = W' * B * H' of them.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroconv.layers import native
from neuroconv.layers.columns import through_a_norm
from neuroconv.layers.patches import Reading, lay_out, take_back

# Weights of one dendrite, K * T * U: more of them leave the cache, and oneDNN is as fast.
_MOST_WEIGHTS = 1 << 16
# From so many inputs of a dendrite on, potentials are sooner read again than made again.
_KEPT_INPUTS = 64


def fits(frames: Tensor, weight: Tensor, inputs: int, outputs: int) -> bool:
    """Whether the kernels compute this layer, and should.

    Args:
        weight: what the layer's weights are made of.
        inputs, outputs: K and T * U.
    """
    return inputs * outputs <= _MOST_WEIGHTS and native.takes(frames, weight)


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
    """The sum over dendrites of max(0, gain * potential + shift), where `fits` says so.

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
    learned = any(each is not None and each.requires_grad for each in (frames, weight, gain, shift))
    keep = torch.is_grad_enabled() and learned and weight.shape[1] >= _KEPT_INPUTS
    made: tuple[Tensor, Tensor, Tensor] = _PatchSum.apply(
        frames, weight, gain, shift, reading, sizes, eps, linear, keep
    )
    return made


class _PatchSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        frames: Tensor,
        weight: Tensor,
        gain: Tensor | None,
        shift: Tensor | None,
        reading: Reading,
        sizes: native.ImageSizes,
        eps: float | None,
        linear: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        layer = native.ImageLayer(lay_out(frames, reading), weight, reading, sizes, keep)
        mean = variance = frames.new_empty(0)
        scale, offset = gain, shift
        if eps is not None:
            assert gain is not None
            assert shift is not None
            mean, variance = layer.statistics()
            scale = gain * (variance + eps).rsqrt()
            offset = torch.addcmul(shift, mean, scale, value=-1)
        kept = layer.kept
        ctx.save_for_backward(layer.room, kept, weight, gain, shift, scale, offset, mean, variance)
        ctx.reading, ctx.sizes, ctx.eps, ctx.linear = reading, sizes, eps, linear
        ctx.shape, ctx.order = frames.shape, frames.dim_order()
        ctx.mark_non_differentiable(mean, variance)
        return layer.total(scale, offset, linear), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
        room, kept, weight, gain, shift, scale, offset, mean, variance = ctx.saved_tensors
        layer = native.ImageLayer(room, weight, ctx.reading, ctx.sizes, kept=kept)
        stage = (scale, offset, ctx.linear, grad.contiguous())
        to_gain = to_shift = through = None
        if gain is not None:
            to_shift, to_gain = layer.sums(*stage)
            if ctx.eps is not None:
                count = ctx.sizes.places * ctx.sizes.steps
                norm = (scale, mean, variance)
                to_gain, *through = through_a_norm(norm, ctx.eps, count, to_shift, to_gain)
        back, to_weight, own = layer.gradients(*stage, through, ctx.needs_input_grad[:2])
        if shift is not None and gain is None:
            to_shift = own
        if back is not None:
            back = take_back(back, ctx.reading, ctx.shape, ctx.order)
        return back, to_weight, to_gain, to_shift, None, None, None, None, None
