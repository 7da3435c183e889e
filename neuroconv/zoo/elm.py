"""The expressive leaky memory neuron of Spieler et al. 2024 (ICLR, arXiv:2306.16922), as a network.

Shapes: B batch, T time steps, F inputs, M memory units.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import ImageShape, Positive, Size, checked
from neuroconv.core.cost import Cost
from neuroconv.zoo.baselines import GREY
from neuroconv.zoo.recurrent import SequenceNet, frame_size
from neuroconv.zoo.registry import register_model

# LeCun's scaled tanh, 1.7159 tanh(2 x / 3), as in the authors' code.
SCALE, GAIN = 1.7159, 2 / 3


@checked
class ExpressiveLeakyMemory(nn.Module):
    """One neuron with branches and many leaky memories: the paper's Branch-ELM.

    With x the input, s the traces of synapses, m the memories, figure 1 and section 2 of the paper:

        s(t)  = k_s s(t-1) + w_s x(t),              k_s = exp(-1 / synapse_tau), w_s >= 0
        dm(t) = tanh(MLP([sums of s(t) on each branch, k_m m(t-1)]))
        m(t)  = k_m m(t-1) + rate (1 - k_m) dm(t),  k_m = exp(-1 / tau)

    Time is in steps. Timescales tau are fixed, spread evenly in logarithm over `memory_tau`. A
    branch has inputs that follow one another, from a start as far from its neighbour's as inputs
    are shared out evenly; positions past the last input are empty. Synapses share one timescale, so
    a branch keeps a single trace, that of its sum.

    Args:
        branches: None for as many as inputs, with one synapse each: the paper's ELM.
        synapses: of a branch; None for as many as let every input have one.
        memory_tau: shortest and longest timescale; (1, 150) for NeuronIO, in ms.
        synapse_tau: 5 in the paper.
        rate: lambda, 5 in the paper.
        hidden: units of the MLP's one hidden layer; None for 2 M, as in the paper.

    Shape:
        (B, T, F) -> memories (B, T, M)
    """

    positions: Tensor
    filled: Tensor
    decay: Tensor
    gain: Tensor

    def __init__(
        self,
        inputs: Size,
        memories: Size,
        *,
        branches: Size | None = None,
        synapses: Size | None = None,
        memory_tau: tuple[Positive, Positive] = (1.0, 150.0),
        synapse_tau: Positive = 5.0,
        rate: Positive = 5.0,
        hidden: Size | None = None,
    ) -> None:
        super().__init__()
        branches = inputs if branches is None else branches
        stride = -(-inputs // branches)
        synapses = stride if synapses is None else synapses
        hidden = 2 * memories if hidden is None else hidden
        if synapses < stride or branches > inputs:
            raise ValueError(
                f"branches={branches} and synapses={synapses} for {inputs} inputs; expected at "
                f"most {inputs} branches, of at least {stride} synapses, or inputs have none"
            )
        positions = torch.arange(branches)[:, None] * stride + torch.arange(synapses)
        self.register_buffer("positions", positions.clamp(max=inputs - 1), persistent=False)
        self.register_buffer("filled", (positions < inputs).float(), persistent=False)
        self.synapses = nn.Parameter(torch.full((branches, synapses), 0.5))
        self.mlp: Any = nn.Sequential(
            nn.Linear(branches + memories, hidden), nn.ReLU(), nn.Linear(hidden, memories)
        )
        shortest, longest = (math.log10(tau) for tau in memory_tau)
        tau = torch.logspace(shortest, longest, memories)
        self.register_buffer("decay", torch.exp(-1 / tau), persistent=False)
        self.register_buffer("gain", rate * (1 - torch.exp(-1 / tau)), persistent=False)
        self.synapse_decay = math.exp(-1 / synapse_tau)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.synapses.relu() * self.filled
        currents = (x[..., self.positions] * weights).sum(-1)  # (B, T, branches)
        trace = torch.zeros_like(currents[:, 0])
        memory = trace.new_zeros(len(x), len(self.decay))
        memories = []
        for current in currents.unbind(1):
            trace = self.synapse_decay * trace + current
            kept = self.decay * memory
            update = SCALE * torch.tanh(GAIN * self.mlp(torch.cat([trace, kept], -1)))
            memory = kept + self.gain * update
            memories.append(memory)
        return torch.stack(memories, 1)

    def closed_form(self, x: torch.Size) -> tuple[Cost, ...]:
        windows, contacts, branches = x[0] * x[1], self.synapses.numel(), len(self.synapses)
        hidden, memories = self.mlp[0].out_features, self.mlp[2].out_features
        products = hidden * (branches + 2 * memories)
        return (
            Cost(
                "synapses", pointwise=2 * contacts * windows,
                neurons=1, synapses=x[1] * contacts,
            ),
            Cost("traces", pointwise=2 * (windows * branches + contacts)),
            Cost("integration", {"matmul": windows * products}, windows * hidden),
            Cost("memories", pointwise=6 * windows * memories),
        )  # fmt: skip


@register_model
def elm(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 10,
    width: Size = 18,
    block: Size = 1,
    branches: Size = 45,
    synapses: Size | None = None,
    memory_tau: tuple[Positive, Positive] | None = None,
    synapse_tau: Positive = 5.0,
    rate: Positive = 5.0,
) -> SequenceNet:
    """The expressive leaky memory neuron with branches, of `width` memories, and a linear read-out.

    See `ExpressiveLeakyMemory`. The paper's neuron for NeuronIO (1,278 inputs, 2 outputs, 8,002
    parameters) has width=20, branches=45 and synapses=100.

    Args:
        block: frames are averaged over block x block pixels; 1 leaves pixels apart.
        branches: at most; a neuron of fewer inputs has a branch for each.
        memory_tau: shortest and longest timescale in steps; None for 1 and time_steps, since the
            paper fits them to the task.
        synapses, synapse_tau, rate: as in `ExpressiveLeakyMemory`.
    """
    inputs = frame_size(image_shape, block)
    layers = ExpressiveLeakyMemory(
        inputs, width, branches=min(branches, inputs), synapses=synapses,
        memory_tau=(1, time_steps) if memory_tau is None else memory_tau,
        synapse_tau=synapse_tau, rate=rate,
    )  # fmt: skip
    return SequenceNet(layers, width, num_classes, time_steps, image_shape, block)
