"""The soma as one stage on the CPU: filter, norm or resting potential, and rectifier.

Each of them would read and write all currents by itself; the kernels of `kernels.native` make
potentials again instead of keeping them.

Shapes: T time steps, K taps, U units, L numbers of a step: places by units, the units innermost.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroconv.kernels import native
from neuroconv.kernels.columns import through_a_norm


def soma_stage(
    currents: Tensor,
    taps: Tensor,
    units: int,
    gain: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rates max(0, gain * potential + shift) of filtered currents; `native.takes` says where.

    Args:
        currents: (T, L), contiguous.
        taps: (K,), the last of which meets the present.
        gain, shift: (U,), or None.
        eps: if given, potentials are first normalised by their own mean and variance, to which it
            is added.

    Returns:
        the rates, (T, L), and with an eps mean and biased variance of each unit, (U,), through
        which no gradient flows but the rates' own.
    """
    made: tuple[Tensor, Tensor, Tensor] = _Stage.apply(currents, taps, gain, shift, units, eps)
    return made


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        taps: Tensor,
        gain: Tensor | None,
        shift: Tensor | None,
        units: int,
        eps: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = variance = currents.new_empty(0)
        scale, offset = gain, shift
        if eps is not None:
            assert gain is not None
            assert shift is not None
            plain = native.Soma(currents, taps, units, None, None, False)
            mean, variance = plain.statistics()
            scale = gain * (variance + eps).rsqrt()
            offset = torch.addcmul(shift, mean, scale, value=-1)
        ctx.save_for_backward(currents, taps, gain, shift, scale, offset, mean, variance)
        ctx.units, ctx.eps = units, eps
        ctx.mark_non_differentiable(mean, variance)
        soma = native.Soma(currents, taps, units, scale, offset, True)
        return soma.rate(), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
        currents, taps, gain, shift, scale, offset, mean, variance = ctx.saved_tensors
        soma = native.Soma(currents, taps, ctx.units, scale, offset, True)
        grad = grad.contiguous()
        to_gain = to_shift = through = None
        if gain is not None:
            to_shift, to_gain = soma.sums(grad)
            if ctx.eps is not None:
                count = currents.numel() // ctx.units
                norm = (scale, mean, variance)
                to_gain, *through = through_a_norm(norm, ctx.eps, count, to_shift, to_gain)
        asked = (*ctx.needs_input_grad[:2], shift is not None and gain is None)
        back, to_taps, own = soma.gradients(grad, through, asked)
        return back, to_taps, to_gain, own if to_shift is None else to_shift, None, None
