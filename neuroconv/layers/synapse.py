"""Synapses: from the activity of axons to potentials on the dendritic sheet.

Shapes: B batch, F axons (in_features), N neurons, T time steps, S synapses of a neuron,
P sites along a dendrite, D dendrites.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.layers.checks import check_positive, check_room, check_sizes
from neuroconv.layers.cost import Cost


class _Synapses(nn.Module):
    """What dense and sparse synapses share: sizes, and the lay-out of synapses on the sheet."""

    def __init__(
        self, in_features: int, neurons: int, sheet_shape: tuple[int, int], synapses: int | None
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, neurons=neurons)
        sites, dendrites = check_sizes("sheet_shape", sheet_shape, ("sites", "dendrites"))
        self.sheet_shape = (sites, dendrites)
        places = sites * dendrites
        self.in_features, self.neurons = in_features, neurons
        self.synapses = places if synapses is None else synapses
        check_room(self.synapses, self.sheet_shape)

    def check(self, activity: Tensor) -> None:
        if activity.dim() != 3 or activity.shape[1] != self.in_features or not activity.shape[2]:
            raise ValueError(
                f"activity has shape {tuple(activity.shape)}; expected "
                f"(batch, {self.in_features} axons, time_steps)"
            )

    def on_sheet(self, potential: Tensor) -> Tensor:
        """Lays (N, S, T, B) potentials on (B, N, T, P, D); places without a synapse stay at zero.

        The result is a view that keeps dendrites, sites and steps together and the batch innermost,
        which is how the matrix product of `dendritic_conv` reads it.
        """
        sites, dendrites = self.sheet_shape
        empty = sites * dendrites - self.synapses
        if empty:
            potential = F.pad(potential, (0, 0, 0, 0, 0, empty))
        return potential.unflatten(1, (dendrites, sites)).permute(4, 0, 3, 2, 1)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, neurons={self.neurons}, "
            f"sheet_shape={self.sheet_shape}, synapses={self.synapses}"
        )


class SparseSynapses(_Synapses):
    """Each synapse listens to one axon, with one weight (vesicles released x receptors present).

    Args:
        wiring: axon of each synapse, (N, S) integers; see `neuroconv.layers.wiring`.
        in_features: number of axons F.
        sheet_shape: (sites P, dendrites D). With S < P * D the last places have no synapse.

    Shape:
        activity (B, F, T) -> sheet (B, N, T, P, D)

    Raises:
        ValueError: sizes that disagree or are not positive; at the call, activity of other shape.
    """

    wiring: Tensor

    def __init__(self, wiring: Tensor, in_features: int, sheet_shape: tuple[int, int]) -> None:
        if wiring.dim() != 2 or wiring.is_floating_point():
            raise ValueError(
                f"wiring is {wiring.dtype} of shape {tuple(wiring.shape)}; expected integers "
                "(neurons, synapses)"
            )
        if (
            not wiring.is_meta
            and wiring.numel()
            and not 0 <= wiring.min() <= wiring.max() < in_features
        ):
            raise ValueError(
                f"wiring names axons {int(wiring.min())} to {int(wiring.max())}; expected 0 to "
                f"{in_features - 1}, for in_features={in_features}"
            )
        super().__init__(in_features, wiring.shape[0], sheet_shape, wiring.shape[1])
        self.register_buffer("wiring", wiring)
        self.weight = nn.Parameter(torch.empty(wiring.shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Excitatory and of order one: the sign of an input's effect is left to the filter."""
        nn.init.uniform_(self.weight, 0.5, 1.5)

    def forward(self, activity: Tensor) -> Tensor:
        self.check(activity)
        batch, axons, time_steps = activity.shape
        # One row for each axon: rows are copied whole, several times faster than single numbers.
        # They are in the weights' precision: an axon's gradient sums over all that listen to it,
        # and in bfloat16, which autocast may bring, that sum would be off by several percent.
        rows = activity.permute(1, 2, 0).reshape(axons, time_steps * batch).to(self.weight.dtype)
        released = rows.index_select(0, self.wiring.flatten()) * self.weight.view(-1, 1)
        return self.on_sheet(released.view(self.neurons, self.synapses, time_steps, batch))

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        """One product for each synapse and step; nothing is summed, so no multiply-add."""
        count = self.neurons * self.synapses
        return (Cost("synapses", pointwise=activity[0] * activity[2] * count, synapses=count),)


class DenseSynapses(_Synapses):
    """Every synapse listens to all axons: the essay's matrix product.

    Args:
        in_features: number of axons F.
        neurons: number of neurons N.
        sheet_shape: (sites P, dendrites D).
        synapses: synapses S of a neuron (default: P * D); the last places have none.

    Shape:
        activity (B, F, T) -> sheet (B, N, T, P, D)

    Raises:
        ValueError: sizes that disagree or are not positive; at the call, activity of other shape.
    """

    def __init__(
        self,
        in_features: int,
        neurons: int,
        sheet_shape: tuple[int, int],
        synapses: int | None = None,
    ) -> None:
        super().__init__(in_features, neurons, sheet_shape, synapses)
        self.weight = nn.Parameter(torch.empty(neurons * self.synapses, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.in_features))

    def forward(self, activity: Tensor) -> Tensor:
        self.check(activity)
        potential = F.linear(activity.transpose(1, 2), self.weight)  # (B, T, N * S)
        split = potential.unflatten(2, (self.neurons, self.synapses))
        return self.on_sheet(split.permute(2, 3, 1, 0))

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        """One multiply-add for each weight and step. A synapse counts once for each axon."""
        weights = self.neurons * self.synapses * self.in_features
        macs = activity[0] * activity[2] * weights
        return (Cost("synapses", {"matmul": macs}, synapses=weights),)
