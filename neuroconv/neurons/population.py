"""A population of neurons: the extended linear-nonlinear-Poisson cascade as one module.

Shapes: B batch, F axons that come in, N neurons, C transmitters, T time steps, P sites,
D dendrites.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from neuroconv.core.autocast import autocast_dtype
from neuroconv.core.checks import NORMS, Norm, check_choice, check_positive
from neuroconv.core.cost import Cost
from neuroconv.core.counting import is_watched
from neuroconv.core.layout import along_axis
from neuroconv.core.renamed import POPULATION, renamed
from neuroconv.kernels import tree_sum_cpu as native_tree
from neuroconv.kernels.cache import FilterCache
from neuroconv.kernels.tree_sum import (
    Tree,
    response_numbers,
    tree_current,
    tree_responses,
)
from neuroconv.layers.dendrite import DendriticConv, DendriticRate, Taps
from neuroconv.layers.poisson import DropoutState, PoissonDropout
from neuroconv.layers.soma import FiringRate, SomaFilter
from neuroconv.layers.spike import DendriticSpike
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses, Synapse
from neuroconv.layers.threshold import ThresholdNorm
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.layers.wiring import Wiring
from neuroconv.neurons.population_cost import population_costs
from neuroconv.neurons.presets import Physiology, Variant, preset
from neuroconv.neurons.recompute import recomputed
from neuroconv.neurons.stages import (
    Output,
    Table,
    build_output,
    build_rate,
    build_soma,
    build_spike,
    build_summation,
    build_synapse,
    build_taps,
    build_tree,
    build_unit_dropout,
    build_wiring,
    is_absent,
)
from neuroconv.neurons.state import REST, NeuronState, after, last


class Population(nn.Module):
    """Neurons of one type, between axons and axons: fits into nn.Sequential as nn.Linear does.

    The cells of `neuroconv.neurons.cells` are this class, each with its presets, which fill in what
    is left out. A stage may be given as an object or as the plain table of its arguments, as TOML
    has it: `tree=TreeShape((10, 100))` or `tree={"sheet": [10, 100]}`. One object given to two
    populations is shared by them.

    **Main arguments:**
        in_features: axons F that the population can receive.
        out_features: neurons N.
        variant: whose numbers: "dettmers2015" (the essay's) or "literature"; default the essay's
            where it speaks of the cell.
        tree: a `TreeShape`: the sheet, the filter, the synapses, and the mode.
        wiring: which axon each synapse receives: `Random()`, `ParallelFibres()`,
            `ReceptiveField(image_shape)`, `InOrder()` or `AllToAll()`; or a name such as
            "in_order", or a table with the name under "kind".
        norm: where potentials are batch-normalised: "none", at the "dendrites" (each dendrite of
            each neuron over batch, steps and sites), at the "soma" (each neuron over batch and
            steps), or at "both".
        summation: how the dendrites' rates sum: the name of a law of their mean ("linear",
            "sublinear", "supralinear", "bistable"), or a `DendriticSummation`.
        output: what the axon carries: `PoissonDropout()` (the default, with the preset's mean
            wait), `PoissonSpikes()` or `ReleaseOrWait()`; or a name such as "poisson_spikes".

    **Other arguments:**
        synapse: a `Synapse`: Dale's law, weights of two factors, kinds C of transmitter. Each
            transmitter has a dendritic filter too; the dendrites sum their potentials.
        threshold: synaptic potentials are normalised and held between rest and this threshold, in
            standard deviations; None leaves them as they are.
        taps: a `Taps`: a cable that fills the filters, whether they learn, their backend. The cable
            of a table may be the name of a cell whose constants are measured, "purkinje".
        spike: the dendritic spike, a `DendriticSpike`; None has none.
        rate: a `DendriticRate`: the reduction over a dendrite's sites, and `linear`, the control
            without the dendritic rectifier: a neuron that is one dot product up to its soma.
        soma: a `SomaFilter`; one time step has no memory.
        unit_dropout: Poisson dropout for each position of the sheet, instead of the output's.
        checkpoint: keep neither sheet nor dendritic potentials for the backward pass, which
            computes them again: less memory for more time, for cells with large trees. Gradients,
            draws and running statistics are the same. Small trees that run as one stage keep
            nothing anyway, and a compiler decides for itself what to keep: there it changes
            nothing.

    Shape:
        activity (B, F, T), or (B, F) taken as constant over the filter's time steps
        -> rate (B, N, T), never negative

    Raises:
        ValueError: a size or choice out of range; at the call, activity of another shape.
    """

    cell: ClassVar[str]

    @renamed(POPULATION)
    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        variant: Variant | None = None,
        tree: TreeShape | Table | None = None,
        wiring: Wiring | Table | str | None = None,
        synapse: Synapse | Table | None = None,
        threshold: float | None = None,
        taps: Taps | Table | None = None,
        norm: Norm = "none",
        spike: DendriticSpike | Table | None = None,
        rate: DendriticRate | Table | None = None,
        summation: DendriticSummation | Table | str | None = None,
        soma: SomaFilter | Table | None = None,
        output: Output | Table | str | None = None,
        unit_dropout: PoissonDropout | Table | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, out_features=out_features)
        check_choice("norm", norm, NORMS)
        numbers = self.physiology(variant)
        shape = build_tree(tree, numbers)
        drawn = build_wiring(wiring, numbers.claw)
        weights = build_synapse(synapse)
        self.in_features, self.out_features = in_features, out_features
        self.transmitters, self.time_steps = weights.transmitters, shape.kernel[0]
        self.checkpoint = checkpoint

        axons = drawn.axons(in_features, out_features, shape)
        signs = weights.signs(in_features)
        self.synapses: SparseSynapses | DenseSynapses
        if axons is None:
            self.synapses = DenseSynapses(
                in_features, out_features, shape, signs=signs,
                factorized=weights.factorized, transmitters=weights.transmitters,
            )  # fmt: skip
        else:
            self.synapses = SparseSynapses(
                axons, in_features, shape.sheet, signs=signs,
                factorized=weights.factorized, transmitters=weights.transmitters,
                claw=bool(getattr(drawn, "claw", False)),
            )  # fmt: skip
        trees, empty = out_features * weights.transmitters, shape.positions - shape.filled
        self.threshold_norm = (
            nn.Identity()
            if threshold is None
            else ThresholdNorm(trees, threshold, empty_places=empty)
        )
        self.unit_dropout = build_unit_dropout(unit_dropout, numbers.mean_wait)
        at_dendrites, at_soma = norm in ("dendrites", "both"), norm in ("soma", "both")
        self.dendrites = DendriticConv(trees, shape, build_taps(taps), bias=not at_dendrites)
        columns = shape.out[1]
        self.dendritic_norm = (
            nn.BatchNorm2d(out_features * columns) if at_dendrites else nn.Identity()
        )
        self.spike = build_spike(spike)
        self.dendritic_rate = build_rate(rate)
        law = numbers.summation if summation is None else summation
        self.summation = build_summation(law, scale=1 / columns)
        self.soma = build_soma(soma, numbers.soma_time_steps)
        self.soma_norm = nn.BatchNorm1d(out_features) if at_soma else nn.Identity()
        self.bias = None if at_soma else nn.Parameter(torch.zeros(out_features))
        self.firing = FiringRate()
        self._responses = FilterCache()
        self.output = build_output(output, numbers.mean_wait if unit_dropout is None else 0.0)

    @classmethod
    def physiology(cls, variant: Variant | None = None) -> Physiology:
        """The cell's preset, by default the essay's where the essay speaks of the cell.

        Raises:
            ValueError: a variant that the cell does not have.
            TypeError: this class itself, which is no cell.
        """
        if not hasattr(cls, "cell"):
            raise TypeError(
                f"{cls.__name__} is no cell type; expected one of them, such as Granule or "
                "Purkinje, or a subclass that names a preset's in its attribute `cell`"
            )
        return preset(cls.cell, variant)

    def forward(self, activity: Tensor) -> Tensor:
        if activity.dim() == 2:
            activity = activity.unsqueeze(2).expand(-1, -1, self.time_steps)
        batch, _, steps = activity.shape if activity.dim() == 3 else (0, 0, 0)
        if steps and self.joins_stages(int(batch), int(steps)):
            potential = self._somatic(self._joined_current(activity))
        else:
            potential = self.integrate(activity)[0]
        rate: Tensor = self.output(self.firing(potential))
        return rate

    def stream(self, activity: Tensor, state: NeuronState = REST) -> tuple[Tensor, NeuronState]:
        """Runs over a stretch of any number of steps; a window is a stretch that starts at rest.

        In evaluation, stretch after stretch gives what the whole window gives at once.

        Args:
            activity: (B, F, T).
            state: what the stretch before returned; by default the neurons are at rest.

        Returns:
            rate (B, N, T), and the state after it.
        """
        potential, state = self.integrate(activity, state)
        return self.fire(potential, state)

    def integrate(self, activity: Tensor, state: NeuronState = REST) -> tuple[Tensor, NeuronState]:
        """From axons to the soma's potential (B, N, T): everything before the neuron fires."""
        rate, lingering, places = self._stage(self._dendritic, activity, state.sheet, state.places)
        current = self.summation(rate)  # (B, N, T)
        steps = current.shape[2]
        current, memory = after(state.current, current, self.soma.time_steps)
        potential = self._somatic(current, steps)
        return potential, NeuronState(lingering, memory, state.output, places)

    def _stage(self, stage: Callable[..., Any], *arguments: Any) -> Any:
        """A stage's result; with `checkpoint` nothing inside is kept for the backward pass."""
        if self.checkpoint:
            return recomputed(stage, self, *arguments)
        return stage(*arguments)

    def _dendritic(
        self, activity: Tensor, past: Tensor | None, places: DropoutState | None
    ) -> tuple[Tensor, Tensor, DropoutState | None]:
        """From axons to the dendrites' rates (B, N, T, D'), and what lingers on the sheet.

        Run again in the backward pass, it runs its own two ends a third time, one by one: so that
        sheet and potentials are there, and not all that was made on the way to them.
        """
        sheet, places = self._stage(self._synaptic, activity, places)
        steps = sheet.shape[2]
        sheet, lingering = after(past, sheet, self.time_steps)
        potential = self.dendrites(sheet, steps)  # (B, N * C, T, P', D')
        return self._stage(self._rate, potential), lingering, places

    def _synaptic(
        self, activity: Tensor, places: DropoutState | None
    ) -> tuple[Tensor, DropoutState | None]:
        """From axons to potentials on the sheet."""
        sheet = self.synapses(activity)  # (B, N * C, T, P, D)
        sheet = self.threshold_norm(sheet)
        if isinstance(self.unit_dropout, PoissonDropout):
            return self.unit_dropout.stream(sheet, places)
        return sheet, places

    def _rate(self, potential: Tensor) -> Tensor:
        """From filtered potentials (B, N * C, T, P', D') to the dendrites' rates."""
        if self.transmitters > 1:
            potential = potential.unflatten(1, (-1, self.transmitters)).sum(2)
        potential = self.spike(self._normalise_dendrites(potential))
        rate: Tensor = self.dendritic_rate(potential)  # (B, N, T, D')
        return rate

    def _somatic(self, current: Tensor, steps: int | None = None) -> Tensor:
        """The soma's potential at the last steps of a current (B, N, T)."""
        potential = self.soma(current)
        if steps is not None:
            potential = last(steps, potential)
        potential = self.soma_norm(potential)
        return potential if self.bias is None else potential + self.bias[:, None]

    def joins_stages(self, batch: int, steps: int, *, evaluation: bool = False) -> bool:
        """Whether a window of so many samples and steps runs from axons to soma as one stage.

        It does where nothing acts between synapses, filter and rectifier, and a product of small
        matrices is the fastest backend: the sheet is then never in memory (`kernels.tree_sum`).
        Hooks on the stages in between are met stage by stage.
        """
        stages = (self.synapses, self.dendrites, self.dendritic_rate, self.summation)
        known = (SparseSynapses, DendriticConv, DendriticRate, DendriticSummation)
        if tuple(map(type, stages)) != known or self.transmitters > 1:
            return False
        if not all(map(is_absent, (self.threshold_norm, self.dendritic_norm, self.spike))):
            return False
        dropout = self.unit_dropout
        if not (
            is_absent(dropout)
            or (isinstance(dropout, PoissonDropout) and (evaluation or not dropout.acts))
        ):
            return False
        if is_watched(*stages):
            return False
        gradients = torch.is_grad_enabled() and not evaluation
        return self.dendrites.joins(batch, steps, self.tree().axons, gradients)

    def tree(self) -> Tree:
        """How its trees are built; of sparse synapses alone."""
        assert isinstance(self.synapses, SparseSynapses)
        rate = self.dendritic_rate
        return Tree(
            self.synapses.wiring, self.synapses.sheet_shape, self.dendrites.mode,
            self.synapses.is_claw(), rate.reduction, rate.linear,
        )  # fmt: skip

    def _joined_current(self, activity: Tensor) -> Tensor:
        """The summed current (B, N, T) of the dendrites, by one stage."""
        assert isinstance(self.synapses, SparseSynapses)
        self.synapses.check(activity)
        tree = self.tree()
        weight, filters = self.synapses.effective_weight(), self.dendrites.taps()
        weight = weight.to(filters.dtype)
        if autocast_dtype(activity) is None:
            activity = activity.to(filters.dtype)
        responses = None
        if not self.training and not native_tree.takes(activity, weight, filters, tree):
            sources = (*self.synapses.weight_sources(), self.dendrites.weight)
            numbers = response_numbers(filters.shape, tree)
            make = partial(tree_responses, weight, filters, tree)
            responses = self._responses.get(sources, tree.claw, numbers, make)
        total = tree_current(activity, weight, filters, self.dendrites.bias, tree, responses)
        return self.summation.law_of(total * self.summation.scale)

    def train(self, mode: bool = True) -> Self:
        """As nn.Module's; what evaluation kept of weights and filters is dropped."""
        self._responses.clear()
        return super().train(mode)

    def fire(self, potential: Tensor, state: NeuronState) -> tuple[Tensor, NeuronState]:
        """From the soma's potential (B, N, T) to what the axon carries, and the state after it."""
        rate, waiting = self.output.stream(self.firing(potential), state.output)
        return rate, state._replace(output=waiting)

    def _normalise_dendrites(self, potential: Tensor) -> Tensor:
        norm = self.dendritic_norm
        if is_absent(norm):
            return potential
        columns = potential.movedim(4, 2)  # (B, N, D', T, P')
        # In the order of memory: torch.compile takes a batch norm's gradient to lie as its input.
        normal = along_axis(columns.flatten(1, 2), 1, lambda x: norm(x.unsqueeze(3)).squeeze(3))
        return normal.unflatten(1, columns.shape[1:3]).movedim(2, 4)

    def closed_form(
        self, activity: torch.Size, *, resumed: bool = False, streamed: bool = False
    ) -> tuple[Cost, ...]:
        """One row for each stage, in evaluation.

        The rows hold all that runs, biases and norms included.

        Args:
            activity: (B, F, T) or (B, F).
            resumed: the stretch starts from a state, whose steps the filters read once more.
            streamed: it runs by `stream` or `integrate`: one stage after another, from rest too.
        """
        return population_costs(self, activity, resumed=resumed, streamed=streamed)
