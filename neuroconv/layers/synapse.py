"""Synapses: from the activity of axons to potentials on the dendritic sheet.

Shapes: B batch, F axons (in_features), N neurons, C transmitters, T time steps, S synapses of a
neuron, P sites along a dendrite, D dendrites.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import Seed, Share, Size, checked
from neuroconv.core.cost import Cost
from neuroconv.core.shares import draw
from neuroconv.kernels import stages
from neuroconv.kernels.cache import ClawCheck
from neuroconv.layers.tree_shape import Sheet, TreeShape
from neuroconv.layers.wiring import dale_signs


@checked
@dataclass(frozen=True)
class Synapse:
    """The weights of a population's synapses.

    Args:
        excitatory: Dale's law: the fraction of the incoming axons that excite, the others inhibit;
            see `dale_signs`. None leaves the sign of every synapse free.
        factorized: hold a weight as vesicles released x receptors present.
        transmitters: kinds C of transmitter, each with a weight at every synapse.
        seed: seed of the choice of excitatory axons.

    Raises:
        ValueError: transmitters that are not positive, a fraction outside of 0 to 1.
    """

    excitatory: Share | None = None
    factorized: bool = False
    transmitters: Size = 1
    seed: Seed = 0

    def signs(self, in_features: int) -> Tensor | None:
        """Draws the signs of F axons; None where they are free."""
        if self.excitatory is None:
            return None
        return dale_signs(in_features, self.excitatory, self.seed)


@checked
class _Synapses(nn.Module):
    """The base of dense and sparse synapses: sizes, parameters, and the layout on the sheet.

    The magnitudes are absolute values of the parameters. Unlike a softplus, that lets a synapse
    fall silent at zero, and leaves it a plain weight's gradient everywhere else.
    """

    weight: nn.Parameter | None
    vesicles: nn.Parameter | None
    receptors: nn.Parameter | None
    signs: Tensor | None

    def __init__(
        self,
        in_features: Size,
        neurons: Size,
        tree: TreeShape,
        signs: Tensor | None,
        transmitters: Size,
    ) -> None:
        super().__init__()
        self.in_features, self.neurons, self.transmitters = in_features, neurons, transmitters
        self.sheet_shape, self.synapses = tree.sheet, tree.filled
        if signs is not None:
            _check_signs(signs, in_features)
            signs = signs.to(torch.int8)
        self.register_buffer("signs", signs)

    def register_weight(self, shape: tuple[int, ...], factorized: bool) -> None:
        """Registers the parameters: `weight`, or the two factors whose product it is."""
        trained = ("vesicles", "receptors") if factorized else ("weight",)
        for name in ("weight", "vesicles", "receptors"):
            factor = nn.Parameter(torch.empty(shape)) if name in trained else None
            self.register_parameter(name, factor)

    def effective_weight(self) -> Tensor:
        """Returns the effective weights: `weight` or vesicles x receptors, with the axon's sign."""
        if self.vesicles is not None and self.receptors is not None:
            weight = (self.vesicles * self.receptors).abs()
        else:
            assert self.weight is not None
            weight = self.weight if self.signs is None else self.weight.abs()
        return weight if self.signs is None else self._signed(weight, self.signs)

    def _signed(self, magnitude: Tensor, signs: Tensor) -> Tensor:
        """Multiplies the weights by the signs of their axons."""
        raise NotImplementedError

    def weight_flops(self) -> int:
        """Counts FLOPs of `effective_weight` for one weight, once for a whole batch."""
        factors, signed = self.vesicles is not None, self.signs is not None
        return factors + (factors or signed) + signed

    def check(self, activity: Tensor) -> None:
        if activity.dim() != 3 or activity.shape[1] != self.in_features or not activity.shape[2]:
            raise ValueError(
                f"activity has shape {tuple(activity.shape)}; expected "
                f"(batch, {self.in_features} axons, time_steps)"
            )

    def on_sheet(self, potential: Tensor) -> Tensor:
        """Lays potentials of S or P * D positions, (N * C, S, T, B), on (B, N * C, T, P, D); empty
        positions stay zero.

        The batch is innermost in memory, as the matrix product of `dendritic_conv` reads it.
        """
        sites, dendrites = self.sheet_shape
        if empty := sites * dendrites - potential.shape[1]:
            potential = F.pad(potential, (0, 0, 0, 0, 0, empty))
        return potential.unflatten(1, (dendrites, sites)).permute(4, 0, 3, 2, 1)

    def extra_repr(self) -> str:
        text = (
            f"in_features={self.in_features}, neurons={self.neurons}, "
            f"sheet_shape={self.sheet_shape}, synapses={self.synapses}"
        )
        if self.signs is not None:
            text += ", signs"
        if self.vesicles is not None:
            text += ", factorized=True"
        return text if self.transmitters == 1 else f"{text}, transmitters={self.transmitters}"


@checked
class SparseSynapses(_Synapses):
    """Synapses that receive one axon each, with a weight for each transmitter.

    Args:
        wiring: axon of each synapse, (N, S) integers; see `neuroconv.layers.wiring`.
        in_features: number of axons F.
        sheet: (sites P, dendrites D). Synapses fill it dendrite by dendrite: with S < P * D the
            last positions have none.
        signs: Dale's law, +1 (excites) or -1 (inhibits) for each axon, (F,); see `dale_signs`. The
            effective weight is |weight| * signs[axon], for all transmitters of the axon. None:
            weights are free to take either sign.
        factorized: train two factors for each synapse instead of its weight: `vesicles`, released
            by the axon terminal, and `receptors`, present on the site. The product of their
            absolute values is the weight.
        transmitters: kinds C of transmitter. Each is a channel, as a colour is of an image: it has
            a weight at each synapse, and a sheet to be filtered; `TransmitterSum` adds them up.
        claw: whether the sites of each dendrite share one axon, for a wiring on meta; any other is
            compared.

    Attributes:
        weight: (N * C, S), row n * C + c; None if factorized.
        vesicles, receptors: of the same shape; None unless factorized.

    Shape:
        activity (B, F, T) -> sheet (B, N * C, T, P, D), neuron by neuron: sheet n * C + c

    Raises:
        ValueError: sizes that disagree or are not positive, or signs that are not +1 or -1; at the
            call, activity of other shape.
        TypeError: signs that are not a tensor.
    """

    kernel_stage: ClassVar[str] = "sparse_synapses"  # kernels know this class, no subclass
    wiring: Tensor

    def __init__(
        self,
        wiring: Tensor,
        in_features: Size,
        sheet: Sheet,
        *,
        signs: Tensor | None = None,
        factorized: bool = False,
        transmitters: Size = 1,
        claw: bool = False,
    ) -> None:
        if wiring.dim() != 2 or wiring.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"wiring is {wiring.dtype} of shape {tuple(wiring.shape)}; expected integers "
                "(neurons, synapses) of 64 or 32 bits"
            )
        readable = wiring.numel() and not wiring.is_meta
        if readable and not 0 <= wiring.min() <= wiring.max() < in_features:
            raise ValueError(
                f"wiring names axons {int(wiring.min())} to {int(wiring.max())}; expected 0 to "
                f"{in_features - 1}, for in_features={in_features}"
            )
        neurons, synapses = wiring.shape
        tree = TreeShape(sheet, synapses=synapses)
        super().__init__(in_features, neurons, tree, signs, transmitters)
        self.register_buffer("wiring", wiring)
        self.claw_check = ClawCheck(self.sheet_shape[0], claw)
        self.claw_check(wiring)
        self.register_weight((neurons * transmitters, synapses), factorized)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weights, or products of factors, of order one: their sign is left to the filter."""
        factors = list(self.parameters())
        share = 1 / len(factors)
        for factor in factors:
            draw(factor, partial(nn.init.uniform_, a=0.5**share, b=1.5**share))

    def weight_sources(self) -> tuple[Tensor, ...]:
        """Returns the tensors that `effective_weight` is computed from."""
        signed = () if self.signs is None else (self.signs, self.wiring)
        return (*self.parameters(), *signed)

    def _signed(self, magnitude: Tensor, signs: Tensor) -> Tensor:
        signs = signs.index_select(0, self.wiring.flatten()).view(self.neurons, 1, self.synapses)
        return (magnitude.view(self.neurons, -1, self.synapses) * signs).flatten(0, 1)

    def forward(self, activity: Tensor) -> Tensor:
        self.check(activity)
        batch, axons, time_steps = activity.shape
        weight = self.effective_weight()
        # One row for each axon: rows are copied whole, several times faster than single numbers.
        # They are in the weights' precision: an axon's gradient sums over all its synapses,
        # and in bfloat16, which autocast may bring, that sum would be off by several percent.
        rows = activity.permute(1, 2, 0).reshape(axons, time_steps * batch).to(weight.dtype)
        released = stages.release(rows, weight, self.wiring, math.prod(self.sheet_shape))
        return self.on_sheet(released.unflatten(2, (time_steps, batch)))

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        """Counts a product for each synapse, transmitter and step: no sum, so no multiply-add."""
        count = self.neurons * self.synapses
        products = activity[0] * activity[2] + self.weight_flops()
        return (Cost("synapses", pointwise=products * count * self.transmitters, synapses=count),)


@checked
class DenseSynapses(_Synapses):
    """Synapses that receive all axons each: the essay's matrix product.

    Shapes and errors are those of `SparseSynapses`.

    Args:
        in_features: number of axons F.
        neurons: number of neurons N.
        tree: its sheet and synapses, or a bare (sites P, dendrites D), all of them filled.
        signs, factorized, transmitters: as in `SparseSynapses`. Weights of one sign do not cancel:
            the potential of F active axons starts near sqrt(F) instead of 1, and a norm should
            follow.

    Attributes:
        weight: (N * C * S, F), row (n * C + c) * S + s; None if factorized.
        vesicles, receptors: of the same shape; None unless factorized.
    """

    def __init__(
        self,
        in_features: Size,
        neurons: Size,
        tree: TreeShape | Sheet,
        *,
        signs: Tensor | None = None,
        factorized: bool = False,
        transmitters: Size = 1,
    ) -> None:
        tree = tree if isinstance(tree, TreeShape) else TreeShape(tree)
        super().__init__(in_features, neurons, tree, signs, transmitters)
        self.register_weight((neurons * transmitters * self.synapses, in_features), factorized)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weights of mean square 1 / F; of two factors, their product has it."""
        factors = list(self.parameters())
        deviation = 1 / math.sqrt(self.in_features)
        for factor in factors:
            draw(factor, partial(nn.init.normal_, std=deviation ** (1 / len(factors))))

    def _signed(self, magnitude: Tensor, signs: Tensor) -> Tensor:
        return magnitude * signs

    def forward(self, activity: Tensor) -> Tensor:
        self.check(activity)
        weight = self.effective_weight()
        rows = activity.transpose(1, 2).to(weight.dtype)
        potential = F.linear(rows, weight)  # (B, T, N * C * S)
        split = potential.unflatten(2, (self.neurons * self.transmitters, self.synapses))
        return self.on_sheet(split.permute(2, 3, 1, 0))

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        """Counts a multiply-add for each weight and step. A synapse counts once for each axon."""
        synapses = self.neurons * self.synapses * self.in_features
        weights = synapses * self.transmitters
        macs = {"matmul": activity[0] * activity[2] * weights}
        flops = self.weight_flops() * weights
        return (Cost("synapses", macs, pointwise=flops, synapses=synapses),)


@checked
class TransmitterSum(nn.Module):
    """The sum of the potentials that C kinds of transmitter leave on a neuron's dendrites.

    Shape:
        potential (B, N * C, T, P, D) -> (B, N, T, P, D)
    """

    def __init__(self, kinds: Size) -> None:
        super().__init__()
        self.kinds = kinds

    def forward(self, potential: Tensor) -> Tensor:
        return potential if self.kinds == 1 else potential.unflatten(1, (-1, self.kinds)).sum(2)

    def extra_repr(self) -> str:
        return f"kinds={self.kinds}"


def _check_signs(signs: Tensor, in_features: int) -> None:
    expected = f"expected +1 or -1 for each of {in_features} axons, as `dale_signs` draws them"
    if signs.shape != (in_features,):
        raise ValueError(f"signs has shape {tuple(signs.shape)}; {expected}")
    if not signs.is_meta and (wrong := signs[(signs != 1) & (signs != -1)]).numel():
        raise ValueError(f"signs holds {wrong[0].item()}; {expected}")
