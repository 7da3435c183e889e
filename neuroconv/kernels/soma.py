"""The soma's filter in time: plain operators, and one operator in C++ on the CPU.

Shapes: B batch, N neurons, T time steps, K taps; L numbers of a step.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.counting import is_counting
from neuroconv.kernels import native
from neuroconv.kernels.operator import (
    Operator,
    empty_grads,
    is_traced,
    kernels_enabled,
    or_empty,
)


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
    if is_counting() or not native.runs(maps, taps):
        return _plain(maps.flatten(1), taps).view(maps.shape)
    filtered: Tensor = _soma_filter(maps.flatten(1), taps)
    return filtered.view(maps.shape)


def _plain(maps: Tensor, taps: Tensor) -> Tensor:
    """Filters contiguous maps (T, L) by taps (K,) as one matrix product."""
    return causal_matrix(taps, maps.shape[0]) @ maps


def _cpu(maps: Tensor, taps: Tensor) -> Tensor:
    return native.Soma(maps, taps, 1, None, None, False).rate()


def _cpu_backward(
    grad: Tensor, maps: Tensor, taps: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    soma = native.Soma(maps, taps, 1, None, None, False)
    to_maps, to_taps, _ = soma.gradients(grad.contiguous(), None, (needs[0], needs[1], False))
    return or_empty(maps, to_maps, to_taps)


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
    """Returns the (T, T) matrix whose row t has the taps that step t applies to steps 0 ... t.

    Shape: taps (K, ...) -> matrix (T, T, ...), the row the later step.
    """
    now = torch.arange(time_steps, device=taps.device)
    tap = taps.shape[0] - 1 - (now[:, None] - now[None, :])
    inside = (tap >= 0) & (tap < taps.shape[0])
    padded = torch.cat([taps, torch.zeros_like(taps[:1])])  # the last row: no tap
    index = torch.where(inside, tap, taps.shape[0])
    return padded.index_select(0, index.flatten()).unflatten(0, (time_steps, time_steps))


_soma_filter = Operator(
    "soma_filter(Tensor maps, Tensor taps) -> Tensor",
    _plain, fake=lambda maps, taps: torch.empty_like(maps), cpu=_cpu,
    flops=lambda maps, taps, **_: 2 * maps[0] * maps[0] * maps[1],
)  # fmt: skip
_soma_filter_backward = Operator(
    "soma_filter_backward(Tensor grad, Tensor maps, Tensor taps, bool[] needs) -> (Tensor, Tensor)",
    None, fake=lambda grad, maps, taps, needs: empty_grads(grad, (maps, taps), needs),
    cpu=_cpu_backward,
)  # fmt: skip
_soma_filter.register_gradient(
    lambda grad, arguments, _, needs: _soma_filter_backward(grad, *arguments, needs), _plain
)
