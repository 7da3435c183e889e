"""Folding of batch norms into the convolution or the image layer whose output they take.

An image layer's output is a rate r >= 0, from a potential p: r = relu(p). A norm g r + h of g >= 0
joins it in part, g relu(p) = relu(g p). Where rectifiers take the norm's output, a negative shift
does too: relu(g relu(p) + h) = relu(g p + h) if h <= 0. A positive shift, or one that no rectifier
follows, is added to the rate as before: it cannot pass the zeros around the next layer's input.
"""

import torch
from torch import Tensor, nn

from neuroconv.core.counting import is_watched
from neuroconv.core.modules import graph_leaf
from neuroconv.kernels.image import present_norms
from neuroconv.layers.poisson import PoissonDropout
from neuroconv.neurons.fold.values import (
    NO_VALUES,
    Folding,
    affine,
    commutes,
    constant,
    exact,
    is_plain,
    within,
)
from neuroconv.neurons.image import GranuleConv2d
from neuroconv.neurons.stages import is_absent

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class ChannelShift(nn.Module):
    """The shift that is left of a batch norm, one constant for each channel.

    Shape:
        (B, C, ...) -> the same
    """

    def __init__(self, shift: Tensor, like: Tensor) -> None:
        super().__init__()
        self.shift = constant(shift, like)

    @graph_leaf
    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift.view(-1, *[1] * (x.dim() - 2))


def fold_norm(source: nn.Module, norm: nn.Module, rectified: bool) -> tuple[nn.Module, str]:
    """Folds a norm into what it alone follows.

    Returns:
        What takes the norm's position, and what of the norm is left and why.
    """
    values = affine(norm)
    if values is None:
        return norm, NO_VALUES
    if is_watched(source, norm):
        return norm, "hooks, or a forward of its own, would notice"
    if source.__dict__.get("out_channels") != len(values[0]):
        return norm, f"a {type(source).__name__} is no convolution of its {len(values[0])} channels"
    if isinstance(source, GranuleConv2d):
        return _into_rates(source, norm, *values, rectified)
    if type(source) in _CONVOLUTIONS and (like := source._parameters.get("weight")) is not None:
        (scale, shift), weight = values, exact(like)
        if (old := source._parameters["bias"]) is not None:
            shift = exact(old) * scale + shift
        source.weight = constant(weight * scale.view(-1, *[1] * (weight.dim() - 1)), like)
        source.bias = constant(shift, like)
        return nn.Identity(), ""
    return norm, f"a {type(source).__name__} is no plain convolution"


def _into_rates(
    layer: GranuleConv2d, norm: nn.Module, gain: Tensor, shift: Tensor, rectified: bool
) -> tuple[nn.Module, str]:
    if not is_plain(layer) or type(layer.output) is not PoissonDropout:
        return norm, "the layer has methods, hooks or an output stage of its own"
    if not (is_absent(layer.soma_norm) or affine(layer.soma_norm)):
        return norm, "the somata's norm before it takes batch statistics"
    if (negative := int((gain < 0).sum())) > 0:
        return norm, f"{negative} negative scales do not pass the somata's rectifier"
    joined = shift.clamp(max=0) if rectified else torch.zeros_like(shift)
    scale, offset = affine(layer.soma_norm) or (torch.ones_like(gain), torch.zeros_like(gain))
    offset = offset if layer.bias is None else offset + exact(layer.bias)
    with torch.device(layer.weight.device):
        soma_norm = nn.BatchNorm2d(len(gain), eps=0.0, dtype=layer.weight.dtype).eval()
    soma_norm.weight = constant(scale * gain, layer.weight)
    soma_norm.bias = constant(offset * gain + joined, layer.weight)
    layer.soma_norm, layer.bias = soma_norm, None
    if not (left := int((shift != joined).sum())):
        return nn.Identity(), ""
    why = "are positive" if rectified else "meet no rectifier"
    return ChannelShift(shift - joined, layer.weight), f"{left} of its shifts {why} and stay"


def fold_image_layer(layer: GranuleConv2d, name: str) -> list[Folding]:
    """Folds a layer's own norms in place."""
    stages = [f"dendritic_norms.{k}" for k in range(len(present_norms(layer.dendritic_norms)))]
    stages += [] if is_absent(layer.soma_norm) else ["soma_norm"]
    other = "the layer has methods, or stages with hooks, of its own"
    reasons = _fold_stages(layer) if is_plain(layer) else (other, other)
    rows = []
    for stage in stages:
        reason = reasons[stage == "soma_norm"]
        rows.append(Folding(within(name, stage), "" if reason else within(name, "weight"), reason))
    return rows


def _fold_stages(layer: GranuleConv2d) -> tuple[str, str]:
    """Returns why the dendrites' norms stay, and the somata's; "" where they do not."""
    at_dendrites = at_soma = NO_VALUES
    like, weight = layer.weight, exact(layer.weight)
    bias = None if layer.dendritic_bias is None else exact(layer.dendritic_bias)
    values = [value for norm in layer.dendritic_norms if (value := affine(norm)) is not None]
    if len(values) == len(layer.dendritic_norms):
        scale, bias = (torch.stack(value) for value in zip(*values, strict=True))  # (K_W, U)
        weight = weight * scale.t()[:, None, None, None, :]
        layer.dendritic_norms, at_dendrites = nn.ModuleList(nn.Identity() for _ in values), ""
    free = is_absent(layer.spike) and not present_norms(layer.dendritic_norms)
    if (soma := affine(layer.soma_norm)) is not None:
        gain, shift = soma
        if not free or layer.summation.law != "linear":
            at_soma = "a spike, a law or a dendrite's norm before it is not linear"
        elif not commutes(gain, layer.linear_dendrites):
            at_soma = "a negative scale does not pass the dendrites' rectifiers"
        else:
            weight = weight * gain[:, None, None, None, None]
            bias = None if bias is None else bias * gain
            shift = shift if layer.bias is None else shift + exact(layer.bias)
            layer.bias, layer.soma_norm, at_soma = constant(shift, like), nn.Identity(), ""
    layer.weight = constant(weight, like)
    layer.dendritic_bias = None if bias is None else constant(bias, like)
    return at_dendrites, at_soma
