"""Folding for inference: adjacent linear stages become one, with equal output.

What is folded, each an equal rewriting in evaluation:

    weights       vesicles, receptors and the sign become one weight; equalized taps become plain.
    full overlap  where the filter is as long as the sheet a synapse meets one tap: its weights go
                  into the taps, those of several transmitters are added up.
    transmitters  of equal taps, such as a fixed cable's: the weights are added up instead.
    dendrites'    with one transmitter, into taps and resting potentials: always in image layers and
    norm          in mode "per_dendrite", where each dendrite has its own taps; in the other modes,
                  where output dendrites share taps, if they have one scale in each neuron.
    soma's norm   its scale into the soma's filter if each neuron has its own. Else, if nothing but
                  the rectifier stands between, into what comes before: relu(g x) = g relu(x) for
                  g > 0, and so do sum, mean and maximum; without the rectifier, sum and mean for
                  any g. Its shift becomes the soma's resting potential.
    linear        a neuron without dendritic rectifier, spike, threshold or law becomes one causal
    control       filter over its presynaptic axons: the essay's "one dot product". The soma's own
                  taps stay behind it: at the start of a window they have not received the resting
                  current of earlier steps, which a single filter would assume.

A threshold's clamp, a spike and a law, within a dendrite or across them, are not linear; the stages
beyond them are left alone.
"""

import copy
from collections import Counter
from itertools import pairwise

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from neuroconv.core.arguments import checked
from neuroconv.core.counting import is_watched
from neuroconv.kernels.image import present_norms
from neuroconv.neurons.fold.population import fold_population
from neuroconv.neurons.fold.values import affine, commutes, constant, exact, has_hooks
from neuroconv.neurons.image import GranuleConv2d
from neuroconv.neurons.population import Population
from neuroconv.neurons.stages import is_absent

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@checked
def fold(model: nn.Module) -> nn.Module:
    """Returns a copy for inference in which adjacent linear stages are one, with equal output.

    Populations and image layers are folded wherever they are in the model; in an nn.Sequential a
    plain convolution and the batch norm after it become one too. The module's docstring says which
    stages and when. Everything else, subclasses with methods of their own, and neurons whose stages
    carry hooks, are copied as they are. The arithmetic is done in float64. Which stages are left
    depends on the values that were folded: save the model itself and fold after loading, or save
    the folded module whole, by `torch.save(folded, ...)`.

    Args:
        model: any module, in training or evaluation. It is copied, not changed.

    Returns:
        The copy, in evaluation. Its parameters are constants (requires_grad False); gradients still
        flow to its input.

    Raises:
        TypeError: model is no nn.Module.
        ValueError: a parameter is on meta: what can be folded depends on values.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"parameter {name!r} is on meta; expected values to fold")
    folded = copy.deepcopy(model).eval()
    uses = Counter(id(m) for _, m in folded.named_modules(remove_duplicate=False))
    with torch.random.fork_rng(devices=[]):  # new modules draw weights, which are replaced
        for module in list(folded.modules()):
            if isinstance(module, Population):
                fold_population(module)
            elif isinstance(module, GranuleConv2d):
                _fold_image_layer(module)
            elif type(module).forward is nn.Sequential.forward:
                _fold_convolutions(module, uses)
    return folded.eval().requires_grad_(False)


def _fold_image_layer(layer: GranuleConv2d) -> None:
    if type(layer).stream is not GranuleConv2d.stream or has_hooks(layer):
        return
    like = layer.weight
    weight = exact(like)
    bias = None if layer.dendritic_bias is None else exact(layer.dendritic_bias)
    norms = [values for norm in layer.dendritic_norms if (values := affine(norm)) is not None]
    if len(norms) == len(layer.dendritic_norms):
        scale, bias = (torch.stack(values) for values in zip(*norms, strict=True))  # (K_W, U)
        weight = weight * scale.t()[:, None, None, None, :]
        layer.dendritic_norms = nn.ModuleList(nn.Identity() for _ in norms)
    free = (
        is_absent(layer.spike)
        and not present_norms(layer.dendritic_norms)
        and layer.summation.law == "linear"
    )
    soma = affine(layer.soma_norm) if free else None
    if soma is not None and commutes(soma[0], layer.linear_dendrites):
        gain, shift = soma
        weight = weight * gain[:, None, None, None, None]
        bias = None if bias is None else bias * gain
        layer.bias, layer.soma_norm = constant(shift, like), nn.Identity()
    layer.weight = constant(weight, like)
    layer.dendritic_bias = None if bias is None else constant(bias, like)


def _fold_convolutions(sequence: nn.Module, uses: Counter[int]) -> None:
    """Folds batch norms into the convolutions before them, where both are used only here."""
    for name, after in pairwise(list(sequence._modules)):
        conv, norm = sequence._modules[name], sequence._modules[after]
        if (
            isinstance(conv, _CONVOLUTIONS)
            and type(conv) in _CONVOLUTIONS
            and isinstance(norm, _BatchNorm)
            and affine(norm) is not None
            and uses[id(conv)] == uses[id(norm)] == 1
            and not is_watched(conv, norm)
        ):
            setattr(sequence, name, fuse_conv_bn_eval(conv, norm))
            setattr(sequence, after, nn.Identity())
