"""Recurrent networks on frames: each step's pixels are one vector, and the last step is read out.

Shapes: B batch, C channels, T time steps, F numbers of a frame, U units, M memories.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import ImageShape, Positive, Share, Size, argument, checked
from neuroconv.core.cost import Cost
from neuroconv.neurons.stages import Table
from neuroconv.zoo.baselines import GREY
from neuroconv.zoo.registry import ImageNetwork, register_preset


@checked
class SequenceNet(ImageNetwork):
    """Layers over a sequence of vectors, and a linear read-out of their last step.

    Args:
        layers: builds them from F: each from (B, T, F) to (B, T, U), or a tuple that begins so.
        units: U of the last one.
        block: frames are averaged over block x block pixels. None for 4, or 1 where a frame is one
            pixel wide or high: on 28x28 pixels an LSTM of 4,000 parameters has a single unit.

    Shape:
        (B, C, H, W), taken as constant over the window, or (B, C, T, H, W) -> logits (B, classes)
    """

    def __init__(
        self,
        layers: Callable[[int], list[nn.Module]],
        units: Size,
        num_classes: Size,
        time_steps: Size,
        image_shape: ImageShape,
        block: Size | None = None,
    ) -> None:
        super().__init__(time_steps, image_shape)
        channels, *sides = image_shape
        block = (1 if min(sides) == 1 else 4) if block is None else block
        height, width = (min(block, side) for side in sides)
        self.average = nn.AvgPool2d((height, width), ceil_mode=True) if block > 1 else nn.Identity()
        self.layers = nn.ModuleList(layers(channels * math.prod(-(-n // block) for n in sides)))
        self.classifier = nn.Linear(units, num_classes)

    def as_sequence(self, images: Tensor) -> Tensor:
        """Returns frames as vectors (B, T, F)."""
        frames = self.as_frames(images).transpose(1, 2)
        return self.average(frames.flatten(0, 1)).flatten(1).unflatten(0, frames.shape[:2])

    def forward_features(self, images: Tensor) -> Tensor:
        steps: Any = self.as_sequence(images)
        for layer in self.layers:
            steps = layer(steps)
            steps = steps[0] if isinstance(steps, tuple) else steps
        return steps[:, -1]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features if pre_logits else self.classifier(features)


@checked
class LeakyIntegrateAndFire(nn.Module):
    """A layer of leaky integrate-and-fire units with their synapses; as snntorch's `Leaky`.

    v(t) = decay v(t-1) + I(t) - s(t-1), and a spike s(t) where v(t) > 1, with I the weighted input.
    No gradient passes through the reset.

    Args:
        decay: of a membrane in a step, as it starts; one a unit, acting as clamped to [0, 1].
        learn_decay: whether decays are trained.
        reset: "subtract" the threshold, or set the membrane to "zero".
        surrogate: the slope of a spike at a distance x from the threshold, with k = slope:
            "fast_sigmoid" 1 / (1 + k |x|)^2 (Zenke and Ganguli 2018, doi:10.1162/neco_a_01086), or
            "arctan" k / 2 / (1 + (pi k x / 2)^2) (Fang et al. 2021, arXiv:2007.05785).
        recurrent: whether units also read their layer's spikes of the step before.
        norm: batch norm of I over batch and steps; weak inputs do not reach the threshold.

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
        reset: Literal["subtract", "zero"] = "subtract",
        surrogate: Literal["fast_sigmoid", "arctan"] = "fast_sigmoid",
        slope: Positive = 25.0,
        recurrent: bool = False,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.synapses = nn.Linear(inputs, units, bias=not norm)
        self.norm = nn.BatchNorm1d(units) if norm else nn.Identity()
        self.decay = nn.Parameter(torch.full((units,), decay), requires_grad=learn_decay)
        self.recurrence = nn.Linear(units, units, bias=False) if recurrent else None
        self.reset, self.surrogate, self.slope = reset, surrogate, slope

    def forward(self, x: Tensor) -> Tensor:
        currents = self.norm(self.synapses(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        decay, spikes = self.decay.clamp(0, 1), []
        membrane = spike = torch.zeros_like(currents[:, 0])
        for current in currents.unbind(1):
            if self.recurrence is not None:
                current = current + self.recurrence(spike)
            if self.reset == "zero":
                membrane = decay * ((1 - spike.detach()) * membrane) + current
            else:
                membrane = decay * membrane + current - spike.detach()
            spike = self._spike(membrane - 1)
            spikes.append(spike)
        return torch.stack(spikes, 1)

    def _spike(self, x: Tensor) -> Tensor:
        spike = (x > 0).to(x.dtype)
        if not torch.is_grad_enabled():
            return spike
        if self.surrogate == "fast_sigmoid":
            smooth = x / (1 + self.slope * x.abs())
        else:
            smooth = torch.atan(math.pi / 2 * self.slope * x) / math.pi
        return spike + (smooth - smooth.detach())  # which is exactly zero; its gradient is not

    def closed_form(self, x: torch.Size) -> tuple[Cost, ...]:
        batch, steps, inputs = x
        units, recurrent = len(self.decay), self.recurrence is not None
        synapses = steps * units * (inputs + recurrent * units)
        flops = 5 + (self.reset == "zero") + recurrent + 2 * isinstance(self.norm, nn.BatchNorm1d)
        return (
            Cost("synapses", {"matmul": batch * synapses}, 0, steps * units, synapses),
            Cost("membrane", pointwise=units * (batch * steps * flops + 1)),
        )

    def trace_axons(self, layer: Callable[..., Tensor], x: Tensor) -> Tensor:
        """States what units read: a membrane keeps it, and sends a spike or none in each step."""
        spikes = layer(x.transpose(1, 2), len(self.decay))
        if self.recurrence is not None:
            layer(spikes[..., :-1], len(self.decay))
        return spikes.transpose(1, 2)


class SpikeTrace(nn.Module):
    """The leaky sum of spikes (B, T, U): r(t) = decay r(t-1) + s(t), with one trained decay."""

    def __init__(self, decay: float = 0.9) -> None:
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


@checked
class ExpressiveLeakyMemory(nn.Module):
    """The neuron of Spieler et al. 2024 (ICLR, arXiv:2306.16922): branches and leaky memories.

    With x the input, s the traces of synapses, m the memories, and time in steps (figure 1):

        s(t)  = k_s s(t-1) + w_s x(t),              k_s = exp(-1 / synapse_tau), w_s >= 0
        dm(t) = tanh(MLP([sums of s(t) on each branch, k_m m(t-1)]))
        m(t)  = k_m m(t-1) + rate (1 - k_m) dm(t),  k_m = exp(-1 / tau)

    The MLP has 2 M hidden units, and its tanh is 1.7159 tanh(2 x / 3), as in the authors' code.
    Timescales tau are fixed, even in logarithm. Branches begin at inputs at equal distances and
    read those that follow; past the last input is nothing. A branch keeps the trace of its sum
    alone, since synapses share a timescale.

    Args:
        branches: at most; as many as inputs are the paper's ELM, fewer its Branch-ELM.
        synapses: of a branch; None for as many as give each input one.
        memory_tau: shortest and longest tau; (1, 150) for NeuronIO, whose step is 1 ms.

    Shape:
        (B, T, F) -> memories (B, T, M)
    """

    decay: Tensor

    def __init__(
        self,
        inputs: Size,
        memories: Size,
        *,
        branches: Size = 45,
        synapses: Size | None = None,
        memory_tau: tuple[Positive, Positive] = (1.0, 150.0),
        synapse_tau: Positive = 5.0,
        rate: Positive = 5.0,
    ) -> None:
        super().__init__()
        self.stride = -(-inputs // branches)
        branches = -(-inputs // self.stride)
        synapses = self.stride if synapses is None else synapses
        if synapses < self.stride:
            raise ValueError(f"synapses={synapses} of a branch; expected at least {self.stride}")
        self.beyond = (branches - 1) * self.stride + synapses - inputs
        self.synapse_decay, self.rate = math.exp(-1 / synapse_tau), rate
        shortest, longest = (math.log10(tau) for tau in memory_tau)
        decay = torch.exp(-1 / torch.logspace(shortest, longest, memories))
        self.register_buffer("decay", decay, persistent=False)
        self.synapses = nn.Parameter(torch.full((branches, synapses), 0.5))
        hidden = 2 * memories
        first, last = nn.Linear(branches + memories, hidden), nn.Linear(hidden, memories)
        self.mlp = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        read = F.pad(x, (0, self.beyond)).unfold(2, self.synapses.shape[1], self.stride)
        currents = (read * self.synapses.relu()).sum(-1)  # (B, T, branches)
        trace, gain = torch.zeros_like(currents[:, 0]), self.rate * (1 - self.decay)
        memory, memories = trace.new_zeros(len(x), len(self.decay)), []
        for current in currents.unbind(1):
            trace, kept = self.synapse_decay * trace + current, self.decay * memory
            update = 1.7159 * torch.tanh(2 / 3 * self.mlp(torch.cat([trace, kept], -1)))
            memory = kept + gain * update
            memories.append(memory)
        return torch.stack(memories, 1)

    def closed_form(self, x: torch.Size) -> tuple[Cost, ...]:
        windows, contacts, memories = x[0] * x[1], self.synapses.numel(), len(self.decay)
        products = windows * 2 * memories * (len(self.synapses) + 2 * memories)
        return (
            Cost("synapses", {}, 2 * contacts * windows, 1, x[1] * contacts),
            Cost("traces", pointwise=2 * windows * len(self.synapses) + contacts),
            Cost("memories", {"matmul": products}, 8 * windows * memories + 2 * memories),
        )

    def trace_axons(self, layer: Callable[..., Tensor], x: Tensor) -> Tensor:
        """States one neuron that reads all inputs, and sends its memories."""
        inputs = x.transpose(1, 2)
        layer(inputs, 1)
        return layer(inputs[:, :0], len(self.decay)).transpose(1, 2)


def _recurrent(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 10,
    cell: Literal["lstm", "gru", "lif", "elm"] = "lstm",
    width: Size = 14,
    block: Size | None = None,
    num_layers: Size = 1,
    unit: Table | None = None,
) -> SequenceNet:
    cells: dict[str, Callable[..., nn.Module]] = {
        "lstm": partial(nn.LSTM, batch_first=True),
        "gru": partial(nn.GRU, batch_first=True),
        "lif": LeakyIntegrateAndFire,
        "elm": partial(ExpressiveLeakyMemory, memory_tau=(1, max(2, time_steps))),
    }

    def layers(inputs: int) -> list[nn.Module]:
        sizes = [inputs, *[width] * (num_layers - 1)]
        with argument("unit"):
            hidden = [cells[cell](size, width, **(unit or {})) for size in sizes]
        return [*hidden, SpikeTrace()] if cell == "lif" else hidden

    return SequenceNet(layers, width, num_classes, time_steps, image_shape, block)


_DOC = """

`num_layers` of the `cell`, each of `width` units, and a linear read-out of the last step. Frames
are averaged by `block` as in `SequenceNet`. `unit`: further arguments of """

lstm = register_preset("lstm", _recurrent, f"An LSTM on frames.{_DOC}`nn.LSTM`.")
gru = register_preset("gru", _recurrent, f"A GRU on frames.{_DOC}`nn.GRU`.", cell="gru", width=18)
lif = register_preset(
    "lif",
    _recurrent,
    f"""Leaky integrate-and-fire units with a surrogate gradient, on frames.{_DOC}
`LeakyIntegrateAndFire`.

Output units do not spike, and their membranes are read at the last step, as is usual (Neftci et al.
2019, doi:10.1109/MSP.2019.2931595): a count of output spikes has few values in a short window, and
one more surrogate in its gradient. As output membranes share a decay, spikes are integrated first
(`SpikeTrace`) and weighted once, which is the same.""",
    cell="lif",
    width=64,
)
elm = register_preset(
    "elm",
    _recurrent,
    f"""The expressive leaky memory neuron, which has `width` memories, on frames.{_DOC}
`ExpressiveLeakyMemory`; timescales are from 1 to time_steps, since the paper fits them to a task.

The paper's neuron for NeuronIO, 1,278 inputs, 2 outputs and 8,002 parameters, has width=20 and
unit={{"synapses": 100}}.""",
    cell="elm",
    width=18,
    block=1,
)
