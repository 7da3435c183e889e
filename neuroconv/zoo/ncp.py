"""The neural circuit policy of Lechner et al. 2020, by the package ncps (`neuroconv-zoo[ncp]`).

Shapes: B batch, T time steps, S sensory neurons, N neurons of the circuit, M of them motor neurons.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import ImageShape, Seed, Size, checked
from neuroconv.core.cost import Cost
from neuroconv.zoo.baselines import GREY
from neuroconv.zoo.recurrent import SequenceNet
from neuroconv.zoo.registry import register_model

SYNAPTIC = ("w", "mu", "sigma", "erev")  # parameters of a synapse


@checked
class LiquidCircuit(nn.Module):
    """Sensory, inter, command and motor neurons with liquid time constants: `ncps.torch.LTC`.

    ncps stores a matrix for each parameter of a synapse, of which its wiring multiplies most by
    zero. Here only synapses that exist have parameters: 6 of each of S sensory neurons on the 12
    inter neurons, 4 of each of these on the 6 command neurons, up to 6 among these, and all of
    these on each of M motor neurons.

    Shape:
        (B, T, S) -> potentials of motor neurons (B, T, M)
    """

    def __init__(self, inputs: Size, motor: Size, seed: Seed = 0) -> None:
        super().__init__()
        try:
            from ncps.torch import LTC
            from ncps.wirings import NCP
        except ImportError as error:
            raise ImportError(
                f"the model ncp needs the package ncps ({error}): pip install neuroconv-zoo[ncp]"
            ) from error
        device = torch.get_default_device()
        with torch.device("cpu"):  # ncps makes some of its tensors there anyway
            wiring = NCP(12, 6, motor, 6, 4, 6, 6, seed=seed % 2**32)
            self.ltc = LTC(inputs, wiring, output_mapping=None)
            self.neurons = wiring.units
            self._keep("", wiring.adjacency_matrix)
            self._keep("sensory_", wiring.sensory_adjacency_matrix)
        self.ltc.rnn_cell._params = {}
        self.to(device)

    def _keep(self, prefix: str, wiring: Any) -> None:
        """Takes the parameters of existing synapses out of the cell's matrices."""
        cell: Any = self.ltc.rnn_cell
        mask = cell._parameters.pop(f"{prefix}sparsity_mask")
        cell.register_buffer(f"{prefix}sparsity_mask", mask.detach(), persistent=False)
        pairs = torch.tensor(wiring).nonzero().T
        self.register_buffer(f"{prefix}pairs", pairs, persistent=False)
        for name in SYNAPTIC:
            dense = cell._parameters.pop(f"{prefix}{name}").detach()
            self.register_parameter(f"{prefix}{name}", nn.Parameter(dense[pairs[0], pairs[1]]))

    def forward(self, x: Tensor) -> Any:
        cell: Any = self.ltc.rnn_cell
        tensors = dict(cell._parameters) | dict(cell._buffers)
        for prefix in ("", "sensory_"):
            shape = tensors[f"{prefix}sparsity_mask"].shape
            source, target = self.get_buffer(f"{prefix}pairs")
            for name in (f"{prefix}{name}" for name in SYNAPTIC):
                values = self.get_parameter(name)
                tensors[name] = values.new_zeros(shape).index_put((source, target), values)
        cell._params = tensors
        potentials = self.ltc(x)[0]
        cell._params = {}
        return potentials

    def closed_form(self, x: torch.Size) -> tuple[Cost, ...]:
        """Counts ncps's dense arithmetic: each step solves the membranes' equations in six."""
        batch, steps, inputs = x
        n, unfolds = self.neurons, 6
        synapses = sum(p.numel() for p in self._parameters.values() if p is not None) // 4
        matrices = n * (inputs + n)
        per_sample = 2 * inputs + 8 * n * inputs + unfolds * 8 * n * (n + 1)
        shared = matrices + 2 * n + unfolds * 3 * n
        return (
            Cost("synapses", neurons=n, synapses=steps * synapses),
            Cost("membranes", pointwise=steps * (batch * per_sample + shared)),
        )

    def trace_axons(self, _: object, x: Tensor) -> Tensor:
        """States what neurons read: sensory ones, and others of the step before."""
        cell: Any = self.ltc.rnn_cell
        potentials = x @ cell.sensory_sparsity_mask
        potentials[:, :-1] @ cell.sparsity_mask
        return potentials[..., : self.ltc.motor_size]


@partial(register_model, package="ncps")
def ncp(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 10,
    width: Size = 40,
    block: Size | None = None,
    seed: Seed = 0,
) -> SequenceNet:
    """A neural circuit policy: `width` sensory neurons, 12 inter, 6 command neurons, motor neurons.

    Lechner et al. 2020 (doi:10.1038/s42256-020-00237-3): 32 features of a CNN, 19 neurons of which
    one is a motor neuron, 253 synapses. Changed here: a motor neuron for each class, as the paper
    has one for each command to the car, and a linear read-out of them; sensory neurons are a linear
    layer on the frame. The paper's sizes give up to 252 synapses here: two that are drawn between
    the same neurons are one. Needs the package ncps: pip install neuroconv-zoo[ncp].

    `block` is as in `SequenceNet`, and `seed` that of the wiring.
    """

    def layers(inputs: int) -> list[nn.Module]:
        return [nn.Linear(inputs, width), LiquidCircuit(width, num_classes, seed)]

    return SequenceNet(layers, num_classes, num_classes, time_steps, image_shape, block)
