"""The gradient of a population of neurons, from one number for each neuron, without autograd.

It holds where a neuron's output is a sum over its dendrites, each of which rectifies the weighted
sum of its own synapses. The derivative of a neuron's rate with respect to a synapse is then

    (soma fires) x (dendrite open) x (activity of the axon, filtered by the taps)

so that a synapse needs to know its own axon, its own dendrite, and the neuron's one error. A norm
would join samples, and a law of summation dendrites; a dendritic spike joins sites of a dendrite,
of which a filter of the whole dendrite leaves one.

Shapes: B batch, F axons, N neurons, T time steps, S synapses of a neuron, P sites along a dendrite,
D dendrites, K the taps' time steps.
"""

from collections.abc import Iterator
from functools import reduce
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.counting import blocks
from neuroconv.kernels.whole_dendrites import (
    activity_rows,
    dense_potential,
    on_sheet,
    runs_dense,
    tap_windows,
)
from neuroconv.layers import (
    DendriticRate,
    DendriticSummation,
    PoissonDropout,
    SomaFilter,
    SparseSynapses,
)
from neuroconv.learning.rule import NotLocal, add_to_gradient
from neuroconv.neurons import Population
from neuroconv.neurons.stages import is_absent

# Neurons run together whose gathered activity, or matrices, are at most as many numbers: a cache's.
_TOGETHER = 1 << 20


class LocalGradient:
    """A population run without a graph, and the gradient that it then adds to `.grad`.

    The parameters are the synapses, the dendrites' taps and resting potentials, and the somata's
    resting potentials; of them, those that require a gradient. A soma's filter in time is shared by
    all synapses, none of which knows its gradient: it stays as it is.

    Args:
        cells: the population; `forward` takes its place. Hooks on its stages do not run.

    Raises:
        NotLocal: a stage through which a synapse's gradient is not local.
    """

    def __init__(self, cells: Population) -> None:
        if reasons := list(_reasons(cells)):
            raise NotLocal(f"{type(cells).__name__}: no local gradient: {'; '.join(reasons)}")
        self.cells, self.synapses = cells, cast(SparseSynapses, cells.synapses)
        self.sites, self.dendrites = self.synapses.sheet_shape

    def parameters(self) -> list[nn.Parameter]:
        """Returns the parameters that it trains."""
        soma = {id(parameter) for parameter in self.cells.soma.parameters()}
        return [p for p in self.cells.parameters() if p.requires_grad and id(p) not in soma]

    @torch.no_grad()
    def forward(self, activity: Tensor) -> Tensor:
        """Returns rates (B, N, T) of activity (B, F, T) or (B, F), and keeps what is open."""
        cells, synapses = self.cells, self.synapses
        window = cells.as_window(activity)
        synapses.check(window)
        weight, taps = self._on_sheet(synapses.effective_weight()), self._taps()
        self._rows = activity_rows(window, len(taps)).to(weight.dtype)
        self._dense = runs_dense(len(window), len(self._rows), self.sites)
        currents, self._open = [], list[Tensor]()
        for block in self._blocks():
            potential = self._weighted(block, weight[block] * taps[:, block])
            if cells.dendrites.bias is not None:
                potential = potential + cells.dendrites.bias[block].unsqueeze(2)
            if not cells.dendritic_rate.linear:
                self._open.append(potential > 0)
                potential = potential.relu()
            currents.append(potential.sum(1))
        current = torch.cat(currents).unflatten(1, (window.shape[2], -1)).permute(2, 0, 1)
        somatic = cells.rest(cells.soma(current * cells.summation.scale))
        self._fires = somatic > 0
        return somatic.relu()

    @torch.no_grad()
    def backward(self, error: Tensor) -> None:
        """Adds the gradient of sum(error * rate), with error (B, N, T) as a constant."""
        cells, dendrites = self.cells, self.cells.dendrites
        error = error * self._fires
        if cells.bias is not None:
            add_to_gradient(cells.bias, error.sum((0, 2)))
        at_dendrites = (self._through_soma(error) * cells.summation.scale).permute(1, 2, 0)
        weight, taps = self._on_sheet(self.synapses.effective_weight()), self._taps()
        synapses, filters, rest = [], [], []
        for number, block in enumerate(self._blocks()):
            signal = at_dendrites[block].flatten(1).unsqueeze(1).expand(-1, self.dendrites, -1)
            if self._open:
                signal = signal * self._open[number]  # (N, D, T * B)
            eligible = self._correlate(block, signal)
            rest.append(signal.sum(2))
            synapses.append((eligible * taps[:, block]).sum(0).flatten(1))
            if dendrites.weight.requires_grad:
                filters.append((eligible * weight[block]).permute(1, 0, 3, 2))
        if dendrites.bias is not None:
            add_to_gradient(dendrites.bias, torch.cat(rest))
        if filters:
            add_to_gradient(dendrites.weight, torch.cat(filters) * dendrites.tap_unit)
        self.add_to_synapses(torch.cat(synapses)[:, : self.synapses.synapses])

    def correlate(self, rates: Tensor) -> Tensor:
        """Returns the sum over batch and steps of each synapse's filtered activity, times the rates
        (B, N, T) of its neuron: (N, S)."""
        taps, sums = self._taps(), []
        for block in self._blocks():
            rate = rates[:, block].permute(1, 2, 0).flatten(1).unsqueeze(1)
            eligible = self._correlate(block, rate.expand(-1, self.dendrites, -1))
            sums.append((eligible * taps[:, block]).sum(0).flatten(1))
        return torch.cat(sums)[:, : self.synapses.synapses]

    def add_to_synapses(self, gradient: Tensor) -> None:
        """Adds the gradient of the effective weights (N, S) to the parameters behind them."""
        synapses = self.synapses
        if synapses.signs is not None:
            gradient = gradient * synapses.signs[synapses.wiring]
        if synapses.vesicles is not None and synapses.receptors is not None:
            gradient = gradient * (synapses.vesicles * synapses.receptors).sign()
            add_to_gradient(synapses.vesicles, gradient * synapses.receptors)
            add_to_gradient(synapses.receptors, gradient * synapses.vesicles)
        elif synapses.weight is not None:
            signed = synapses.signs is not None  # then the parameter's magnitude is the weight's
            add_to_gradient(
                synapses.weight, gradient * synapses.weight.sign() if signed else gradient
            )

    def _taps(self) -> Tensor:
        """Returns the dendrites' filters, (K, N, D, P)."""
        return self.cells.dendrites.taps().permute(1, 0, 3, 2)

    def _blocks(self) -> Iterator[slice]:
        """Yields the neurons that run together."""
        size = len(self._rows) if self._dense else self.sites * self._rows[0].numel()
        return blocks(self.synapses.neurons, max(1, _TOGETHER // (size * self.dendrites)))

    def _weighted(self, block: slice, filters: Tensor) -> Tensor:
        """Returns sums (N, D, T * B) over taps and sites of filters (K, N, D, P) times activity."""
        if self._dense:
            return dense_potential(filters, self._axons(block), self._rows)
        rows = filters.flatten(1, 2).unsqueeze(2)  # (K, N * D, 1, P)
        products = map(torch.bmm, rows, self._windows(self._gathered(block)))
        return reduce(torch.add, products).view(*filters.shape[1:3], -1)

    def _correlate(self, block: slice, signal: Tensor) -> Tensor:
        """Returns the sum over batch and steps of a signal of each dendrite (N, D, T * B), times
        the activity that each tap meets: (K, N, D, P)."""
        axons, signal = self._axons(block), signal.flatten(0, 1)
        if self._dense:
            products = [signal @ rows.t() for rows in self._windows(self._rows)]
            return torch.stack([p.view(*axons.shape[:2], -1).gather(2, axons) for p in products])
        windows = self._windows(self._gathered(block))
        sums = [torch.bmm(window, signal.unsqueeze(2)) for window in windows]
        return torch.stack(sums).view(-1, *axons.shape)

    def _axons(self, block: slice) -> Tensor:
        """Returns the axon at each position of the sheets (N, D, P); at empty ones the first."""
        return self._on_sheet(self.synapses.wiring[block])

    def _gathered(self, block: slice) -> Tensor:
        """Returns the activity at each position of the sheets (N * D, P, K - 1 + T, B)."""
        axons = self._axons(block)
        return self._rows.index_select(0, axons.flatten()).unflatten(0, (-1, self.sites))

    def _windows(self, activity: Tensor) -> Iterator[Tensor]:
        return tap_windows(activity, self.cells.dendrites.tree.kernel[0])

    def _on_sheet(self, synapses: Tensor) -> Tensor:
        return on_sheet(synapses, self.synapses.sheet_shape)

    def _through_soma(self, error: Tensor) -> Tensor:
        """Returns the error at the dendrites' sum: later steps' errors through the soma's filter,
        which for a synapse is a trace of eligibility."""
        soma = self.cells.soma
        if is_absent(soma):
            return error
        taps = soma.weight.expand(error.shape[1], -1).unsqueeze(1)
        padded = F.pad(error, (0, soma.time_steps - 1))
        return F.conv1d(padded, taps.flip(2), groups=error.shape[1])


def _reasons(cells: Population) -> Iterator[str]:
    """Yields why a population has no local gradient, and what to build in its place."""
    if not isinstance(cells, Population) or type(cells).forward is not Population.forward:
        yield "it has a forward pass of its own; expected Population's"
        return
    tree, synapses = cells.dendrites.tree, cells.synapses
    if cells.share.size > 1:
        yield "its neurons are split over processes; expected all of them in one"
    if type(synapses) is not SparseSynapses:
        yield (
            f"its synapses are {type(synapses).__name__}; expected SparseSynapses, which any "
            'wiring but "all_to_all" gives'
        )
    elif synapses.transmitters > 1:
        yield f"synapse.transmitters = {synapses.transmitters}; expected 1"
    if tree.out != (1, tree.sheet[1]) or tree.mode != "per_dendrite":
        yield (
            f'tree.filter = {tree.filter}, tree.mode = "{tree.mode}"; expected mode "per_dendrite" '
            f"and the filter of a whole dendrite, ({tree.sheet[0]}, {tree.sheet[1]}, time_steps)"
        )
    for stage, argument in _COUPLING.items():
        if not is_absent(getattr(cells, stage)):
            yield f"{stage} is a {type(getattr(cells, stage)).__name__}; expected {argument}"
    if type(cells.output) is not PoissonDropout or cells.output.mean_wait:
        yield f"output = {cells.output}; expected output.mean_wait = 0.0, which drops nothing"
    for stage, kind in (("dendritic_rate", DendriticRate), ("summation", DendriticSummation)):
        law = getattr(cells, stage)
        if type(law) is not kind or law.law != "linear":
            yield f'{stage} is {law}; expected the law "linear"'
    if not (is_absent(cells.soma) or type(cells.soma) is SomaFilter):
        yield f"soma is a {type(cells.soma).__name__}; expected a SomaFilter"


# Stages that join samples, steps or dendrites, or draw; and the argument that leaves one out.
_COUPLING = {
    "threshold_norm": "threshold = None", "unit_dropout": "unit_dropout = None",
    "dendritic_norm": 'norm = "none"', "soma_norm": 'norm = "none"',
}  # fmt: skip
