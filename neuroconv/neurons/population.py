"""A population of neurons: the extended linear-nonlinear-Poisson cascade as one module.

Shapes: B batch, F axons that come in, N neurons, C transmitters, T time steps, P sites,
D dendrites.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from neuroconv.core.autocast import autocast_dtype
from neuroconv.core.checks import NORMS, Norm, check_choice, check_positive, check_sizes
from neuroconv.core.cost import Cost
from neuroconv.core.counting import is_watched
from neuroconv.core.layout import along_axis
from neuroconv.kernels import tree_sum_cpu as native_tree
from neuroconv.kernels.cache import FilterCache
from neuroconv.kernels.conv import Backend, Mode
from neuroconv.kernels.tree_sum import (
    Tree,
    response_numbers,
    tree_current,
    tree_responses,
)
from neuroconv.layers.cable import Cable
from neuroconv.layers.dendrite import DendriticConv, DendriticRate
from neuroconv.layers.poisson import (
    DropoutMode,
    DropoutScope,
    DropoutState,
    PoissonDropout,
    PoissonSpikes,
    ReleaseOrWait,
)
from neuroconv.layers.soma import FiringRate, SomaFilter
from neuroconv.layers.spike import DendriticSpike
from neuroconv.layers.summation import DendriticSummation, Law
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses
from neuroconv.layers.threshold import ThresholdNorm
from neuroconv.layers.wiring import dale_signs
from neuroconv.neurons.population_cost import population_costs
from neuroconv.neurons.presets import Physiology, Variant, preset
from neuroconv.neurons.recompute import recomputed
from neuroconv.neurons.state import REST, NeuronState, after, last
from neuroconv.neurons.wires import WIRINGS, Wiring, tree_wiring

Output = PoissonDropout | PoissonSpikes | ReleaseOrWait


class Population(nn.Module):
    """Neurons of one type, between axons and axons: fits into nn.Sequential as nn.Linear does.

    The cells of `neuroconv.neurons.cells` are this class, each with its presets. None as an
    argument takes the preset's value.

    Args:
        in_features: axons F that the population can listen to.
        out_features: neurons N.
        variant: whose numbers: "dettmers2015" (the essay's) or "literature"; default the essay's
            where it speaks of the cell.
        sheet_shape: (sites P, dendrites D).
        filter_shape: (branches, dendrites, time_steps) of each neuron's dendritic filter.
        synapses: synapses of one neuron, at most P * D; the last places stay empty.
        claw: the sites of a dendrite share one axon. With "sparse" and "receptive_field" wiring.
        mode: how the filter meets the sheet: "same" (the essay's cost), "valid", "per_dendrite".
        wiring: "sparse" (each synapse listens to one axon, drawn from `seed`), "parallel" (to one
            axon, in the order of the axons along the tree, the same for all neurons),
            "parallel_fibres" (to one of the fibres that cross the cell, drawn from `seed`), "dense"
            (to all axons), or "receptive_field" (a patch of the image that `in_features` flattens).
        image_shape: (channels, height, width), for "receptive_field" alone.
        patch: (height, width) of a receptive field; default the sheet's shape.
        crossed: neurons that one axon crosses, for "parallel_fibres" alone; default all.
        excitatory: Dale's law: the share of the incoming axons that excite, the others inhibit.
            None leaves the sign of every synapse free.
        vesicles: hold a synapse's weight as vesicles released x receptors present.
        transmitters: kinds C of transmitter. Each has its own weight at every synapse and its own
            dendritic filter, as an image has colours; the dendrites sum their potentials.
        threshold: synaptic potentials are normalised and held between rest and this threshold, in
            standard deviations; None leaves them as they are.
        norm: where potentials are batch-normalised: "none", at the "dendrites" (each dendrite of
            each neuron over batch, steps and sites), at the "soma" (each neuron over batch and
            steps), or at "both".
        cable: fill the filters with this cable's diffusion, at unit gain; None draws them at
            random.
        hold_cable: never train filters that a cable filled.
        spike: the dendritic spike; None has none.
        linear_dendrites: leave the dendritic rectifier out: the control, a neuron that is one dot
            product up to its soma.
        reduction: of a dendrite's rates over its sites: "mean", "sum" or "max".
        law: how the dendrites' rates sum: "linear", "sublinear", "supralinear" or "bistable", of
            their mean; or a `DendriticSummation` of your own, with its scale, knee and what it
            learns.
        soma_time_steps: taps of the soma's filter, shared by the population; 1 has no memory.
        soma_per_neuron: one soma filter for each neuron instead.
        mean_wait: Poisson dropout's mean waiting periods; 0 turns it off.
        dropout_mode: "wait", "redraw" or "independent".
        dropout_scope: "neuron" (a draw removes the neuron for all that listen to it) or "unit"
            (draws for each place on the neuron's own sheet).
        output: the output stage instead of Poisson dropout: `PoissonSpikes()`, `ReleaseOrWait()`.
        unit_taps: hold the dendritic taps in units of their initial standard deviation, which
            gives filters of any size the same pace of learning; see `DendriticConv`.
        backend: of the dendritic convolution.
        checkpoint: keep neither sheet nor dendritic potentials for the backward pass, which makes
            them anew: less memory for more time, for cells with large trees. Gradients, draws and
            running statistics are the same. Small trees that run as one stage keep nothing anyway,
            and a compiler decides for itself what to keep: there it changes nothing.
        seed: of the wiring.

    Shape:
        activity (B, F, T), or (B, F) taken as constant over the filter's time steps
        -> rate (B, N, T), never negative

    Raises:
        ValueError: a size or choice out of range; at the call, activity of another shape.
    """

    cell: ClassVar[str]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        variant: Variant | None = None,
        sheet_shape: tuple[int, int] | None = None,
        filter_shape: tuple[int, int, int] | None = None,
        synapses: int | None = None,
        claw: bool | None = None,
        mode: Mode = "same",
        wiring: Wiring = "sparse",
        image_shape: tuple[int, int, int] | None = None,
        patch: tuple[int, int] | None = None,
        crossed: int | None = None,
        excitatory: float | None = None,
        vesicles: bool = False,
        transmitters: int = 1,
        threshold: float | None = None,
        norm: Norm = "none",
        cable: Cable | None = None,
        hold_cable: bool = False,
        spike: DendriticSpike | None = None,
        linear_dendrites: bool = False,
        reduction: Literal["mean", "sum", "max"] = "mean",
        law: Law | DendriticSummation | None = None,
        soma_time_steps: int | None = None,
        soma_per_neuron: bool = False,
        mean_wait: float | None = None,
        dropout_mode: DropoutMode = "wait",
        dropout_scope: DropoutScope = "neuron",
        output: Output | None = None,
        unit_taps: bool = False,
        backend: Backend = "auto",
        checkpoint: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_positive(
            in_features=in_features, out_features=out_features, transmitters=transmitters
        )
        check_choice("norm", norm, NORMS)
        check_choice("wiring", wiring, WIRINGS)
        numbers = self.physiology(variant)
        if synapses is None and sheet_shape is None:
            synapses = numbers.synapses
        rows, dendrites = check_sizes(
            "sheet_shape",
            numbers.sheet_shape if sheet_shape is None else sheet_shape,
            ("sites", "dendrites"),
        )
        if filter_shape is None:
            filter_shape = numbers.filter_shape
        check_sizes("filter_shape", filter_shape, ("branches", "dendrites", "time_steps"))
        places = rows * dendrites
        synapses = places if synapses is None else synapses
        claw = numbers.claw if claw is None else claw
        self.in_features, self.out_features = in_features, out_features
        self.transmitters, self.time_steps = transmitters, filter_shape[-1]
        self.checkpoint = checkpoint

        wires = tree_wiring(
            in_features, out_features, (rows, dendrites), synapses, claw, wiring, image_shape,
            patch, crossed, seed,
        )  # fmt: skip
        signs = None if excitatory is None else dale_signs(in_features, excitatory, seed)
        self.synapses: SparseSynapses | DenseSynapses
        if wires is None:
            self.synapses = DenseSynapses(
                in_features, out_features, (rows, dendrites), synapses,
                signs=signs, vesicles=vesicles, transmitters=transmitters,
            )  # fmt: skip
        else:
            self.synapses = SparseSynapses(
                wires, in_features, (rows, dendrites),
                signs=signs, vesicles=vesicles, transmitters=transmitters,
                claw=claw and wiring in ("sparse", "receptive_field"),
            )  # fmt: skip
        trees = out_features * transmitters
        self.threshold_norm = (
            None
            if threshold is None
            else ThresholdNorm(trees, threshold, empty_places=places - synapses)
        )
        dropout = PoissonDropout(
            numbers.mean_wait if mean_wait is None else mean_wait, dropout_mode, dropout_scope
        )
        self.unit_dropout = dropout if dropout_scope == "unit" else None
        self.dendrites = DendriticConv(
            trees,
            (rows, dendrites),
            filter_shape,
            mode,
            backend,
            bias=norm not in ("dendrites", "both"),
            unit_taps=unit_taps,
        )
        if cable is not None:
            self.dendrites.diffuse(cable, hold=hold_cable, unit_gain=True)
        elif hold_cable:
            raise ValueError("hold_cable=True without a cable; give cable=Cable(...) to be held")
        columns = self.dendrites.out_shape[1]
        self.dendritic_norm = (
            nn.BatchNorm2d(out_features * columns) if norm in ("dendrites", "both") else None
        )
        self.spike = spike
        self.dendritic_rate = DendriticRate(reduction, linear_dendrites)
        self.summation = (
            law
            if isinstance(law, DendriticSummation)
            else DendriticSummation(law or numbers.summation, scale=1 / columns)
        )
        self.soma = SomaFilter(
            numbers.soma_time_steps if soma_time_steps is None else soma_time_steps,
            out_features if soma_per_neuron else None,
        )
        at_soma = norm in ("soma", "both")
        self.soma_norm = nn.BatchNorm1d(out_features) if at_soma else None
        self.bias = None if at_soma else nn.Parameter(torch.zeros(out_features))
        self.firing = FiringRate()
        self._responses = FilterCache()
        asked = (mean_wait, dropout_mode, dropout_scope) != (None, "wait", "neuron")
        if output is not None and asked:
            raise ValueError(
                f"output={output} and mean_wait={mean_wait}, dropout_mode={dropout_mode!r}, "
                f"dropout_scope={dropout_scope!r}; an output stage of your own replaces the "
                "Poisson dropout: give one of the two"
            )
        own = PoissonDropout(0.0) if dropout_scope == "unit" else dropout
        self.output: Output = own if output is None else output

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
        sheet, lingering = after(past, sheet, self.dendrites.filter_shape[-1])
        potential = self.dendrites(sheet, steps)  # (B, N * C, T, P', D')
        return self._stage(self._rate, potential), lingering, places

    def _synaptic(
        self, activity: Tensor, places: DropoutState | None
    ) -> tuple[Tensor, DropoutState | None]:
        """From axons to potentials on the sheet."""
        sheet = self.synapses(activity)  # (B, N * C, T, P, D)
        if self.threshold_norm is not None:
            sheet = self.threshold_norm(sheet)
        if self.unit_dropout is not None:
            return self.unit_dropout.stream(sheet, places)
        return sheet, places

    def _rate(self, potential: Tensor) -> Tensor:
        """From filtered potentials (B, N * C, T, P', D') to the dendrites' rates."""
        if self.transmitters > 1:
            potential = potential.unflatten(1, (-1, self.transmitters)).sum(2)
        if self.dendritic_norm is not None:
            potential = self._normalise_dendrites(potential)
        if self.spike is not None:
            potential = self.spike(potential)
        rate: Tensor = self.dendritic_rate(potential)  # (B, N, T, D')
        return rate

    def _somatic(self, current: Tensor, steps: int | None = None) -> Tensor:
        """The soma's potential at the last steps of a current (B, N, T)."""
        potential = self.soma(current)
        if steps is not None:
            potential = last(steps, potential)
        if self.soma_norm is not None:
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
        if (self.threshold_norm, self.dendritic_norm, self.spike) != (None, None, None):
            return False
        if self.unit_dropout is not None and self.unit_dropout.acts and not evaluation:
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
        assert self.dendritic_norm is not None
        norm = self.dendritic_norm
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
