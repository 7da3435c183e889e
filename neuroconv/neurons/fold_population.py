"""Folding of populations, stage by stage; `neuroconv.neurons.fold` says what and when.

Shapes: N neurons, C transmitters, S synapses, P sites, D dendrites, K time taps, A axons that a
neuron hears.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.kernels.population import fuses
from neuroconv.layers.dendrite import DendriticConv, DendriticRate
from neuroconv.layers.soma import SomaFilter
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses, TransmitterSum
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.neurons.fold_linear import Contacts, collapsed, new_dendrites
from neuroconv.neurons.fold_values import affine, constant, exact, has_hooks, passes
from neuroconv.neurons.population import Population
from neuroconv.neurons.stages import is_absent

_BATCH = 32  # samples of the window for which two ways to run are compared


def fold_population(cells: Population) -> None:
    """Folds cells in place; those with methods, stages or hooks of their own stay as they are."""
    if not _is_known(cells):
        return
    like = cells.dendrites.weight
    one_filter = collapsed(cells)
    taps, weight = exact(cells.dendrites.taps()), exact(cells.synapses.effective_weight())
    rest = cells.dendrites.bias
    bias = None if rest is None else exact(rest)
    taps, weight, bias = _merge_transmitters(cells, taps, weight, bias)
    taps, bias = _fold_dendritic_norm(cells, taps, bias)
    taps, bias = _fold_soma_norm(cells, taps, bias)
    old = cells.dendrites
    sizes = (old.sheet_shape, old.mode, old.backend)
    cells.dendrites = new_dendrites(taps, bias, *sizes, like)
    _set_synapses(cells, weight, like)
    if is_absent(cells.threshold_norm) and _full_overlap(cells) and not _joins(cells):
        synapses = cells.synapses
        if isinstance(synapses, SparseSynapses):
            taps = taps * _on_sheet(weight, synapses.sheet_shape)
            cells.dendrites = new_dendrites(taps, bias, *sizes, like)
            cells.synapses = Contacts(
                synapses.wiring, cells.in_features, synapses.sheet_shape, like
            ).eval()
    window = torch.Size((_BATCH, cells.in_features, cells.time_steps))
    if one_filter is not None and _flop(one_filter, window) < _flop(cells, window):
        cells.__dict__.update(one_filter.__dict__)


def _is_known(cells: Population) -> bool:
    methods = ("forward", "stream", "somatic_potential", "fire")
    own = (getattr(type(cells), name) is getattr(Population, name) for name in methods)
    stages = (cells.dendrites, cells.dendritic_rate, cells.summation, cells.soma)
    known = (DendriticConv, DendriticRate, DendriticSummation, SomaFilter)
    synapses = type(cells.synapses) in (SparseSynapses, DenseSynapses)
    return all(own) and synapses and tuple(map(type, stages)) == known and not has_hooks(cells)


def _flop(cells: Population, window: torch.Size) -> int:
    return sum(cost.flop for cost in cells.closed_form(window))


def _joins(cells: Population) -> bool:
    return fuses(cells, _BATCH, cells.time_steps, evaluation=True)


def _full_overlap(cells: Population) -> bool:
    """Each place of the sheet meets one tap alone."""
    _, branches, across = cells.dendrites.tree.kernel
    sites, dendrites = cells.dendrites.sheet_shape
    mode = cells.dendrites.mode
    return branches == sites and (
        mode == "per_dendrite" or (mode == "valid" and across == dendrites)
    )


def _on_sheet(weight: Tensor, sheet: tuple[int, int]) -> Tensor:
    """Weights (N * C, S) on their places, (N * C, 1, P, D): dendrite by dendrite."""
    whole = F.pad(weight, (0, sheet[0] * sheet[1] - weight.shape[1]))
    return whole.unflatten(1, (sheet[1], sheet[0])).transpose(1, 2).unsqueeze(1)


def _merge_transmitters(
    cells: Population, taps: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    kinds = cells.transmitters.kinds
    if kinds == 1 or not is_absent(cells.threshold_norm):
        return taps, weight, bias
    by_kind = taps.unflatten(0, (-1, kinds))
    same = torch.equal(by_kind, by_kind[:, :1].expand_as(by_kind))
    full = _full_overlap(cells) and isinstance(cells.synapses, SparseSynapses)
    if not (same or full):
        return taps, weight, bias
    if same:
        synapses = len(weight) // len(taps)  # rows of a tree: 1, or one for each dense synapse
        weight = weight.unflatten(0, (-1, kinds, synapses)).sum(1).flatten(0, 1)
        taps = by_kind[:, 0]
    else:
        taps = taps * _on_sheet(weight, cells.synapses.sheet_shape)
        taps, weight = taps.unflatten(0, (-1, kinds)).sum(1), torch.ones_like(weight[::kinds])
    cells.transmitters = TransmitterSum(1)
    return taps, weight, None if bias is None else bias.unflatten(0, (-1, kinds)).sum(1)


def _fold_dendritic_norm(
    cells: Population, taps: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    known = affine(cells.dendritic_norm)
    if known is None or cells.transmitters.kinds > 1:
        return taps, bias
    scale, shift = (each.view(cells.out_features, -1) for each in known)  # (N, D')
    if cells.dendrites.mode != "per_dendrite":
        if not torch.equal(scale, scale[:, :1].expand_as(scale)):
            return taps, bias
        scale = scale[:, :1]
    cells.dendritic_norm = nn.Identity()
    return taps * scale[:, None, None, :], shift if bias is None else bias * scale + shift


def _fold_soma_norm(
    cells: Population, taps: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    known = affine(cells.soma_norm)
    if known is None:
        return taps, bias
    gain, shift = known
    if cells.soma.neurons is not None:
        cells.soma.weight = constant(exact(cells.soma.weight) * gain[:, None], cells.soma.weight)
    elif (
        is_absent(cells.spike)
        and cells.summation.law == "linear"
        and passes(gain, cells.dendritic_rate.linear and cells.dendritic_rate.reduction != "max")
    ):
        norm = cells.dendritic_norm
        if not isinstance(norm, nn.BatchNorm2d):
            trees = gain.repeat_interleave(cells.transmitters.kinds)
            taps = taps * trees[:, None, None, None]
            bias = None if bias is None else bias * trees[:, None]
        elif norm.affine:
            columns = gain.repeat_interleave(norm.num_features // len(gain))
            norm.weight = constant(exact(norm.weight) * columns, norm.weight)
            norm.bias = constant(exact(norm.bias) * columns, norm.bias)
        else:
            return taps, bias
    else:
        return taps, bias
    cells.bias = constant(shift, cells.dendrites.weight)
    cells.soma_norm = nn.Identity()
    return taps, bias


def _set_synapses(cells: Population, weight: Tensor, like: Tensor) -> None:
    old = cells.synapses
    if old.signs is None and old.vesicles is None and old.transmitters == cells.transmitters.kinds:
        return
    new: SparseSynapses | DenseSynapses
    sizes, kinds = (old.in_features, old.sheet_shape), cells.transmitters.kinds
    if isinstance(old, SparseSynapses):
        new = SparseSynapses(old.wiring, *sizes, transmitters=kinds)
    else:
        tree = TreeShape(old.sheet_shape, synapses=old.synapses)
        new = DenseSynapses(old.in_features, old.neurons, tree, transmitters=kinds)
    new.weight = constant(weight, like)
    cells.synapses = new.eval()
