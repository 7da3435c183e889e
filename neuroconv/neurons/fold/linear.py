"""Folding the linear control: one filter for each neuron, over its presynaptic axons.

Shapes: N neurons, C transmitters, S synapses, P sites, D dendrites, K time taps, F axons, A
presynaptic axons of a neuron.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.cost import Cost
from neuroconv.kernels.conv import dendritic_conv
from neuroconv.layers.dendrite import DendriticConv
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses, TransmitterSum
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.neurons.fold.values import affine, constant, exact, set_filters
from neuroconv.neurons.population import Population
from neuroconv.neurons.stages import is_absent

_CHUNK_NUMBERS = 1 << 24  # elements of the sheets that are differentiated at once


class Contacts(SparseSynapses):
    """`SparseSynapses` whose weights are all one: they pass on what their axons carry."""

    unit: Tensor

    def __init__(
        self, wiring: Tensor, in_features: int, sheet_shape: tuple[int, int], like: Tensor
    ) -> None:
        super().__init__(wiring, in_features, sheet_shape)
        self.register_parameter("weight", None)
        self.register_buffer("unit", like.new_ones(()), persistent=False)

    def effective_weight(self) -> Tensor:
        return self.unit.expand(self.wiring.shape)

    def forward(self, activity: Tensor) -> Tensor:
        self.check(activity)
        batch, axons, time_steps = activity.shape
        rows = activity.permute(1, 2, 0).reshape(axons, time_steps * batch).to(self.unit.dtype)
        presynaptic = rows.index_select(0, self.wiring.flatten())
        return self.on_sheet(presynaptic.view(self.neurons, self.synapses, time_steps, batch))

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        return (Cost("synapses", synapses=self.wiring.numel()),)


def collapse_linear(cells: Population) -> Population | None:
    """Returns the linear control with one filter over its axons; None for other neurons."""
    rate, summation = cells.dendritic_rate, cells.summation
    linear = rate.linear and rate.reduction != "max" and summation.law == "linear"
    norms = (cells.dendritic_norm, cells.soma_norm)
    constants = all(is_absent(norm) or affine(norm) is not None for norm in norms)
    if not (linear and constants and is_absent(cells.threshold_norm) and is_absent(cells.spike)):
        return None
    wiring, filters, current = _axon_filters(cells)
    like, folded = cells.dendrites.weight, copy.copy(cells)
    folded._modules, folded._parameters = dict(cells._modules), dict(cells._parameters)
    folded.soma = copy.deepcopy(cells.soma)  # the soma's norm may be folded into the other one
    if (soma := affine(cells.soma_norm)) is not None:
        gain, shift = soma
        filters, current = filters * gain[:, None, None], current * gain
        folded.bias = constant(shift, like)
    folded.transmitters, folded.summation = TransmitterSum(1), DendriticSummation().eval()
    folded.dendritic_norm, folded.soma_norm = nn.Identity(), nn.Identity()
    tree = TreeShape((1, wiring.shape[1]), (1, wiring.shape[1], filters.shape[1]), mode="valid")
    folded.dendrites = DendriticConv(len(filters), tree).eval()
    set_filters(folded.dendrites, filters.unsqueeze(2), current[:, None], like)
    folded.synapses = Contacts(wiring.to(like.device), cells.in_features, tree.sheet, like).eval()
    return folded


def _axon_filters(cells: Population) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiates the somatic current of linear cells with respect to their axons' activity.

    Returns axons (N, A), their taps (N, K, A), and the current without activity (N,).
    """
    kinds, synapses = cells.transmitters.kinds, cells.synapses.synapses
    taps = exact(cells.dendrites.taps()).unflatten(0, (-1, kinds))
    weight = exact(cells.synapses.effective_weight()).view(len(taps), kinds, synapses, -1)
    numbers = taps.shape[1] * taps.shape[2] * cells.dendrites.tree.positions
    filters, currents = [], []
    for neurons in torch.arange(len(taps)).split(max(1, _CHUNK_NUMBERS // numbers)):
        current, response = _sheet_response(cells, taps, neurons)
        by_synapse = response.flatten(3)[..., :synapses]  # (N, C, K, S), dendrite by dendrite
        filters.append(
            torch.einsum("ncsf,ncks->nkf", weight[neurons], by_synapse)
            if isinstance(cells.synapses, DenseSynapses)
            else (weight[neurons].transpose(2, 3) * by_synapse).sum(1)
        )
        currents.append(current)
    total = torch.cat(filters)  # (N, K, F) of dense synapses, else (N, K, S)
    if isinstance(cells.synapses, DenseSynapses):
        axons = torch.arange(cells.in_features).repeat(cells.out_features, 1)
        return axons, total, torch.cat(currents)
    # Synapses of one axon are added up: sorted by axon, and numbered axon by axon.
    axons, order = cells.synapses.wiring.cpu().sort(1)
    number = F.pad((axons.diff(dim=1) != 0).cumsum(1), (1, 0))
    fan_in = int(number.max()) + 1
    wiring = axons.new_zeros(len(axons), fan_in).scatter_(1, number, axons)
    ordered = total.gather(2, order.unsqueeze(1).expand_as(total))
    by_axon = total.new_zeros(*total.shape[:2], fan_in)
    by_axon.scatter_add_(2, number.unsqueeze(1).expand_as(total), ordered)
    return wiring, by_axon, torch.cat(currents)


def _sheet_response(cells: Population, taps: Tensor, neurons: Tensor) -> tuple[Tensor, Tensor]:
    """Runs a silent sheet through the stages up to the soma, and differentiates the last step.

    Returns the current (N,) and its derivative by the sheet, (N, C, K, D, P).
    """
    dendrites, kinds = cells.dendrites, cells.transmitters.kinds
    bias = dendrites.bias
    if bias is not None:
        bias = exact(bias).unflatten(0, (-1, kinds))[neurons].flatten(0, 1)
    filters = taps[neurons].flatten(0, 1)
    shape = (1, len(filters), filters.shape[1], *dendrites.sheet_shape)
    with torch.enable_grad():
        sheet = filters.new_zeros(shape, requires_grad=True)
        x = cells.transmitters(dendritic_conv(sheet, filters, dendrites.mode, bias=bias, steps=1))
        if (norm := affine(cells.dendritic_norm)) is not None:
            scale, shift = (v.view(len(taps), 1, 1, -1)[neurons] for v in norm)
            x = x * scale + shift
        current = cells.summation(cells.dendritic_rate(x)).flatten()
        (response,) = torch.autograd.grad(current.sum(), sheet)
    return current.detach(), response[0].transpose(2, 3).unflatten(0, (-1, kinds))
