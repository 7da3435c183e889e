"""The soma as one operator on the CPU: filter, norm or resting potential, and rectifier.

Each of them would read and write all currents by itself; the kernels in C++ compute potentials
again instead of keeping them.

Shapes: T time steps, K taps, U units, L numbers of a step: positions by units, the units innermost.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuroconv.kernels import native
from neuroconv.kernels.columns import scale_and_offset, summed_rates, through_a_norm
from neuroconv.kernels.operator import Operator, optional
from neuroconv.kernels.soma import causal_matrix


def soma_rate(
    currents: Tensor,
    taps: Tensor,
    units: int,
    gain: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rates max(0, gain * potential + shift) of filtered currents.

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
    result: tuple[Tensor, Tensor, Tensor] = _soma_rate(currents, taps, gain, shift, units, eps)
    return result


def _reference(
    currents: Tensor,
    taps: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    units: int,
    eps: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    potential = causal_matrix(taps, currents.shape[0]) @ currents
    columns = potential.unflatten(1, (-1, units)).transpose(0, 1).unsqueeze(0)  # (1, M, T, U)
    gain, shift = (None if values is None else values.unsqueeze(0) for values in (gain, shift))
    rate, mean, variance = summed_rates(columns, gain, shift, eps, linear=False)
    return rate.flatten(1), mean.flatten(), variance.flatten()


def _cpu(
    currents: Tensor,
    taps: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    units: int,
    eps: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance = currents.new_empty(0), currents.new_empty(0)
    if eps is not None:
        mean, variance = native.Soma(currents, taps, units, None, None, False).statistics()
    scale, offset = scale_and_offset(gain, shift, eps, mean, variance)
    soma = native.Soma(currents, taps, units, scale, offset, True)
    return soma.rate(), mean, variance


def _fake(
    currents: Tensor,
    taps: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    units: int,
    eps: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (0,) if eps is None else (units,)
    return torch.empty_like(currents), currents.new_empty(shape), currents.new_empty(shape)


def _cpu_backward(
    grad: Tensor,
    currents: Tensor,
    taps: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    units: int,
    eps: float | None,
    mean: Tensor,
    variance: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor, ...]:
    scale, offset = scale_and_offset(gain, shift, eps, mean, variance)
    soma = native.Soma(currents, taps, units, scale, offset, True)
    grad = grad.contiguous()
    to_gain = to_shift = through = None
    if gain is not None:
        to_shift, to_gain = (values.clone() for values in soma.sums(grad))
        if eps is not None:
            count = currents.numel() // units
            assert scale is not None
            norm = (scale, mean, variance)
            to_gain, *through = through_a_norm(norm, eps, count, to_shift, to_gain)
    asks = (needs[0], needs[1], shift is not None and gain is None)
    to_currents, to_taps, alone = soma.gradients(grad, through, asks)
    results = (to_currents, to_taps, to_gain, alone if to_shift is None else to_shift)
    return tuple(currents.new_empty(0) if result is None else result for result in results)


def _fake_backward(grad: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    currents, taps, gain, shift, *_, needs = rest
    results = [
        torch.empty_like(values) if needed else grad.new_empty(0)
        for values, needed in zip((currents, taps), needs, strict=False)
    ]
    return (
        *results,
        *(grad.new_empty(0) if each is None else torch.empty_like(each) for each in (gain, shift)),
    )


def _gradient(
    grad: Tensor, arguments: Sequence[Any], others: Sequence[Tensor], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    grads = _soma_rate_backward(grad, *arguments, *others, needs[:4])
    return (*optional(grads, needs), None, None)


_OPERANDS = "Tensor currents, Tensor taps, Tensor? gain, Tensor? shift, int units, float? eps"
_soma_rate = Operator(
    f"soma_rate({_OPERANDS}) -> (Tensor, Tensor, Tensor)",
    _reference,
    fake=_fake,
    cpu=_cpu,
    flops=lambda currents, *_, **__: 2 * currents[0] * currents[0] * currents[1],
)
_soma_rate_backward = Operator(
    f"soma_rate_backward(Tensor grad, {_OPERANDS}, Tensor mean, Tensor variance, bool[] needs) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    None, fake=_fake_backward, cpu=_cpu_backward,
)  # fmt: skip
_soma_rate.register_gradient(_gradient, _reference)
