"""Values in float64, filters of given values, and a batch norm as scale and shift."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuroconv.core.counting import is_watched
from neuroconv.layers.dendrite import DendriticConv
from neuroconv.layers.step_norm import StepBatchNorm
from neuroconv.neurons.image import GranuleConv2d
from neuroconv.neurons.population import Population

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, StepBatchNorm)
_METHODS: dict[type, tuple[str, ...]] = {
    Population: ("forward", "stream", "somatic_potential", "fire"),
    GranuleConv2d: ("forward", "stream", "dendrites", "rest", "normalise"),
}

NO_VALUES = "it takes batch statistics, or is no plain batch norm"  # why `affine` returns None


@dataclass(frozen=True)
class Folding:
    """One stage that could have joined another.

    Attributes:
        name: of the stage in the network.
        into: what it joined; "" for nothing.
        reason: why it stayed, or what of it did; "" where all of it joined.
    """

    name: str
    into: str
    reason: str


def outer_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Returns the batch norms outside of neurons, by name."""
    neurons = [m for m in network.modules() if isinstance(m, Population | GranuleConv2d)]
    inside = {part for neuron in neurons for part in neuron.modules()}
    named = network.named_modules()
    return {name: m for name, m in named if isinstance(m, _BatchNorm) and m not in inside}


def within(name: str, stage: str) -> str:
    """Returns a stage's name in the network; the network itself has the name ""."""
    return f"{name}.{stage}".removeprefix(".")


def exact(tensor: Tensor) -> Tensor:
    """Returns the values in float64, on the CPU: not every device has float64."""
    return tensor.detach().cpu().double()


def constant(value: Tensor, like: Tensor) -> nn.Parameter:
    """Returns a parameter that is not trained, with the precision and device of another."""
    return nn.Parameter(value.to(like.device, like.dtype).contiguous(), requires_grad=False)


def set_filters(
    dendrites: DendriticConv, filters: Tensor, bias: Tensor | None, like: Tensor
) -> None:
    """Sets the filters (N, K_T, K_P, K_D) and resting potentials (N, D') of a stage."""
    dendrites.neurons, dendrites.tap_unit = len(filters), 1.0
    dendrites.weight = constant(filters, like)
    dendrites.bias = None if bias is None else constant(bias, like)


def affine(norm: nn.Module | None) -> tuple[Tensor, Tensor] | None:
    """Returns scale and shift of a batch norm in evaluation; None without running statistics, and
    for subclasses, which may compute something else."""
    if not isinstance(norm, _BatchNorm) or type(norm) not in _NORMS:
        return None
    if norm.running_mean is None or norm.running_var is None:
        return None
    scale = (exact(norm.running_var) + norm.eps).rsqrt()
    shift = -exact(norm.running_mean) * scale
    if norm.affine:
        gain = exact(norm.weight)
        scale, shift = scale * gain, shift * gain + exact(norm.bias)
    return scale, shift


def commutes(gain: Tensor, linear: bool) -> bool:
    """Returns whether a scale may be applied before the dendritic rate instead of after it."""
    return linear or bool((gain >= 0).all())


def is_plain(neuron: Population | GranuleConv2d) -> bool:
    """Returns whether it runs by the methods of this package, without hooks on its stages."""
    base = Population if isinstance(neuron, Population) else GranuleConv2d
    inherited = all(getattr(type(neuron), x) is getattr(base, x) for x in _METHODS[base])
    stages = [*neuron.modules()][1:]
    return inherited and "forward" not in vars(neuron) and not is_watched(*stages)
