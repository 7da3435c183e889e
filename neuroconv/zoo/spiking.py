"""Leaky integrate-and-fire units that learn by a surrogate gradient, and networks of them.

Shapes: B batch, T time steps, F inputs, U units.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import Depth, ImageShape, Positive, Share, Size, checked
from neuroconv.core.cost import Cost
from neuroconv.zoo.baselines import GREY
from neuroconv.zoo.recurrent import SequenceNet, default_block, frame_size
from neuroconv.zoo.registry import register_model

Surrogate = Literal["fast_sigmoid", "arctan"]
Reset = Literal["subtract", "zero"]


class _Step(torch.autograd.Function):
    """The step function, with the slope of a smooth one where its own is zero or infinite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Surrogate, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate, ctx.slope = surrogate, slope
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        if ctx.surrogate == "fast_sigmoid":
            return grad / (ctx.slope * x.abs() + 1) ** 2, None, None
        return grad * (ctx.slope / 2) / (1 + (math.pi / 2 * ctx.slope * x) ** 2), None, None


@checked
class LeakyIntegrateAndFire(nn.Module):
    """A layer of leaky integrate-and-fire units with their synapses.

    v(t) = decay v(t-1) + I(t) - threshold s(t-1), and a spike s(t) where v(t) > threshold, with I
    the weighted input, normalised over batch and steps if `norm`. As snntorch's `Leaky`, a reset
    follows a step after its spike, and no gradient passes through it.

    Args:
        decay: of the membrane in a step, exp(-dt / tau), as it starts; one for each unit.
        learn_decay: whether decays are trained; they act as clamped to [0, 1].
        threshold: 1 by convention: weights have no unit.
        reset: "subtract" the threshold (soft), or set the membrane to "zero" (hard).
        surrogate: the slope that stands for the step's at a distance x from the threshold:
            "fast_sigmoid" 1 / (1 + k |x|)^2 (Zenke and Ganguli 2018, doi:10.1162/neco_a_01086), or
            "arctan" k / 2 / (1 + (pi k x / 2)^2) (Fang et al. 2021, arXiv:2007.05785).
        slope: k. snntorch starts from 25 and 2.
        recurrent: whether units also read all spikes of their layer of the step before.
        norm: batch norm of the input current, whose sparse events are far below a threshold of 1.

    Shape:
        (B, T, F) -> spikes (B, T, U), each 0 or 1
    """

    def __init__(
        self,
        inputs: Size,
        units: Size,
        *,
        decay: Share = 0.9,
        learn_decay: bool = True,
        threshold: Positive = 1.0,
        reset: Reset = "subtract",
        surrogate: Surrogate = "fast_sigmoid",
        slope: Positive = 25.0,
        recurrent: bool = False,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.synapses = nn.Linear(inputs, units, bias=not norm)
        self.norm = nn.BatchNorm1d(units) if norm else nn.Identity()
        self.decay = nn.Parameter(torch.full((units,), decay), requires_grad=learn_decay)
        self.recurrence = nn.Linear(units, units, bias=False) if recurrent else None
        self.threshold, self.reset = threshold, reset
        self.surrogate, self.slope = surrogate, slope

    def forward(self, x: Tensor) -> Tensor:
        currents = self.norm(self.synapses(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        decay = self.decay.clamp(0, 1)
        membrane = spike = torch.zeros_like(currents[:, 0])
        spikes = []
        for current in currents.unbind(1):
            if self.recurrence is not None:
                current = current + self.recurrence(spike)
            if self.reset == "zero":
                membrane = decay * ((1 - spike.detach()) * membrane) + current
            else:
                membrane = decay * membrane + current - spike.detach() * self.threshold
            spike = self._spike(membrane - self.threshold)
            spikes.append(spike)
        return torch.stack(spikes, 1)

    def _spike(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _Step.apply(x, self.surrogate, self.slope)
        return (x > 0).to(x.dtype)  # which counters see

    def closed_form(self, x: torch.Size) -> tuple[Cost, ...]:
        batch, steps, inputs = x
        units = self.synapses.out_features
        normal = 0 if isinstance(self.norm, nn.Identity) else 2
        recurrent = self.recurrence is not None
        synapses = steps * units * (inputs + recurrent * units)
        # Leak, input and reset are four, and a spike two.
        updates = batch * steps * units * (normal + recurrent + 4 + 2)
        return (
            Cost("synapses", {"matmul": batch * synapses}, 0, steps * units, synapses),
            Cost("membrane", pointwise=updates + units),
        )


@checked
class SpikeTrace(nn.Module):
    """The leaky sum of spikes: r(t) = decay r(t-1) + s(t), with one decay that is trained.

    Shape:
        (B, T, U) -> the same
    """

    def __init__(self, decay: Share = 0.9) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.tensor(decay))

    def forward(self, spikes: Tensor) -> Tensor:
        decay, trace, traces = self.decay.clamp(0, 1), torch.zeros_like(spikes[:, 0]), []
        for spike in spikes.unbind(1):
            trace = decay * trace + spike
            traces.append(trace)
        return torch.stack(traces, 1)

    def closed_form(self, spikes: torch.Size) -> tuple[Cost, ...]:
        return (Cost("trace", pointwise=2 * spikes.numel() + 1),)


@register_model
def lif(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 10,
    width: Size = 64,
    block: Size | None = None,
    depth: Depth = 1,
    decay: Share = 0.9,
    learn_decay: bool = True,
    reset: Reset = "subtract",
    surrogate: Surrogate = "fast_sigmoid",
    slope: Positive = 25.0,
    recurrent: bool = False,
    norm: bool = True,
) -> SequenceNet:
    """Leaky integrate-and-fire units with a surrogate gradient: `depth` layers of `width` units.

    Read out as usual for such networks (Neftci et al. 2019, doi:10.1109/MSP.2019.2931595): the
    output units have membranes, do not spike, and are read at the last step. A count of output
    spikes has few values in a short window, and one more surrogate in its gradient. Since output
    membranes share a decay, spikes are integrated first and weighted once, which is the same.

    Args:
        block: frames are averaged over block x block pixels, as for `lstm`.
        decay, learn_decay, reset, surrogate, slope, recurrent, norm: as in `LeakyIntegrateAndFire`.
    """
    block = default_block(image_shape) if block is None else block
    sizes = [frame_size(image_shape, block), *[width] * depth]
    keywords: Any = {
        "decay": decay, "learn_decay": learn_decay, "reset": reset, "surrogate": surrogate,
        "slope": slope, "recurrent": recurrent, "norm": norm,
    }  # fmt: skip
    hidden = [LeakyIntegrateAndFire(size, width, **keywords) for size in sizes[:-1]]
    layers = nn.Sequential(*hidden, SpikeTrace(decay))
    return SequenceNet(layers, width, num_classes, time_steps, image_shape, block)
