"""Populations of neurons: the extended linear-nonlinear-Poisson cascade as one module.

Shapes: B batch, F incoming axons, N neurons, C transmitters, T time steps, P sites,
D dendrites.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import Positive, Size, checked
from neuroconv.core.autocast import add_bias
from neuroconv.core.checks import Norm, NormOver
from neuroconv.core.cost import Cost
from neuroconv.core.layout import along_axis
from neuroconv.core.shares import share_of
from neuroconv.kernels.cache import FilterCache
from neuroconv.kernels.population import fused_current
from neuroconv.kernels.recompute import recomputed_stages
from neuroconv.layers.dendrite import DendriticConv, DendriticRate, Taps
from neuroconv.layers.poisson import PoissonDropout
from neuroconv.layers.soma import FiringRate, GatheredRate, SomaFilter
from neuroconv.layers.spike import DendriticSpike
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import Synapse, TransmitterSum
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.layers.wiring import Wiring
from neuroconv.neurons.costs import population_costs
from neuroconv.neurons.presets import Physiology, Variant, preset
from neuroconv.neurons.stages import (
    Output,
    Table,
    build_norm,
    build_output,
    build_rate,
    build_single,
    build_spike,
    build_summation,
    build_synapses,
    build_taps,
    build_threshold,
    build_tree,
    build_unit_dropout,
    build_wiring,
)
from neuroconv.neurons.state import REST, NeuronState, run_stages

# The stages from the axons to the dendrites' rates, in order: what checkpointing recomputes.
_DENDRITIC = (
    "synapses", "threshold_norm", "unit_dropout", "dendrites", "transmitters", "normalise",
    "spike", "dendritic_rate",
)  # fmt: skip


@checked
class Population(nn.Module):
    """Neurons of one type, from axons to axons: fits into nn.Sequential as nn.Linear does.

    The cells of `neuroconv.neurons.cells` are this class, each with its presets, which fill in what
    is left out. A stage may be given as an object or as the plain table of its arguments, as TOML
    has it: `tree=TreeShape((10, 100))` or `tree={"sheet": [10, 100]}`.

    **Main arguments:**
        in_features: axons F that the population can receive.
        out_features: neurons N.
        variant: source of the preset: "dettmers2015" (the essay) or "literature"; default the
            essay where it has the cell.
        tree: a `TreeShape`: the sheet, the filter, the synapses, and the mode.
        wiring: which axon each synapse receives: `Random()`, `ParallelFibres()`,
            `ReceptiveField(image_shape)`, `DendriticFields(image_shape, patch)`, `InOrder()` or
            `AllToAll()`; or a name such as "in_order", or a table with the name under "kind".
        norm: where potentials are batch-normalised: "none", at the "dendrites" (each dendrite of
            each neuron over batch, steps and sites), at the "soma" (each neuron over batch and
            steps), or at "both".
        norm_over: what these norms' statistics, and a threshold's, are over in training: the
            "window", by which later steps change the rates at earlier ones, or each "step" by
            itself, by which time stays causal (`StepBatchNorm`; it needs a batch of two). In
            evaluation both use running statistics, and no step changes an earlier one.
        summation: how the dendrites' rates sum: the name of a law of their mean ("linear",
            "sublinear", "supralinear", "sigmoidal"), or a `DendriticSummation`. If given, the
            preset's law within a dendrite is left out too, and `rate` may name one.
        output: what the axon carries: `PoissonDropout()` (the default, with the preset's mean
            wait), `PoissonSpikes()` or `ReleaseOrWait()`; or a name such as "poisson_spikes".

    **Other arguments:**
        synapse: a `Synapse`: Dale's law, weights of two factors, kinds C of transmitter. Each
            transmitter has a dendritic filter too; the dendrites sum their potentials.
        threshold: synaptic potentials are normalised and clamped between rest and this value, in
            standard deviations; None omits this.
        taps: a `Taps`: a cable for the filters, whether they are trained, their backend. A table
            may name a cell with measured constants as the cable: "purkinje".
        spike: the dendritic spike, a `DendriticSpike`; None for none.
        rate: a `DendriticRate`: the reduction over a dendrite's sites, the law by which they sum
            (the preset's), and `linear`, the control without dendritic rectifier and without that
            law, whose neurons are one dot product up to the soma where the summation is linear.
        soma: a `SomaFilter`; one time step has no memory.
        unit_dropout: Poisson dropout for each position of the sheet, instead of the output's.
        checkpoint: save neither sheet nor dendritic potentials for the backward pass, which
            recomputes them: less memory for more time, for cells with large trees. Small trees that
            run as one stage save neither anyway, and a compiler decides for itself.

    Shape:
        activity (B, F, T), or (B, F) taken as constant over the filter's time steps
        -> rate (B, N, T), never negative

    Raises:
        ValueError: a size or choice out of range; at the call, activity of another shape.
    """

    cell: ClassVar[str]

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        *,
        variant: Variant | None = None,
        tree: TreeShape | Table | None = None,
        wiring: Wiring | Table | str | None = None,
        synapse: Synapse | Table | None = None,
        threshold: Positive | None = None,
        taps: Taps | Table | None = None,
        norm: Norm = "none",
        norm_over: NormOver = "window",
        spike: DendriticSpike | nn.Module | Table | None = None,
        rate: DendriticRate | nn.Module | Table | None = None,
        summation: DendriticSummation | nn.Module | Table | str | None = None,
        soma: SomaFilter | nn.Module | Table | None = None,
        output: Output | nn.Module | Table | str | None = None,
        unit_dropout: PoissonDropout | nn.Module | Table | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        at_dendrites, at_soma = norm in ("dendrites", "both"), norm in ("soma", "both")
        numbers = self.physiology(variant)
        shape = build_tree(tree, numbers)
        columns, empty = shape.out[1], shape.positions - shape.filled
        within = numbers.site_summation if summation is None else "linear"
        law = numbers.summation if summation is None else summation
        self.in_features, self.out_features = in_features, out_features
        self.time_steps, self.checkpoint = shape.kernel[0], checkpoint

        drawn = build_wiring(wiring, numbers.claw)
        with share_of(out_features) as self.share:  # all neurons, or those of one process
            self.synapses = build_synapses(synapse, drawn, in_features, self.share, shape)
            neurons = self.share.local
            trees = neurons * self.synapses.transmitters
            self.threshold_norm = build_threshold(threshold, trees, empty, norm_over)
            self.unit_dropout = build_unit_dropout(unit_dropout, numbers.mean_wait)
            self.dendrites = DendriticConv(trees, shape, build_taps(taps), bias=not at_dendrites)
        columns_in_all = neurons * columns
        self.dendritic_norm = build_norm(at_dendrites, nn.BatchNorm2d, columns_in_all, norm_over)
        self.transmitters = TransmitterSum(self.synapses.transmitters)
        self.spike = build_spike(spike)
        self.dendritic_rate = build_rate(rate, within)
        self.summation = build_summation(law, scale=1 / columns)
        self.soma = build_single("soma", soma, SomaFilter, time_steps=numbers.soma_time_steps)
        self.soma_norm = build_norm(at_soma, nn.BatchNorm1d, neurons, norm_over)
        self.bias = None if at_soma else nn.Parameter(torch.zeros(neurons))
        self.firing = FiringRate() if self.share.size == 1 else GatheredRate(self.share)
        self.filter_cache = FilterCache()
        self.output = build_output(output, numbers.mean_wait if unit_dropout is None else 0.0)

    @classmethod
    def physiology(cls, variant: Variant | None = None) -> Physiology:
        """Returns the cell's preset; TypeError for this class itself, which is no cell."""
        if not hasattr(cls, "cell"):
            raise TypeError(
                f"{cls.__name__} is no cell type; expected one of them, such as Granule or "
                "Purkinje, or a subclass that names a preset's in its attribute `cell`"
            )
        return preset(cls.cell, variant)

    def forward(self, activity: Tensor) -> Tensor:
        x = self.as_window(activity)  # (B, F, T)
        current = fused_current(self, x)  # the stages to the sum by one kernel, or None
        if current is None and self.checkpoint:
            return self.stream(x)[0]  # the same stages; the state is dropped
        if current is None:
            x = self.synapses(x)  # (B, N * C, T, P, D) the dendritic sheet
            x = self.threshold_norm(x)  # nn.Identity() where there is none
            x = self.unit_dropout(x)
            x = self.dendrites(x)  # (B, N * C, T, P', D') the spatiotemporal convolution
            x = self.transmitters(x)  # (B, N, T, P', D') they add up
            x = self.normalise(x)
            x = self.spike(x)
            x = self.dendritic_rate(x)  # (B, N, T, D') one number for each dendrite
            current = self.summation(x)  # (B, N, T)
        x = self.soma(current)
        x = self.normalise_soma(x)
        x = self.firing(self.rest(x))
        return self.output(x)

    def stream(self, activity: Tensor, state: NeuronState = REST) -> tuple[Tensor, NeuronState]:
        """Runs over a stretch of a window; consecutive stretches give what the window gives.

        In training they do without norms and with norms over each step; norms over the window then
        normalise each stretch by itself.

        Args:
            activity: (B, F, T), any number of steps.
            state: after the stretch before; by default the neurons are at rest.

        Returns:
            rate (B, N, T), and the state after it.
        """
        potential, state = self.somatic_potential(activity, state)
        return self.fire(potential, state)

    def somatic_potential(
        self, activity: Tensor, state: NeuronState = REST
    ) -> tuple[Tensor, NeuronState]:
        """Runs from axons to the soma's potential (B, N, T): all stages before the neuron fires."""
        run = partial(recomputed_stages, run_stages, self) if self.checkpoint else run_stages
        rate, state = run({name: getattr(self, name) for name in _DENDRITIC}, activity, state)
        somatic = {"summation": self.summation, "soma": self.soma, "soma_norm": self.soma_norm}
        potential, state = run_stages(somatic, rate, state)
        return self.rest(potential), state

    def fire(self, potential: Tensor, state: NeuronState) -> tuple[Tensor, NeuronState]:
        """Runs from the soma's potential (B, N, T) to the axon's activity, and the next state."""
        return run_stages({"firing": self.firing, "output": self.output}, potential, state)

    def as_window(self, activity: Tensor) -> Tensor:
        """Repeats activity (B, F) over the filter's time steps, (B, F, T); leaves (B, F, T)."""
        if activity.dim() == 2:
            return activity.unsqueeze(2).expand(-1, -1, self.time_steps)
        return activity

    def normalise(self, potential: Tensor) -> Tensor:
        """Batch-normalises each dendrite of (B, N, T, P', D') over batch, steps and sites."""
        norm = self.dendritic_norm
        if isinstance(norm, nn.Identity):
            return potential
        columns = potential.movedim(4, 2)  # (B, N, D', T, P')
        trees = columns.flatten(1, 2)
        if getattr(norm, "per_step", False):
            normal = norm(trees)
        else:  # in memory order: torch.compile takes a norm's gradient to be laid out as its input
            normal = along_axis(trees, 1, lambda x: norm(x.unsqueeze(3)).squeeze(3))
        return normal.unflatten(1, columns.shape[1:3]).movedim(2, 4)

    def normalise_soma(self, potential: Tensor) -> Tensor:
        """Batch-normalises each neuron of (B, N, T) over batch and steps."""
        if potential.is_cuda and type(self.soma_norm) is nn.BatchNorm1d:
            # In memory order, which kernels keep: the norm would copy the potential to its own.
            return along_axis(potential, 1, self.soma_norm)
        return self.soma_norm(potential)

    def rest(self, potential: Tensor) -> Tensor:
        """Adds the soma's resting potential, which a norm's shift replaces."""
        return potential if self.bias is None else add_bias(potential, self.bias[:, None])

    def train(self, mode: bool = True) -> Self:
        self.filter_cache.clear()
        return super().train(mode)

    def closed_form(
        self, activity: torch.Size, *, resumed: bool = False, streamed: bool = False
    ) -> tuple[Cost, ...]:
        """Returns one row for each stage, in evaluation, biases and norms included.

        Args:
            activity: (B, F, T) or (B, F).
            resumed: the stretch starts from a state, whose steps the filters read once more.
            streamed: it runs by `stream` or `somatic_potential`: stage after stage, from rest too.
        """
        return population_costs(self, activity, resumed=resumed, streamed=streamed)

    def trace_axons(self, layer: Callable[..., Tensor], activity: Tensor) -> Tensor:
        """States which axons each neuron reads; see `neuroconv.flops.count_axons`."""
        index = getattr(self.synapses, "wiring", None)  # None: dense synapses read all
        return layer(self.as_window(activity), self.out_features, index)


@checked
class MixedPopulation(nn.Module):
    """Populations of several cell types side by side, with the same incoming axons.

    Shape:
        activity (B, F, T) or (B, F) -> rate (B, N, T), the neurons of one after those of another

    Raises:
        ValueError: none, or populations that expect different numbers of axons.
    """

    populations: Any  # an nn.ModuleList of populations

    def __init__(self, *populations: Population) -> None:
        super().__init__()
        axons = [population.in_features for population in populations]
        if len({*axons}) != 1:
            raise ValueError(
                f"in_features={axons}; expected one or more populations with the same axons"
            )
        self.populations = nn.ModuleList(populations)
        self.in_features = axons[0]
        self.out_features = sum(population.out_features for population in populations)

    def forward(self, activity: Tensor) -> Tensor:
        return torch.cat([population(activity) for population in self.populations], 1)

    def stream(
        self, activity: Tensor, state: Sequence[NeuronState] | None = None
    ) -> tuple[Tensor, tuple[NeuronState, ...]]:
        """Runs over a stretch, as `Population.stream`; the state is one for each population."""
        before = [REST] * len(self.populations) if state is None else state
        pairs = zip(self.populations, before, strict=True)
        rates, after = zip(
            *(cells.stream(activity, memory) for cells, memory in pairs), strict=True
        )
        return torch.cat(rates, 1), after

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        """Returns the rows of `Population.closed_form`, one population after another."""
        return sum((cells.closed_form(activity) for cells in self.populations), ())
