"""Folding of populations, stage by stage; `neuroconv.neurons.fold` says what and when.

Shapes: N neurons, C transmitters, S synapses, P sites, D dendrites, K time taps.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.kernels.population import fuses
from neuroconv.layers.dendrite import DendriticConv, DendriticRate, Taps
from neuroconv.layers.soma import SomaFilter
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses, TransmitterSum
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.neurons.fold.linear import Contacts, new_dendrites, one_filter
from neuroconv.neurons.fold.values import affine, commutes, constant, exact, has_hooks
from neuroconv.neurons.population import Population
from neuroconv.neurons.stages import is_absent

_BATCH = 32  # samples of the window for which two ways to run are compared

# Filters (N * C, K_T, K_P, K_D) and resting potentials (N * C, D') in float64.
_Filters = tuple[Tensor, Tensor | None]


def fold_population(cells: Population) -> None:
    """Folds cells in place; those with methods, stages or hooks of their own stay as they are."""
    if not _is_standard(cells):
        return
    old, like = cells.dendrites, cells.dendrites.weight
    linear = one_filter(cells)
    filters: _Filters = exact(old.taps()), None if old.bias is None else exact(old.bias)
    weight, filters = _merge_transmitters(cells, exact(cells.synapses.effective_weight()), filters)
    filters = _fold_dendritic_norm(cells, *filters)
    filters = _fold_soma_norm(cells, *filters)
    build = partial(new_dendrites, tree=old.tree, taps=Taps(backend=old.backend), like=like)
    cells.dendrites = build(*filters)
    _set_weight(cells, weight, like)
    synapses = cells.synapses
    if (
        isinstance(synapses, SparseSynapses)
        and is_absent(cells.threshold_norm)
        and _full_overlap(cells)
        and not fuses(cells, _BATCH, cells.time_steps, evaluation=True)
    ):
        weighted = filters[0] * _on_sheet(weight, old.sheet_shape)
        cells.dendrites = build(weighted, filters[1])
        contacts = Contacts(synapses.wiring, cells.in_features, old.sheet_shape, like)
        cells.synapses = contacts.eval()
    if linear is not None and _flop(linear) < _flop(cells):
        cells.__dict__.update(linear.__dict__)


def _is_standard(cells: Population) -> bool:
    methods = ("forward", "stream", "somatic_potential", "fire")
    inherited = (getattr(type(cells), name) is getattr(Population, name) for name in methods)
    stages = (cells.dendrites, cells.dendritic_rate, cells.summation, cells.soma)
    standard = (DendriticConv, DendriticRate, DendriticSummation, SomaFilter)
    synapses = type(cells.synapses) in (SparseSynapses, DenseSynapses)
    stages_match = synapses and tuple(map(type, stages)) == standard
    return all(inherited) and stages_match and not has_hooks(cells)


def _flop(cells: Population) -> int:
    window = torch.Size((_BATCH, cells.in_features, cells.time_steps))
    return sum(cost.flop for cost in cells.closed_form(window))


def _full_overlap(cells: Population) -> bool:
    """Whether each position of the sheet meets a single tap."""
    _, branches, across = cells.dendrites.tree.kernel
    sites, dendrites = cells.dendrites.sheet_shape
    mode = cells.dendrites.mode
    whole = mode == "per_dendrite" or (mode == "valid" and across == dendrites)
    return branches == sites and whole


def _on_sheet(weight: Tensor, sheet: tuple[int, int]) -> Tensor:
    """Lays weights (N * C, S) on their positions, (N * C, 1, P, D), dendrite by dendrite."""
    whole = F.pad(weight, (0, sheet[0] * sheet[1] - weight.shape[1]))
    return whole.unflatten(1, (sheet[1], sheet[0])).transpose(1, 2).unsqueeze(1)


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
        cells.soma.weight = constant(exact(cells.soma.weight) * gain[:, None], cells.soma.weight)
    elif (
        not is_absent(cells.spike)
        or cells.summation.law != "linear"
        or not commutes(gain, rate.linear and rate.reduction != "max")
    ):
        return taps, bias
    elif not isinstance(dendritic, nn.BatchNorm2d):
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


def _set_weight(cells: Population, weight: Tensor, like: Tensor) -> None:
    old, kinds = cells.synapses, cells.transmitters.kinds
    if old.signs is None and old.vesicles is None and old.transmitters == kinds:
        return
    new: SparseSynapses | DenseSynapses
    if isinstance(old, SparseSynapses):
        new = SparseSynapses(old.wiring, old.in_features, old.sheet_shape, transmitters=kinds)
    else:
        tree = TreeShape(old.sheet_shape, synapses=old.synapses)
        new = DenseSynapses(old.in_features, old.neurons, tree, transmitters=kinds)
    new.weight = constant(weight, like)
    cells.synapses = new.eval()
