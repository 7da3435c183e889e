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
    norms of      a batch norm that alone takes the output of a plain convolution or an image layer,
    a network     wherever the network calls them: `neuroconv.neurons.fold.norms` says what of it.

A threshold's clamp, a spike and a law, within a dendrite or across them, are not linear; the stages
beyond them are left alone.
"""

import torch
from torch import nn

from neuroconv.core.arguments import checked
from neuroconv.core.modules import become, copy_module
from neuroconv.core.statistics import drop_correction
from neuroconv.neurons.fold.calls import Calls
from neuroconv.neurons.fold.norms import fold_image_layer, fold_norm
from neuroconv.neurons.fold.population import fold_population
from neuroconv.neurons.fold.values import Folding, outer_norms, within
from neuroconv.neurons.image import GranuleConv2d
from neuroconv.neurons.population import Population
from neuroconv.neurons.stages import is_absent

__all__ = ["Folding", "fold"]


@checked
def fold(model: nn.Module) -> tuple[nn.Module, list[Folding]]:
    """Returns a copy for inference in which adjacent linear stages are one, with equal output.

    Populations and image layers are folded wherever they are in the model, and batch norms into the
    convolution or image layer before them. The module's docstring says which stages and when.
    Whether a norm alone takes a layer's output is read from graphs of `torch.fx`, one for each
    module's forward: where that cannot be traced, norms stay. Calls from outside of the forwards,
    such as `model.features[0](x)`, get what the folded layer computes. Subclasses with methods of
    their own, and stages with hooks, are copied as they are. The arithmetic is done in float64.
    Which stages are left depends on the values that were folded: save the model itself and fold
    after loading, or save the folded module whole, by `torch.save(folded, ...)`.

    Args:
        model: any module, in training or evaluation. It is copied, not changed.

    Returns:
        The copy, in evaluation, and one row for each stage that could have joined another. The
        copy's parameters are constants (requires_grad False); gradients still flow to its input.

    Raises:
        TypeError: model is no nn.Module.
        ValueError: a parameter is on meta: what can be folded depends on values; a buffer has no
            shape yet; or the model is scripted.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"model is a {type(model).__name__}; fold it before torch.jit")
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"parameter {name!r} is on meta; expected values to fold")
    folded, rows = copy_module(model).eval(), []
    with torch.random.fork_rng(devices=[]):  # new modules draw weights, which are replaced
        rows += _fold_norms(folded)
        for name, module in list(folded.named_modules()):
            if isinstance(module, Population):
                rows += fold_population(module, name)
            elif isinstance(module, GranuleConv2d):
                own = fold_image_layer(module, name)
                rows += [row for row in own if not is_absent(model.get_submodule(row.name))]
    return folded.eval().requires_grad_(False), rows


def _fold_norms(network: nn.Module) -> list[Folding]:
    """Folds the batch norms outside of neurons into what comes before them."""
    if not (named := outer_norms(network)):
        return []
    for norm in named.values():
        drop_correction(norm)
    traced = copy_module(network)  # a forward may keep what it was given
    calls, rows = Calls(traced, (Population, GranuleConv2d, torch.jit.ScriptModule)), []
    for name, norm in named.items():
        source = calls.source(traced.get_submodule(name))
        joined, left = False, source.reason
        if source.name:
            layer = network.get_submodule(source.name)
            after, left = fold_norm(layer, norm, source.rectified)
            if joined := after is not norm:
                become(norm, after)
        rows.append(Folding(name, within(source.name, "weight") if joined else "", left))
    return rows
