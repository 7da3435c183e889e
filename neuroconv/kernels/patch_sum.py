"""The dendrites of an image layer as one stage on the CPU: from the frames to the sum of rates.

By torch's operators the potentials of all dendrites are written, and read again by their norms, the
rectifier and the sum (`kernels.columns`): for few channels that takes longer than the products. The
kernels of `kernels.native` make them a tile at a time, in the cache; steps that a dendrite cannot
know yet are left out of the products. For the backward pass a bit of each potential is kept: does
its rectifier pass anything?

Shapes: B batch, C channels, T time steps, H x W places; D dendrites, U units; K inputs of one
dendrite, (branches, T, C); H' x W' places come out, M = W' * B * H' of them.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroconv.kernels import native
from neuroconv.kernels.columns import through_a_norm
from neuroconv.kernels.patches import Reading, lay_out, take_back

# Weights of one dendrite, K * T * U: more of them leave the cache, and oneDNN is as fast.
_MOST_WEIGHTS = 1 << 16
# From so many inputs of a dendrite on, or from as many as it has outputs, a norm's statistics are
# taken of the potentials, which are then kept for the backward pass; of fewer, of the inputs and
# their products, which are the sooner made.
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
    keep = torch.is_grad_enabled() and learned
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
        layer = native.ImageLayer(lay_out(frames, reading), weight, reading, sizes)
        mean = variance = frames.new_empty(0)
        scale, offset, moments = gain, shift, None
        if eps is not None:
            assert gain is not None
            assert shift is not None
            if layer.inputs < min(_KEPT_INPUTS, layer.outputs):
                moments = layer.moments()
                mean, variance = layer.statistics_of(moments)
            else:
                if keep:
                    layer.keep()
                mean, variance = layer.statistics()
            scale = gain * (variance + eps).rsqrt()
            offset = torch.addcmul(shift, mean, scale, value=-1)
        total = layer.total(scale, offset, linear, keep and layer.kept is None and not linear)
        held = (layer.room, layer.kept, layer.bits, *(moments or (None, None)))
        ctx.save_for_backward(*held, weight, gain, shift, scale, offset, mean, variance)
        ctx.reading, ctx.sizes, ctx.eps, ctx.linear = reading, sizes, eps, linear
        ctx.shape, ctx.order = frames.shape, frames.dim_order()
        ctx.mark_non_differentiable(mean, variance)
        return total, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
        room, kept, bits, *moments, weight, gain, shift, scale, offset, mean, variance = (
            ctx.saved_tensors
        )
        layer = native.ImageLayer(room, weight, ctx.reading, ctx.sizes, kept, bits)
        grad, norm = grad.contiguous(), (scale, mean, variance)
        count = ctx.sizes.places * ctx.sizes.steps
        asked: tuple[bool, bool] = ctx.needs_input_grad[:2]
        to_gain: Tensor | None = None
        if kept is not None:
            to_shift, met = layer.sums(scale, offset, ctx.linear, grad)
            to_gain, *through = through_a_norm(norm, ctx.eps, count, to_shift, met)
            stage = (ctx.linear, offset, through)
            back, to_weight, _own = layer.gradients(scale, grad, asked, *stage)
        else:
            # A gain's gradient comes of the weights', and a norm's statistics of both.
            known = ctx.eps is not None or ctx.needs_input_grad[2]
            asked = (asked[0], asked[1] or known)
            back, to_weight, passed = layer.gradients(scale, grad, asked)
            to_shift = passed.sum(1)
            if gain is not None and to_weight is not None:
                by_step = (to_weight * weight.detach()).sum(1).unflatten(1, passed.shape[1:])
                to_gain = by_step.sum(1)
                to_weight *= scale.repeat(1, ctx.sizes.steps).unsqueeze(1)
                if ctx.eps is not None:
                    exact = (scale.double(), mean.double(), variance.double())
                    to_gain, *through = through_a_norm(exact, ctx.eps, count, to_shift, to_gain)
                    layer.mend(back, to_weight, through, (moments[0], moments[1]))
        if back is not None:
            back = take_back(back, ctx.reading, ctx.shape, ctx.order)
        of_shift = to_shift if shift is not None else None
        learned = [
            None if each is None else each.to(weight.dtype)
            for each in (to_weight, to_gain, of_shift)
        ]
        return back, *learned, None, None, None, None, None
