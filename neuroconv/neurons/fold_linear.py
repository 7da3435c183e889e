"""The linear control folded: one filter for each neuron, over the axons that it hears.

Shapes: N neurons, C transmitters, S synapses, P sites, D dendrites, K time taps, A axons that a
neuron hears.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.cost import Cost
from neuroconv.kernels.conv import Backend, Mode, dendritic_conv
from neuroconv.layers.dendrite import DendriticConv, Taps
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses, TransmitterSum
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.neurons.fold_values import affine, constant, exact
from neuroconv.neurons.population import Population
from neuroconv.neurons.stages import is_absent

_CHUNK_NUMBERS = 1 << 24  # of the sheets that are held at once


class Contacts(SparseSynapses):
    """Synapses whose weights are all one: they pass on what their axons carry.

    Args, shape, errors: as `SparseSynapses`'.
    """

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
        heard = rows.index_select(0, self.wiring.flatten())
        return self.on_sheet(heard.view(self.neurons, self.synapses, time_steps, batch))

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        return (Cost("synapses", synapses=self.wiring.numel()),)


def collapsed(cells: Population) -> Population | None:
    """The linear control as one filter over the axons that it hears; None for other neurons."""
    rate, summation = cells.dendritic_rate, cells.summation
    linear = rate.linear and rate.reduction != "max" and summation.law == "linear"
    if not (linear and is_absent(cells.threshold_norm) and is_absent(cells.spike)):
        return None
    columns = cells.dendrites.out_shape[1]
    stages = (cells.dendritic_norm, cells.soma_norm)
    norms = [affine(stage) for stage in stages]
    if any(
        norm is None and not is_absent(stage) for norm, stage in zip(norms, stages, strict=True)
    ):
        return None
    ones = torch.ones(cells.out_features, columns, dtype=torch.float64)
    scale, shift = norms[0] or (ones, 0 * ones)
    scale, shift = scale.view_as(ones), shift.view_as(ones)
    if cells.dendrites.bias is not None:
        bias = exact(cells.dendrites.bias).unflatten(0, (-1, cells.transmitters.kinds))
        shift = shift + bias.sum(1) * scale
    gain, rest = norms[1] or (ones[:, 0], None)
    sites = cells.dendrites.out_shape[0] if rate.reduction == "sum" else 1
    current = (shift * sites * summation.scale).sum(1, keepdim=True) * gain[:, None]
    share = summation.scale * sites / cells.dendrites.out_shape[0]
    wiring, filters = _axon_filters(cells, scale * share * gain[:, None])
    like = cells.dendrites.weight
    one = copy.copy(cells)  # its stages are replaced, those of the original stay
    one._modules, one._parameters = dict(cells._modules), dict(cells._parameters)
    one.soma = copy.deepcopy(cells.soma)
    one.transmitters = TransmitterSum(1)
    one.dendritic_norm, one.soma_norm = nn.Identity(), nn.Identity()
    if rest is not None:
        one.bias = constant(rest, like)
    one.summation = DendriticSummation().eval()
    sheet = (1, wiring.shape[1])
    one.dendrites = new_dendrites(filters.unsqueeze(2), current, sheet, "valid", "auto", like)
    one.synapses = Contacts(wiring.to(like.device), cells.in_features, sheet, like).eval()
    return one


def _axon_filters(cells: Population, share: Tensor) -> tuple[Tensor, Tensor]:
    """What each axon adds to the sum of a neuron's potentials, those of column d times share[:, d].

    Returns:
        axons that each neuron hears, (N, A), and their taps, (N, K, A).
    """
    taps, weight = exact(cells.dendrites.taps()), exact(cells.synapses.effective_weight())
    kinds, places = cells.transmitters.kinds, cells.synapses.synapses
    weight = weight.view(cells.out_features, kinds, places, -1)
    sheet, k_time = cells.dendrites.sheet_shape, taps.shape[1]
    width = max(1, _CHUNK_NUMBERS // (kinds * k_time * sheet[0] * sheet[1]))
    parts = []
    dense = isinstance(cells.synapses, DenseSynapses)
    for first in range(0, cells.out_features, width):
        own = slice(first, first + width)
        trees = taps[first * kinds : (first + width) * kinds]
        with torch.enable_grad():
            rest = taps.new_zeros(1, len(trees), k_time, *sheet, requires_grad=True)
            out = dendritic_conv(rest, trees, cells.dendrites.mode, steps=1)
            column = share[own].repeat_interleave(kinds, 0)[:, None, None, :]
            (response,) = torch.autograd.grad((out * column).sum(), rest)
        lined = response[0].transpose(2, 3).flatten(2)[:, :, :places]  # (n * C, K, S)
        lined = lined.unflatten(0, (-1, kinds))
        parts.append(
            torch.einsum("ncsf,ncks->nkf", weight[own], lined)
            if dense
            else (weight[own].transpose(2, 3) * lined).sum(1)
        )
    total = torch.cat(parts)  # (N, K, F) of dense synapses, else (N, K, S)
    if isinstance(cells.synapses, DenseSynapses):
        return torch.arange(cells.in_features).repeat(cells.out_features, 1), total
    # Synapses of one axon are added up: places sorted by axon, and numbered axon by axon.
    axons, order = cells.synapses.wiring.cpu().sort(1)
    number = F.pad((axons.diff(dim=1) != 0).cumsum(1), (1, 0))
    heard = int(number.max()) + 1
    wiring = axons.new_zeros(len(axons), heard).scatter_(1, number, axons)
    index = number.unsqueeze(1).expand_as(total)
    moved = total.gather(2, order.unsqueeze(1).expand_as(total))
    return wiring, total.new_zeros(*total.shape[:2], heard).scatter_add_(2, index, moved)


def new_dendrites(
    taps: Tensor,
    bias: Tensor | None,
    sheet: tuple[int, int],
    mode: Mode,
    backend: Backend,
    like: Tensor,
) -> DendriticConv:
    """The filter of given taps (N, K_T, K_P, K_D) and resting potentials (N, D')."""
    neurons, k_time, branches, across = taps.shape
    tree = TreeShape(sheet, (branches, across, k_time), mode=mode)
    dendrites = DendriticConv(neurons, tree, Taps(backend=backend), bias is not None)
    dendrites.weight = constant(taps, like)
    if bias is not None:
        dendrites.bias = constant(bias, like)
    return dendrites.eval()
