"""The soma: a temporal filter (the essay's is 1 x 1 x 5, shared by all neurons), and its rate.

Shapes: B batch, N neurons, T time steps, K the filter's time steps.
"""

from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import Size, checked
from neuroconv.core.cost import Cost
from neuroconv.core.shares import NeuronShare
from neuroconv.kernels.soma import causal_filter
from neuroconv.layers.memory import last_steps, recall


@checked
class SomaFilter(nn.Module):
    """Causal temporal filter over the summed dendritic current.

    Args:
        time_steps: taps K of the filter; the last one applies to the present.
        neurons: None for one filter that the whole population shares (the essay's), else one
            filter for each of this number of neurons.

    Shape:
        current (B, N, T) -> potential (B, N, T). With a shared filter further axes may follow, as
        in the image layers' (B, N, T, H, W).

    Raises:
        ValueError: a size that is not positive; at the call, other axes than these.
    """

    kernel_stage: ClassVar[str] = "soma_filter"

    def __init__(self, time_steps: Size = 5, neurons: Size | None = None) -> None:
        super().__init__()
        self.time_steps, self.neurons = time_steps, neurons
        self.weight = nn.Parameter(
            torch.empty(time_steps) if neurons is None else torch.empty(neurons, time_steps)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the filter to the identity, which has no memory: training adds it."""
        nn.init.zeros_(self.weight)
        with torch.no_grad():
            self.weight[..., -1] = 1.0

    def forward(self, current: Tensor) -> Tensor:
        cells, shape = self.neurons, current.shape
        if len(shape) < 3 or (cells is not None and (len(shape) != 3 or shape[1] != cells)):
            neurons = "neurons" if cells is None else f"{cells} neurons"
            raise ValueError(
                f"current has shape {tuple(shape)}; expected (batch, {neurons}, time_steps)"
            )
        if self.neurons is not None:
            padded = F.pad(current, (self.time_steps - 1, 0))
            return F.conv1d(padded, self.weight.unsqueeze(1), groups=self.neurons)
        return causal_filter(current, self.weight)

    def stream(self, current: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Runs `forward` after the steps of the past; also returns the past of the next call."""
        window, past = recall(past, current, self.time_steps)
        return last_steps(current.shape[2], self(window)), past

    def closed_form(self, current: torch.Size) -> tuple[Cost, ...]:
        """Counts T inputs for each output: a shared filter runs as a T x T matrix."""
        if self.neurons is not None:
            return (Cost("soma", {"convolution": current.numel() * self.time_steps}),)
        outputs, steps = current.numel(), current[2]
        zeros = outputs * max(0, steps - self.time_steps)
        return (Cost("soma", {"matmul": outputs * steps}, zeros=zeros),)

    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}, neurons={self.neurons}"


class FiringRate(nn.Module):
    """Rectification: too negative a potential makes no spike, else the rate is proportional to it.

    Shape:
        potential (B, N, ...) -> rate (B, N, ...), never negative
    """

    kernel_stage: ClassVar[str] = "firing_rate"

    def forward(self, potential: Tensor) -> Tensor:
        return potential.relu()

    def closed_form(self, potential: torch.Size) -> tuple[Cost, ...]:
        return (Cost("firing", pointwise=potential.numel()),)


class GatheredRate(FiringRate):
    """`FiringRate` of the n neurons that a process holds, and then the rates of all processes.

    Its gradient is the sum of those of all processes.

    Shape:
        potential (B, n, T, ...) -> rate (B, N, T, ...)
    """

    def __init__(self, share: NeuronShare) -> None:
        super().__init__()
        self.share = share

    def forward(self, potential: Tensor) -> Tensor:
        return _Gathered.apply(super().forward(potential), self.share)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rate: Tensor, share: NeuronShare) -> Tensor:
        ctx.share, rows = share, rate.transpose(0, 1).contiguous()
        whole = rows.repeat(share.size, *[1] * (rows.dim() - 1))
        if not rate.is_meta:
            dist.all_gather(list(whole.split(share.local)), rows)
        return whole.transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        whole = grad.transpose(0, 1).contiguous()
        rows = whole[: ctx.share.local].clone()
        if not grad.is_meta:
            dist.reduce_scatter(rows, list(whole.split(ctx.share.local)))
        return rows.transpose(0, 1), None
