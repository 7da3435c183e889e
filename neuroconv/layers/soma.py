"""The soma: a further temporal filter, 1 x 1 x 5, the same for all neurons, and the firing rate.

Shapes: B batch, N neurons, T time steps, K the filter's time steps.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.checks import check_positive
from neuroconv.core.cost import Cost
from neuroconv.core.counting import is_counting
from neuroconv.kernels import native


class SomaFilter(nn.Module):
    """Causal temporal filter over the summed dendritic current.

    Args:
        time_steps: taps K of the filter; the last one meets the present.
        neurons: None for one filter that the whole population shares (the essay's), else one
            filter for each of so many neurons.

    Shape:
        current (B, N, T) -> potential (B, N, T). With a shared filter further axes may follow, as
        in the image layers' (B, N, T, H, W).

    Raises:
        ValueError: a size that is not positive; at the call, other axes than these.
    """

    def __init__(self, time_steps: int = 5, neurons: int | None = None) -> None:
        super().__init__()
        check_positive(time_steps=time_steps, neurons=1 if neurons is None else neurons)
        self.time_steps, self.neurons = time_steps, neurons
        self.weight = nn.Parameter(
            torch.empty(time_steps) if neurons is None else torch.empty(neurons, time_steps)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Passes the present on and has no memory yet: what lingers is learned."""
        nn.init.zeros_(self.weight)
        with torch.no_grad():
            self.weight[..., -1] = 1.0

    def forward(self, current: Tensor) -> Tensor:
        if current.dim() < 3 or (self.neurons is not None and current.dim() != 3):
            raise ValueError(
                f"current has shape {tuple(current.shape)}; expected (batch, neurons, time_steps)"
            )
        if self.neurons is not None:
            padded = F.pad(current, (self.time_steps - 1, 0))
            return F.conv1d(padded, self.weight.unsqueeze(1), groups=self.neurons)
        if current.dim() == 3:
            lying = current.permute(2, 1, 0)
            # Counters too see a linear layer: on meta a norm's gradient may lie otherwise than on
            # the CPU, and what is copied for it with it.
            looked_at = torch.jit.is_tracing() or torch.compiler.is_compiling() or is_counting()
            if looked_at or not lying.is_contiguous():
                return F.linear(current, causal_matrix(self.weight, current.shape[2]))
            # As a tree's stage leaves its sum: one long product, and no copy.
            return self._mixed(lying).permute(2, 1, 0)
        if (units_last := steps_first(current)) is not None:
            return as_it_lay(self._mixed(units_last), current)
        # Else time next to the batch, as image layers keep their maps: no copy is made of either.
        maps = current.transpose(1, 2)
        mixed = causal_matrix(self.weight, current.shape[2]) @ maps.flatten(2)
        return mixed.view(maps.shape).transpose(1, 2)

    def _mixed(self, lying: Tensor) -> Tensor:
        """Contiguous currents (T, ...) by the shared filter."""
        if native.takes(lying, self.weight):
            filtered: Tensor = _Filtered.apply(lying.flatten(1), self.weight)
            return filtered.view(lying.shape)
        return _product(lying, self.weight)

    def closed_form(self, current: torch.Size) -> tuple[Cost, ...]:
        """A shared filter runs as a T x T matrix over the window: T inputs for each output."""
        if self.neurons is not None:
            return (Cost("soma", {"convolution": current.numel() * self.time_steps}),)
        return (Cost("soma", {"matmul": current.numel() * current[2]}),)

    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}, neurons={self.neurons}"


class _Filtered(torch.autograd.Function):
    """Maps (T, L) by taps (K,), on the CPU (`kernels.native`)."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(maps, taps)
        return native.Soma(maps, taps, 1, None, None, False).rate()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        maps, taps = ctx.saved_tensors
        asked = ctx.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated again
            product = _product(maps, taps)
            sources = [each for each, needed in zip((maps, taps), asked, strict=True) if needed]
            found = iter(torch.autograd.grad(product, sources, grad, create_graph=True))
            return next(found) if asked[0] else None, next(found) if asked[1] else None
        soma = native.Soma(maps, taps, 1, None, None, False)
        back, to_taps, _ = soma.gradients(grad.contiguous(), None, (*asked, False))
        return back, to_taps


def _product(maps: Tensor, taps: Tensor) -> Tensor:
    """Contiguous maps (T, ...) by taps (K,), as one matrix product."""
    return (causal_matrix(taps, len(maps)) @ maps.flatten(1)).view(maps.shape)


class FiringRate(nn.Module):
    """Rectification: too negative a potential makes no spike, else the rate is proportional to it.

    A stage of its own, so that a neuron's activity can be watched where it arises.

    Shape:
        potential (B, N, ...) -> rate (B, N, ...), never negative
    """

    def forward(self, potential: Tensor) -> Tensor:
        return potential.relu()

    def closed_form(self, potential: torch.Size) -> tuple[Cost, ...]:
        return (Cost("firing", pointwise=potential.numel()),)


def steps_first(maps: Tensor) -> Tensor | None:
    """Maps (B, U, T, H, W) as contiguous ones with the steps outermost, the other axes as they lie,
    if the units are innermost; else None.

    So joined columns leave them, without a copy; a filter over the steps is then one long product
    and not a small one for each place.
    """
    innermost = maps.dim() == 5 and maps.stride(1) == 1 and maps.shape[1] > 1
    if torch.jit.is_tracing() or not innermost:
        return None
    return maps.permute(_steps_first(maps)).contiguous()


def as_it_lay(lying: Tensor, maps: Tensor) -> Tensor:
    """The axes of `steps_first(maps)` in the order of the maps."""
    order = _steps_first(maps)
    return lying.permute([order.index(axis) for axis in range(5)])


def _steps_first(maps: Tensor) -> list[int]:
    return [2, *(axis for axis in maps.dim_order() if axis != 2)]


def causal_matrix(taps: Tensor, time_steps: int) -> Tensor:
    """The (T, T) matrix whose row t holds the taps that step t applies to steps 0 ... t.

    Shape: taps (K, ...) -> matrix (T, T, ...), the row the later step.
    """
    now = torch.arange(time_steps, device=taps.device)
    tap = taps.shape[0] - 1 - (now[:, None] - now[None, :])
    reached = (tap >= 0) & (tap < taps.shape[0])
    padded = torch.cat([taps, torch.zeros_like(taps[:1])])  # the last row: no tap reaches
    index = torch.where(reached, tap, taps.shape[0])
    return padded.index_select(0, index.flatten()).unflatten(0, (time_steps, time_steps))
