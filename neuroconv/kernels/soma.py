"""The soma: its filter in time, and on the CPU one operator for filter, norm or resting potential,
and rectifier.

Separate stages would each read and write all currents; the kernels in C++ recompute the potentials
in the backward pass.

Shapes: B batch, N neurons, T time steps, K taps; U units, L numbers of a step: positions by units,
the units innermost.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.counting import is_counting
from neuroconv.kernels import native
from neuroconv.kernels.columns import norm_backward, scale_and_offset, summed_rates
from neuroconv.kernels.constants import constant
from neuroconv.kernels.native.soma import Soma
from neuroconv.kernels.operator import Operator, empty_grads, is_traced, kernels_enabled, or_empty


def causal_filter(current: Tensor, taps: Tensor) -> Tensor:
    """Filters currents (B, N, T, ...) in time by taps (K,) that all neurons share.

    One of three forms of the product runs, by the currents' order in memory: kernels return time
    outermost, and then nothing is copied.
    """
    if current.dim() == 3 and not kernels_enabled():
        return F.linear(current, causal_matrix(taps, current.shape[2]))
    traced = is_traced()
    if current.dim() == 3:
        # Counters see a linear layer too: on meta a norm's gradient may have other strides than on
        # the CPU, and need other copies.
        time_first = current.permute(2, 1, 0)
        if traced or is_counting() or not time_first.is_contiguous():
            return F.linear(current, causal_matrix(taps, current.shape[2]))
        return _filtered(time_first, taps).permute(2, 1, 0)
    if not traced and (maps := steps_first(current)) is not None:
        return as_before(_filtered(maps, taps), current)
    # Otherwise time is next to the batch, as in image layers: neither is copied.
    maps = current.transpose(1, 2)
    mixed = causal_matrix(taps, current.shape[2]) @ maps.flatten(2)
    return mixed.view(maps.shape).transpose(1, 2)


def _filtered(maps: Tensor, taps: Tensor) -> Tensor:
    """Filters contiguous currents (T, ...) by the shared taps."""
    rows = maps.flatten(1)
    if is_counting() or not native.runs(maps, taps):
        return (causal_matrix(taps, maps.shape[0]) @ rows).view(maps.shape)
    return soma_rate(rows, taps, 1, linear=True)[0].view(maps.shape)


def steps_first(maps: Tensor) -> Tensor | None:
    """Permutes maps (B, N, T, H, W) to contiguous ones with the steps outermost.

    The other axes keep their order in memory, which must have the neurons innermost, as image
    kernels return them; otherwise the result is None. A filter over the steps is then one long
    product and not a small one for each position.
    """
    if maps.dim() != 5 or maps.stride(1) != 1 or maps.shape[1] == 1:
        return None
    return maps.permute(_time_outermost(maps)).contiguous()


def as_before(time_first: Tensor, maps: Tensor) -> Tensor:
    """Permutes the axes of `steps_first(maps)` to the order of the maps."""
    order = _time_outermost(maps)
    return time_first.permute([order.index(axis) for axis in range(5)])


def _time_outermost(maps: Tensor) -> list[int]:
    return [2, *(axis for axis in maps.dim_order() if axis != 2)]


def causal_matrix(taps: Tensor, time_steps: int) -> Tensor:
    """Returns the (T, T, ...) matrix whose row t has the taps (K, ...) that step t applies to steps
    0 ... t."""
    padded = torch.cat([taps, torch.zeros_like(taps[:1])])  # the last row: no tap
    index = _causal_index(taps.shape[0], time_steps, taps.device)
    return padded.index_select(0, index.flatten()).unflatten(0, index.shape)


@constant
def _causal_index(taps: int, time_steps: int, device: torch.device) -> Tensor:
    now = torch.arange(time_steps, device=device)
    tap = taps - 1 - (now[:, None] - now)
    return torch.where((tap >= 0) & (tap < taps), tap, taps)


def soma_rate(
    currents: Tensor,
    taps: Tensor,
    units: int,
    linear: bool,
    gain: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the rates (T, L), max(0, gain * potential + shift), of filtered currents.

    Args:
        currents: (T, L), contiguous.
        taps: (K,), the last of which applies to the present.
        linear, gain, shift, eps: as in `patch_sum`, of one dendrite, with its results.
    """
    operands = _Operands(currents, taps, gain, shift, units, eps, linear)
    return _soma_rate(*operands)


class _Operands(NamedTuple):
    currents: Tensor
    taps: Tensor
    gain: Tensor | None
    shift: Tensor | None
    units: int
    eps: float | None
    linear: bool

    def soma(self, mean: Tensor, variance: Tensor) -> tuple[Soma, Tensor | None]:
        """Returns the kernels of these operands, and the factor that scales the potentials."""
        scale, offset = scale_and_offset(self.gain, self.shift, self.eps, mean, variance)
        rectifies = not self.linear
        return Soma(self.currents, self.taps, self.units, scale, offset, rectifies), scale


def _reference(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    currents, taps, gain, shift, units, eps, linear = _Operands(*arguments)
    potential = causal_matrix(taps, currents.shape[0]) @ currents
    columns = potential.unflatten(1, (-1, units)).transpose(0, 1).unsqueeze(0)  # (1, M, T, U)
    rate, mean, variance = summed_rates(columns, gain, shift, eps, linear)
    return rate.flatten(1), mean, variance


def _cpu(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    operands = _Operands(*arguments)
    currents, taps, _, _, units, eps, _ = operands
    mean, variance = or_empty(currents, None, None)
    if eps is not None:
        mean, variance = Soma(currents, taps, units, None, None, False).statistics()
    return operands.soma(mean, variance)[0].rate(), mean, variance


def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    currents, _, _, _, units, eps, _ = _Operands(*arguments)
    shape = (0,) if eps is None else (1, units)
    return torch.empty_like(currents), currents.new_empty(shape), currents.new_empty(shape)


def _cpu_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    operands = _Operands(*arguments[:7])
    mean, variance, needs = arguments[7:]
    soma, scale = operands.soma(mean, variance)
    grad = grad.contiguous()
    to_gain = to_shift = coeffs = None
    if operands.gain is not None:
        to_shift, to_gain = (values.clone() for values in soma.sums(grad))
        if operands.eps is not None:
            count = operands.currents.numel() // operands.units
            assert scale is not None
            norm = (scale, mean, variance)
            to_gain, *coeffs = norm_backward(norm, operands.eps, count, to_shift, to_gain)
    offset_alone = operands.shift is not None and operands.gain is None
    to_currents, to_taps, to_offset = soma.gradients(
        grad, coeffs, (needs[0], needs[1], offset_alone)
    )
    return or_empty(grad, to_currents, to_taps, to_gain, to_offset if offset_alone else to_shift)


def _fake_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return empty_grads(grad, arguments[:4], (*arguments[-1][:2], True, True))


_SCHEMA = (
    "Tensor currents, Tensor taps, Tensor? gain, Tensor? shift, int units, float? eps, bool linear"
)
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
