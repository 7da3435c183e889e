"""Conversion of the convolutions of any network to granule layers."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from neuroconv.neurons.image import GranuleConv2d


@dataclass(frozen=True)
class Conversion:
    """One replaced layer: its name, and its parameters' floats before and after."""

    name: str
    parameters_before: int
    parameters_after: int


def convert(
    model: nn.Module,
    select: Callable[[str, nn.Conv2d], bool] | None = None,
    *,
    copy_weights: bool = True,
) -> tuple[nn.Module, list[Conversion]]:
    """Replaces chosen convolutions by `GranuleConv2d` of the same contract.

    A unit keeps its taps; the columns of its patch become rectified dendrites. The outputs change:
    train or fine-tune the network.

    Args:
        model: any module. It is copied, not changed.
        select: which layers, given (name, layer). Default: every nn.Conv2d whose kernel has more
            than one column, since a single dendrite has no other to be summed with.
        copy_weights: start from the convolution's taps, else from a fresh initialisation.

    Returns:
        The converted copy, and one row for each layer that was replaced.

    Raises:
        ValueError: no layer was selected, or one that pads with other than zeros.
        TypeError: model is no nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    converted = copy.deepcopy(model)
    selected = select or (lambda _, conv: conv.kernel_size[1] > 1)
    rows = []
    units: dict[int, GranuleConv2d] = {}  # a shared layer becomes one shared unit
    for name, layer in list(converted.named_modules(remove_duplicate=False)):
        if type(layer) is not nn.Conv2d or not (id(layer) in units or selected(name, layer)):
            continue
        if id(layer) not in units:
            units[id(layer)] = _granule_layer(name, layer, copy_weights)
            rows.append(Conversion(name, _count(layer), _count(units[id(layer)])))
        unit = units[id(layer)]
        if not name:
            converted = unit
            break
        parent, _, attribute = name.rpartition(".")
        setattr(converted.get_submodule(parent), attribute, unit)
    if not rows:
        raise ValueError(
            f"no convolution of {type(model).__name__} was selected; expected a select(name, conv) "
            "that is true for at least one nn.Conv2d"
        )
    return converted, rows


def _granule_layer(name: str, conv: nn.Conv2d, copy_weights: bool) -> GranuleConv2d:
    if conv.padding_mode != "zeros":
        raise ValueError(
            f"layer {name!r} has padding_mode={conv.padding_mode!r}; expected 'zeros': leave it "
            "out with select"
        )
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    sizes = {name: getattr(conv, name) for name in (*names, "groups")}
    with torch.device(conv.weight.device):
        unit = GranuleConv2d(**sizes, bias=conv.bias is not None, time_steps=1)
    unit = unit.to(conv.weight.dtype).train(conv.training)
    unit.requires_grad_(conv.weight.requires_grad)
    if copy_weights:
        with torch.no_grad():
            unit.weight.copy_(conv.weight.unsqueeze(2))
            if conv.bias is not None and unit.bias is not None:
                unit.bias.copy_(conv.bias)
    return unit


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
