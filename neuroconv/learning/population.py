"""The gradient of a population of neurons, from one number for each neuron, without autograd.

It holds where a neuron's output is a sum over its dendrites, each of which rectifies the weighted
sum of its own synapses. The derivative of a neuron's rate with respect to a synapse is then

    (soma fires) x (dendrite open) x (activity of the axon, filtered by the taps)

so that a synapse needs to know its own axon, its own dendrite, and the neuron's one error.

Shapes: B batch, F axons, N neurons, T time steps, S synapses of a neuron, P sites along a dendrite,
D dendrites, K the taps' time steps.
"""

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.layers import DendriticSummation, SomaFilter, SparseSynapses
from neuroconv.layers.dendrite import DendriticRate
from neuroconv.layers.soma import FiringRate
from neuroconv.learning.rule import NotLocal, add_to_gradient
from neuroconv.neurons import Population
from neuroconv.neurons.stages import is_absent

# Gathered activity, in numbers: more is gathered again for the gradient, neuron by neuron.
_KEPT = 1 << 26


class LocalGradient:
    """Runs a population, and then adds gradients to `.grad` of its parameters.

    Parameters: the synapses, the dendrites' taps and resting potentials, and the somata's resting
    potentials; of them, those that require a gradient. A soma's filter in time is no synapse's to
    know and stays as it is.

    Raises:
        NotLocal: a stage through which a synapse's gradient is not local.
    """

    def __init__(self, cells: Population) -> None:
        if reasons := list(_reasons(cells)):
            raise NotLocal(f"{type(cells).__name__}: no local gradient: {'; '.join(reasons)}")
        self.cells, self.synapses = cells, cast(SparseSynapses, cells.synapses)
        sites, dendrites = cells.dendrites.tree.sheet
        self.sites, self.dendrites = sites, dendrites
        self.empty = sites * dendrites - cells.synapses.synapses

    def forward(self, activity: Tensor) -> Tensor:
        """Returns rates (B, N, T) of activity (B, F, T) or (B, F), and keeps what is open."""
        cells = self.cells
        window = cells.as_window(activity)
        cells.synapses.check(window)
        steps = cells.dendrites.tree.kernel[0]
        rows = F.pad(window.permute(1, 2, 0), (0, 0, steps - 1, 0))  # (F, K - 1 + T, B)
        self._rows, self._kept = rows.contiguous(), dict[int, Tensor]()
        self._keeps = cells.synapses.wiring.numel() * rows[0].numel() <= _KEPT
        taps, weight = cells.dendrites.taps(), self._on_sheet(self.synapses.effective_weight())
        bias = cells.dendrites.bias
        currents, self._open = [], list[Tensor]()
        for n in range(cells.share.local):
            presynaptic = self._presynaptic(n)  # (D, P, K - 1 + T, B)
            potential = sum(
                torch.bmm((weight[n] * taps[n, k].t()).unsqueeze(1), window.flatten(2)).squeeze(1)
                for k, window in enumerate(_windows(presynaptic, steps))
            )  # (D, T * B)
            potential = potential + (0 if bias is None else bias[n].unsqueeze(1))
            if not cells.dendritic_rate.linear:
                self._open.append(potential > 0)
                potential = potential.relu()
            currents.append(potential.sum(0))
        current = torch.stack(currents).unflatten(1, (window.shape[2], -1)).permute(2, 0, 1)
        potential = cells.rest(cells.soma(current * cells.summation.scale))
        self._fires = potential > 0
        return potential.relu()

    def backward(self, error: Tensor) -> None:
        """Adds the gradient of sum(error * rate), with error (B, N, T) as a constant."""
        cells = self.cells
        error = error * self._fires
        if cells.bias is not None:
            add_to_gradient(cells.bias, error.sum((0, 2)))
        at_dendrites = (self._through_soma(error) * cells.summation.scale).permute(1, 2, 0)
        weight, taps = self._on_sheet(self.synapses.effective_weight()), cells.dendrites.taps()
        synapses, filters, rest = [], [], []
        for n in range(cells.share.local):
            signal = at_dendrites[n].reshape(1, -1).expand(self.dendrites, -1)  # (D, T * B)
            if self._open:
                signal = signal * self._open[n]
            eligible = self._correlate(n, signal)
            rest.append(signal.sum(1))
            synapses.append((eligible * taps[n].transpose(1, 2)).sum(0).flatten())
            if cells.dendrites.weight.requires_grad:
                filters.append((eligible * weight[n]).transpose(1, 2))
        if cells.dendrites.bias is not None:
            add_to_gradient(cells.dendrites.bias, torch.stack(rest))
        if filters:
            add_to_gradient(cells.dendrites.weight, torch.stack(filters) * cells.dendrites.tap_unit)
        self._add_to_synapses(torch.stack(synapses)[:, : cells.synapses.synapses])

    def correlate(self, rates: Tensor) -> Tensor:
        """Returns the sum over batch and steps of each synapse's filtered activity, times the rates
        (B, N, T) of its neuron: (N, S)."""
        taps, sums = self.cells.dendrites.taps(), []
        for n, rate in enumerate(rates.permute(1, 2, 0).flatten(1)):
            of_cell = self._correlate(n, rate.expand(self.dendrites, -1))
            sums.append((of_cell * taps[n].transpose(1, 2)).sum(0).flatten())
        return torch.stack(sums)[:, : self.synapses.synapses]

    def _correlate(self, neuron: int, signal: Tensor) -> Tensor:
        """Returns the sum over batch and steps of a signal of each dendrite (D, T * B), times the
        activity that each tap meets: (K, D, P)."""
        windows = _windows(self._presynaptic(neuron), self.cells.dendrites.tree.kernel[0])
        sums = [torch.bmm(window.flatten(2), signal.unsqueeze(2)).squeeze(2) for window in windows]
        return torch.stack(sums)

    def _on_sheet(self, synapses: Tensor) -> Tensor:
        """Lays (N, S) out as (N, D, P); empty positions are zero."""
        return F.pad(synapses, (0, self.empty)).unflatten(1, (self.dendrites, self.sites))

    def _presynaptic(self, neuron: int) -> Tensor:
        """Returns the activity at each position of a neuron's sheet (D, P, K - 1 + T, B)."""
        if neuron in self._kept:
            return self._kept[neuron]
        axons = F.pad(self.synapses.wiring[neuron], (0, self.empty))
        gathered = self._rows.index_select(0, axons)
        gathered = gathered.unflatten(0, (self.dendrites, self.sites))
        if self._keeps:
            self._kept[neuron] = gathered
        return gathered

    def _through_soma(self, error: Tensor) -> Tensor:
        """Returns the error at the dendrites' sum: later steps' errors through the soma's filter,
        which for a synapse is a trace of eligibility."""
        soma = self.cells.soma
        if is_absent(soma):
            return error
        taps = soma.weight.expand(error.shape[1], -1).unsqueeze(1)
        padded = F.pad(error, (0, soma.time_steps - 1))
        return F.conv1d(padded, taps.flip(2), groups=error.shape[1])

    def _add_to_synapses(self, gradient: Tensor) -> None:
        """Adds the gradient of the effective weights (N, S) to the parameters behind them."""
        synapses = self.synapses
        if synapses.signs is not None:
            gradient = gradient * synapses.signs[synapses.wiring]
        if synapses.vesicles is not None and synapses.receptors is not None:
            gradient = gradient * (synapses.vesicles * synapses.receptors).sign()
            add_to_gradient(synapses.vesicles, gradient * synapses.receptors)
            add_to_gradient(synapses.receptors, gradient * synapses.vesicles)
        else:
            free = synapses.weight is None or synapses.signs is None
            add_to_gradient(
                synapses.weight, gradient if free else gradient * synapses.weight.sign()
            )


def _windows(presynaptic: Tensor, steps: int) -> list[Tensor]:
    """Returns the activity that each tap meets, (D, P, T, B), the earliest first."""
    length = presynaptic.shape[2] - steps + 1
    return [presynaptic[:, :, k : k + length] for k in range(steps)]


def _reasons(cells: Population) -> Iterator[str]:
    """Yields why a population has no local gradient."""
    tree, synapses = cells.dendrites.tree, cells.synapses
    if cells.share.size > 1:
        yield "its neurons are split over processes"
    if type(synapses) is not SparseSynapses:
        yield 'its synapses receive all axons (wiring = "all_to_all")'
    elif synapses.transmitters > 1:
        yield f"transmitters = {synapses.transmitters}; expected 1"
    if tree.out != (1, tree.sheet[1]) or tree.mode != "per_dendrite":
        yield (
            f'tree.filter = {tree.filter} in mode {tree.mode!r}; expected mode "per_dendrite" '
            f"and a filter of the whole dendrite, ({tree.sheet[0]}, {tree.sheet[1]}, time_steps)"
        )
    for name, remedy in (
        ("threshold_norm", "threshold"),
        ("dendritic_norm", 'norm = "none"'),
        ("soma_norm", 'norm = "none"'),
        ("spike", "spike"),
        ("unit_dropout", "unit_dropout"),
    ):
        if not is_absent(getattr(cells, name)):
            yield f"it has a {name}; expected {remedy if '=' in remedy else f'no {remedy}'}"
    if getattr(cells.output, "mean_wait", None) != 0:
        yield f"output = {cells.output}; expected output.mean_wait = 0.0, which drops nothing"
    rate, summation = cells.dendritic_rate, cells.summation
    if type(rate) is not DendriticRate or rate.law != "linear":
        yield 'a law within the dendrites; expected rate.law = "linear"'
    if type(summation) is not DendriticSummation or summation.law != "linear":
        yield 'a law across dendrites; expected summation = "linear"'
    if not (is_absent(cells.soma) or type(cells.soma) is SomaFilter):
        yield f"soma = {type(cells.soma).__name__}; expected a SomaFilter"
    if type(cells.firing) is not FiringRate:
        yield f"firing = {type(cells.firing).__name__}; expected a FiringRate"
