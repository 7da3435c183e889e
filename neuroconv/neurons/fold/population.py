"""Folding of populations, stage by stage; `neuroconv.neurons.fold` says which and when.

Shapes: N neurons, C transmitters, S synapses, P sites, D dendrites, K time taps.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuroconv.kernels.population import fuses
from neuroconv.layers.dendrite import DendriticConv, DendriticRate
from neuroconv.layers.soma import SomaFilter
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses, TransmitterSum
from neuroconv.neurons.fold.linear import Contacts, collapse_linear
from neuroconv.neurons.fold.values import (
    NO_VALUES,
    Folding,
    affine,
    commutes,
    constant,
    exact,
    is_plain,
    set_filters,
    within,
)
from neuroconv.neurons.population import Population
from neuroconv.neurons.stages import is_absent

_BATCH = 32  # the batch size for which costs before and after folding are compared
_STAGES = {
    SparseSynapses, DenseSynapses, DendriticConv, DendriticRate, DendriticSummation, SomaFilter,
}  # fmt: skip

# Filters (N * C, K_T, K_P, K_D) and resting potentials (N * C, D') in float64.
_Filters = tuple[Tensor, Tensor | None]


def fold_population(cells: Population, name: str) -> list[Folding]:
    """Folds cells in place; those with methods, stages or hooks of their own stay as they are."""
    before = left = _left(cells)
    stages = (cells.synapses, cells.dendrites, cells.dendritic_rate, cells.summation, cells.soma)
    if not is_plain(cells) or not {*map(type, stages)} <= _STAGES:
        left = dict.fromkeys(before, "the population has methods, stages or hooks of its own")
    else:
        collapsed = _fold_stages(cells)
        left = {k: v for k, v in _left(cells).items() if not (collapsed and k == "dendritic_rate")}
    into = within(name, "dendrites")
    return [
        Folding(within(name, stage), "" if stage in left else into, left.get(stage, ""))
        for stage in before
    ]


def _left(cells: Population) -> dict[str, str]:
    """Returns the stages that are not folded, with the reason where folding has left them."""
    rate, left = cells.dendritic_rate, {}
    bent = not is_absent(cells.spike) or {cells.summation.law, rate.law} != {"linear"}
    if cells.transmitters.kinds > 1:
        left["transmitters"] = "their taps differ, or a threshold's clamp follows"
    if not is_absent(cells.dendritic_norm):
        left["dendritic_norm"] = "scales differ where taps are shared, or transmitters come before"
    if not is_absent(cells.soma_norm):
        left["soma_norm"] = (
            "a spike or a law before it is not linear"
            if bent
            else "a negative scale does not pass a rectifier, or the norm before has no scale"
        )
    for stage in ("dendritic_norm", "soma_norm"):
        if stage in left and affine(getattr(cells, stage)) is None:
            left[stage] = NO_VALUES
    if rate.linear:
        left["dendritic_rate"] = "a stage is not linear, or one filter would cost more"
    return left


def _fold_stages(cells: Population) -> bool:
    """Folds plain cells in place, and returns whether they became one filter for each neuron."""
    synapses, dendrites = cells.synapses, cells.dendrites
    linear, like, bias = collapse_linear(cells), dendrites.weight, dendrites.bias
    filters: _Filters = exact(dendrites.taps()), None if bias is None else exact(bias)
    weight, filters = _merge_transmitters(cells, exact(synapses.effective_weight()), filters)
    filters = _fold_dendritic_norm(cells, *filters)
    filters = _fold_soma_norm(cells, *filters)
    set_filters(dendrites, *filters, like)
    synapses.signs = synapses.vesicles = synapses.receptors = None
    synapses.weight, synapses.transmitters = constant(weight, like), cells.transmitters.kinds
    if (
        isinstance(synapses, SparseSynapses)
        and is_absent(cells.threshold_norm)
        and _full_overlap(cells)
        and not fuses(cells, _BATCH, cells.time_steps, evaluation=True)
    ):
        set_filters(
            dendrites, filters[0] * _on_sheet(weight, synapses.sheet_shape), filters[1], like
        )
        contacts = Contacts(synapses.wiring, cells.in_features, synapses.sheet_shape, like)
        cells.synapses = contacts.eval()
    if linear is None or _flop(linear) >= _flop(cells):
        return False
    cells.__dict__.update(linear.__dict__)
    return True


def _flop(cells: Population) -> int:
    window = torch.Size((_BATCH, cells.in_features, cells.time_steps))
    return sum(cost.flop for cost in cells.closed_form(window))


def _full_overlap(cells: Population) -> bool:
    """Returns whether each position of the sheet meets a single tap."""
    tree = cells.dendrites.tree
    full = tree.mode == "per_dendrite" or (tree.mode == "valid" and tree.out[1] == 1)
    return full and tree.out[0] == 1


def _on_sheet(weight: Tensor, sheet: tuple[int, int]) -> Tensor:
    """Lays weights (N * C, S) on their positions, (N * C, 1, P, D), dendrite by dendrite."""
    padded = F.pad(weight, (0, sheet[0] * sheet[1] - weight.shape[1]))
    return padded.unflatten(1, (sheet[1], sheet[0])).transpose(1, 2).unsqueeze(1)


def _merge_transmitters(
    cells: Population, weight: Tensor, filters: _Filters
) -> tuple[Tensor, _Filters]:
    taps, bias = filters
    kinds = cells.transmitters.kinds
    by_kind = taps.unflatten(0, (-1, kinds))
    same = torch.equal(by_kind, by_kind[:, :1].expand_as(by_kind))
    into_taps = _full_overlap(cells) and isinstance(cells.synapses, SparseSynapses)
    if kinds == 1 or not is_absent(cells.threshold_norm) or not (same or into_taps):
        return weight, filters
    if same:
        rows = len(weight) // len(taps)  # of a tree: 1, or one for each dense synapse
        weight = weight.unflatten(0, (-1, kinds, rows)).sum(1).flatten(0, 1)
        taps = by_kind[:, 0]
    else:
        taps = taps * _on_sheet(weight, cells.synapses.sheet_shape)
        taps, weight = taps.unflatten(0, (-1, kinds)).sum(1), torch.ones_like(weight[::kinds])
    cells.transmitters = TransmitterSum(1)
    return weight, (taps, None if bias is None else bias.unflatten(0, (-1, kinds)).sum(1))


def _fold_dendritic_norm(cells: Population, taps: Tensor, bias: Tensor | None) -> _Filters:
    norm = affine(cells.dendritic_norm)
    if norm is None or cells.transmitters.kinds > 1:
        return taps, bias
    scale, shift = (value.view(cells.out_features, -1) for value in norm)  # (N, D')
    if cells.dendrites.mode != "per_dendrite":
        if not torch.equal(scale, scale[:, :1].expand_as(scale)):
            return taps, bias
        scale = scale[:, :1]
    cells.dendritic_norm = nn.Identity()
    return taps * scale[:, None, None, :], shift if bias is None else bias * scale + shift


def _fold_soma_norm(cells: Population, taps: Tensor, bias: Tensor | None) -> _Filters:
    norm, dendritic, rate = affine(cells.soma_norm), cells.dendritic_norm, cells.dendritic_rate
    if norm is None:
        return taps, bias
    gain, shift = norm
    if cells.soma.neurons is not None:
        cells.soma = copy.deepcopy(cells.soma)  # another population may share it
        cells.soma.weight = constant(exact(cells.soma.weight) * gain[:, None], cells.soma.weight)
    elif (
        not is_absent(cells.spike)
        or {cells.summation.law, rate.law} != {"linear"}
        or not commutes(gain, rate.linear and rate.reduction != "max")
    ):
        return taps, bias
    elif not isinstance(dendritic, _BatchNorm):
        by_tree = gain.repeat_interleave(cells.transmitters.kinds)[:, None]
        taps = taps * by_tree[..., None, None]
        bias = None if bias is None else bias * by_tree
    elif dendritic.affine:
        by_column = gain.repeat_interleave(dendritic.num_features // len(gain))
        dendritic.weight = constant(exact(dendritic.weight) * by_column, dendritic.weight)
        dendritic.bias = constant(exact(dendritic.bias) * by_column, dendritic.bias)
    else:
        return taps, bias
    cells.bias, cells.soma_norm = constant(shift, cells.dendrites.weight), nn.Identity()
    return taps, bias
