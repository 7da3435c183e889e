"""The soma as one operator on the CPU: filter, norm or resting potential, and rectifier.

Separate stages would each read and write all currents; the kernels in C++ recompute the potentials
in the backward pass.

Shapes: T time steps, K taps, U units, L numbers of a step: positions by units, the units innermost.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuroconv.kernels import native
from neuroconv.kernels.columns import scale_and_offset, summed_rates, through_a_norm
from neuroconv.kernels.operator import Operator, empty_grads, or_empty
from neuroconv.kernels.soma import causal_matrix


def soma_rate(
    currents: Tensor,
    taps: Tensor,
    units: int,
    gain: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the rates (T, L), max(0, gain * potential + shift), of filtered currents.

    Args:
        currents: (T, L), contiguous.
        taps: (K,), the last of which meets the present.
        gain, shift: (U,), or None.
        eps: if given, potentials are first normalised by their mean and variance plus eps, (U,),
            which are returned too and carry no gradient.
    """
    result: tuple[Tensor, Tensor, Tensor] = _soma_rate(currents, taps, gain, shift, units, eps)
    return result


class _Operands(NamedTuple):
    currents: Tensor
    taps: Tensor
    gain: Tensor | None
    shift: Tensor | None
    units: int
    eps: float | None

    def soma(self, mean: Tensor, variance: Tensor) -> tuple[native.Soma, Tensor | None]:
        """Returns the kernels of these operands, and the factor that scales the potentials."""
        scale, offset = scale_and_offset(self.gain, self.shift, self.eps, mean, variance)
        return native.Soma(self.currents, self.taps, self.units, scale, offset, True), scale


def _reference(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    currents, taps, gain, shift, units, eps = _Operands(*arguments)
    potential = causal_matrix(taps, currents.shape[0]) @ currents
    columns = potential.unflatten(1, (-1, units)).transpose(0, 1).unsqueeze(0)  # (1, M, T, U)
    gain, shift = (None if values is None else values.unsqueeze(0) for values in (gain, shift))
    rate, mean, variance = summed_rates(columns, gain, shift, eps, linear=False)
    return rate.flatten(1), mean.flatten(), variance.flatten()


def _cpu(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    operands = _Operands(*arguments)
    currents, taps, _, _, units, eps = operands
    mean, variance = currents.new_empty(0), currents.new_empty(0)
    if eps is not None:
        mean, variance = native.Soma(currents, taps, units, None, None, False).statistics()
    return operands.soma(mean, variance)[0].rate(), mean, variance


def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    currents, _, _, _, units, eps = _Operands(*arguments)
    shape = (0,) if eps is None else (units,)
    return torch.empty_like(currents), currents.new_empty(shape), currents.new_empty(shape)


def _cpu_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    operands = _Operands(*arguments[:6])
    mean, variance, needs = arguments[6:]
    soma, scale = operands.soma(mean, variance)
    grad = grad.contiguous()
    to_gain = to_shift = through = None
    if operands.gain is not None:
        to_shift, to_gain = (values.clone() for values in soma.sums(grad))
        if operands.eps is not None:
            count = operands.currents.numel() // operands.units
            assert scale is not None
            norm = (scale, mean, variance)
            to_gain, *through = through_a_norm(norm, operands.eps, count, to_shift, to_gain)
    offset_alone = operands.shift is not None and operands.gain is None
    to_currents, to_taps, to_offset = soma.gradients(
        grad, through, (needs[0], needs[1], offset_alone)
    )
    return or_empty(grad, to_currents, to_taps, to_gain, to_offset if offset_alone else to_shift)


def _fake_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return empty_grads(grad, arguments[:4], (*arguments[-1][:2], True, True))


_SCHEMA = "Tensor currents, Tensor taps, Tensor? gain, Tensor? shift, int units, float? eps"
_soma_rate = Operator(
    f"soma_rate({_SCHEMA}) -> (Tensor, Tensor, Tensor)",
    _reference, fake=_fake, cpu=_cpu,
    flops=lambda currents, *_, **__: 2 * currents[0] * currents[0] * currents[1],
)  # fmt: skip
_soma_rate_backward = Operator(
    f"soma_rate_backward(Tensor grad, {_SCHEMA}, Tensor mean, Tensor variance, bool[] needs) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    None, fake=_fake_backward, cpu=_cpu_backward,
)  # fmt: skip
_soma_rate.register_gradient(
    lambda grad, arguments, others, needs: _soma_rate_backward(
        grad, *arguments, *others, needs[:4]
    ),
    _reference,
)
