"""What all folding shares: values in float64, and a batch norm as scale and shift."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuroconv.core.counting import is_watched


def exact(tensor: Tensor) -> Tensor:
    """The values in float64, on the CPU: other devices may have none."""
    return tensor.detach().cpu().double()


def constant(value: Tensor, like: Tensor) -> nn.Parameter:
    """A parameter that is not trained, with the precision and device of another."""
    return nn.Parameter(value.to(like.device, like.dtype).contiguous(), requires_grad=False)


def absent(stage: nn.Module) -> bool:
    """Whether a neuron does not have this stage."""
    return isinstance(stage, nn.Identity)


def affine(norm: nn.Module | None) -> tuple[Tensor, Tensor] | None:
    """Scale and shift of a batch norm in evaluation; None if it takes the batch's statistics."""
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
        return None
    scale = (exact(norm.running_var) + norm.eps).rsqrt()
    shift = -exact(norm.running_mean) * scale
    if norm.affine:
        gain = exact(norm.weight)
        scale, shift = scale * gain, shift * gain + exact(norm.bias)
    return scale, shift


def passes(gain: Tensor, linear: bool) -> bool:
    """Whether a scale may be applied before the dendritic rate instead of after."""
    return linear or bool((gain > 0).all())


def has_hooks(module: nn.Module) -> bool:
    """On a stage inside: what watches it is to find it."""
    return is_watched(*(each for each in module.modules() if each is not module))
