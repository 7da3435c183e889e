"""Conversion of the convolutions of any network to granule layers."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from neuroconv.core.arguments import checked
from neuroconv.core.modules import become, copy_hooks, copy_module
from neuroconv.core.statistics import correct_statistics
from neuroconv.neurons.fold.values import outer_norms
from neuroconv.neurons.image import GranuleConv2d


@dataclass(frozen=True)
class Conversion:
    """One replaced layer: its name, and its parameters' floats before and after."""

    name: str
    parameters_before: int
    parameters_after: int


@checked
def convert(
    model: nn.Module,
    select: Callable[[str, nn.Conv2d], bool] | None = None,
    *,
    copy_weights: bool = True,
) -> tuple[nn.Module, list[Conversion]]:
    """Replaces chosen convolutions by `GranuleConv2d` of the same contract.

    A unit keeps its taps; the columns of its patch become rectified dendrites. The outputs change:
    train or fine-tune the network. Its batch norms average the batches from its first training
    pass on (`neuroconv.core.statistics` says why).

    A layer's name, hooks, dtype, device, training flag and requires_grad stay, the dendrites'
    resting potentials taking the bias's; parameters that layers share stay shared. The network
    runs in memory format channels_last, and passes through `torch.fx.symbolic_trace`, where a
    layer is one node, torchvision's feature extraction, `torch.jit.trace`, `torch.compile`,
    `torch.export` and both ONNX exporters. `torch.jit.script` does not take it.

    Args:
        model: any module. It is copied, not changed.
        select: which layers, given (name, layer). Default: every nn.Conv2d whose kernel has more
            than one column, since a single dendrite has no other to be summed with. Of a layer
            with several names one suffices. Selected layers of subclasses are left out with a
            warning: they may compute something else.
        copy_weights: start from the convolution's taps, else from a fresh initialisation.

    Returns:
        The converted copy, and one row for each layer that was replaced.

    Raises:
        ValueError: no layer was selected, or one that cannot be replaced as it is: it pads with
            other than zeros, its weight is computed (parametrised, normalised or pruned), lazy,
            quantised, complex or shared with a layer that stays, or its forward is not Conv2d's.
        TypeError: model is no nn.Module.
    """
    converted = copy_module(model)
    layers = _selected(converted, select or _several_columns)
    if not layers:
        raise ValueError(
            f"no convolution of {type(model).__name__} was selected; expected a select(name, conv) "
            "that is true for at least one nn.Conv2d"
        )
    taps: dict[nn.Parameter, nn.Parameter] = {}  # layers that share a weight share the new one
    rest: dict[tuple[nn.Parameter, int], nn.Parameter] = {}
    rows = []
    for layer, name in layers.items():
        unit = _granule_layer(layer, copy_weights)
        unit.weight = taps.setdefault(layer.weight, unit.weight)
        if unit.dendritic_bias is not None:
            key = (layer.bias, len(unit.dendritic_bias))
            unit.dendritic_bias = rest.setdefault(key, unit.dendritic_bias)
        rows.append(Conversion(name, _count(layer), _count(unit)))
        become(layer, unit)
    for norm in outer_norms(converted).values():
        correct_statistics(norm)
    return converted, rows


def _several_columns(name: str, conv: nn.Conv2d) -> bool:
    # A scripted layer may not tell its kernel: it is selected, and refused.
    return bool(getattr(conv, "kernel_size", (1, 2))[1] > 1)


def _selected(model: nn.Module, select: Callable[[str, nn.Conv2d], bool]) -> dict[Any, str]:
    """Returns the selected layers with the name by which each was."""
    named: Any = dict(model.named_modules(remove_duplicate=False))
    selected: dict[Any, str] = {}
    for name, layer in named.items():
        kind = getattr(layer, "original_name", type(layer).__name__)  # of a scripted module
        quantised = type(layer).__module__.startswith("torch.ao.") and "Conv2d" in kind
        convolution = isinstance(layer, nn.Conv2d) or quantised or kind == "Conv2d"
        if convolution and layer not in selected and select(name, layer):
            selected[layer] = name
    for layer, name in list(selected.items()):
        if (reason := _reason_to_refuse(layer)) is not None:
            raise ValueError(f"layer {name!r} {reason}, or leave it out with select")
        if type(layer) is not nn.Conv2d:
            warnings.warn(
                f"layer {name!r} stays a {type(layer).__name__}: a subclass of nn.Conv2d may "
                "compute something else",
                stacklevel=4,  # of convert, past its decorator
            )
            del selected[layer]
    for other, module in named.items():
        for attribute, parameter in module._parameters.items():
            for layer, name in selected.items():
                if parameter is layer.weight and (module not in selected or attribute != "weight"):
                    raise ValueError(
                        f"layer {name!r} shares its weight with {f'{other}.{attribute}'!r}, which "
                        "stays as it is; select both or untie them, or leave it out with select"
                    )
    return selected


def _reason_to_refuse(layer: Any) -> str | None:
    """Returns what keeps a layer from being replaced, and the remedy; None if nothing does."""
    kind = type(layer).__name__
    if type(layer).__module__.startswith("torch.ao."):
        return f"is a quantised {kind}; convert before quantisation"
    if isinstance(layer, torch.jit.ScriptModule):
        return "is scripted or traced; convert before torch.jit"
    if isinstance(layer, LazyModuleMixin):
        return "has no weights yet; call the network on a sample before"
    if parametrize.is_parametrized(layer):
        return (
            f"computes its {' and '.join(layer.parametrizations)} by a parametrization; remove it "
            "by torch.nn.utils.parametrize.remove_parametrizations"
        )
    if type(layer) is not nn.Conv2d:
        return None
    weight, extra = layer._parameters.get("weight"), {*layer._parameters, *layer._buffers}
    if extra := (extra | {*layer._modules}) - {"weight", "bias"}:
        return (
            f"holds {', '.join(sorted(extra))} besides weight and bias; remove what added these, "
            "such as by torch.nn.utils.remove_weight_norm or torch.nn.utils.prune.remove"
        )
    if layer.padding_mode != "zeros":
        return f"has padding_mode={layer.padding_mode!r}; expected 'zeros': replace it"
    if "forward" in vars(layer):
        return "has a forward of its own; restore nn.Conv2d's"
    if type(weight) is not nn.Parameter or not weight.is_floating_point():
        return f"has weights of {layer.weight.dtype}; expected an nn.Parameter of real floats"
    return None


def _granule_layer(conv: Any, copy_weights: bool) -> GranuleConv2d:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    sizes = {name: getattr(conv, name) for name in (*names, "groups")}
    with torch.device(conv.weight.device):
        unit = GranuleConv2d(**sizes, bias=conv.bias is not None, time_steps=1)
    unit = unit.to(conv.weight.dtype).train(conv.training)
    unit.weight.requires_grad_(conv.weight.requires_grad)
    if copy_weights:
        with torch.no_grad():
            unit.weight.copy_(conv.weight.unsqueeze(2))
    if conv.bias is not None and unit.dendritic_bias is not None:
        unit.dendritic_bias.requires_grad_(conv.bias.requires_grad)
        unit.bias = conv.bias
        if not copy_weights:
            nn.init.zeros_(conv.bias)
    copy_hooks(conv, unit)
    return unit


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
