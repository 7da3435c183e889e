"""Effective filters, the products of synaptic weights and taps: each axon's effect on the branches.

The axon of a dendritic claw ends on all sites of one dendrite. Its effect on a branch is the sum
over those sites of weight times tap: a correlation of the dendrite's weights with the filter along
the sites. Taps that lie off the sheet across the dendrites are zeros.

Shapes: N neurons, S synapses, P sites, D dendrites, K time taps, K_P x K_D taps on the sheet; A
inputs of one tree, O = P' * D' output branches, dendrite by dendrite.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels.constants import constant
from neuroconv.kernels.conv.sizes import Mode, output_size, padding, plain_sizes
from neuroconv.kernels.conv.toeplitz import toeplitz_matrices, toeplitz_transpose
from neuroconv.kernels.operator import needs_reference

Reduction = Literal["mean", "sum", "max"]


class TreeSpec(NamedTuple):
    """Wiring and shape of a population's trees, without learned parameters."""

    wiring: Tensor  # the axon of each synapse, (N, S)
    sheet: tuple[int, int]  # (P, D); synapses fill it dendrite by dendrite
    mode: Mode
    claw: bool  # the sites of a dendrite share one axon
    reduction: Reduction  # how the rates of a dendrite's sites are reduced
    linear: bool  # the control without the dendritic rectifier

    @classmethod
    def unpack(cls, values: Sequence[Any]) -> "TreeSpec":
        """Returns the trees of an operator's arguments."""
        wiring, sheet, *rest = values
        return cls(wiring, (sheet[0], sheet[1]), *rest)

    @property
    def presynaptic(self) -> Tensor:
        """Presynaptic axons of each tree, (N, A)."""
        return self.wiring[:, :: self.sheet[0]] if self.claw else self.wiring

    @property
    def fan_in(self) -> int:
        """Axons A of one tree."""
        synapses = int(self.wiring.shape[1])
        return -(-synapses // self.sheet[0]) if self.claw else synapses


class TreeOperands(NamedTuple):
    """The operands of `kernels.tree_sum`, which works in the activity's precision."""

    activity: Tensor  # (B, F, T)
    weight: Tensor  # (N, S)
    filters: Tensor  # (N, K, K_P, K_D)
    bias: Tensor | None  # (N, D')
    tree: TreeSpec

    @classmethod
    def unpack(cls, arguments: Sequence[Any]) -> tuple["TreeOperands", Any, Any]:
        """Splits an operator's arguments into the operands and its last two arguments."""
        activity, weight, filters, bias, *spec, first, second = arguments
        return cls(activity, weight, filters, bias, TreeSpec.unpack(spec)), first, second


def merge_costs(filters: torch.Size, synapses: int, tree: TreeSpec) -> tuple[int, int]:
    """Counts the multiply-adds, and the FLOPs beside them, that merge all weights and taps."""
    neurons, k_time, branches, across = filters
    rows, cols = output_size(tree.sheet, (branches, across), tree.mode)
    if tree.claw:
        return neurons * k_time * (across + 1) * branches * tree.sheet[1] * rows, 0
    return 0, neurons * k_time * synapses * rows * cols


class EffectiveFilters:
    """A merger of weights and taps, for any neurons of a population.

    Shape:
        weight (N, S), filters (N, K, K_P, K_D) -> effective filters (N, K * A, O)
    """

    def __init__(self, filters: Tensor, tree: TreeSpec) -> None:
        self.tree, self.k_time = tree, int(filters.shape[1])
        sizes = (*plain_sizes(filters)[1:], *tree.sheet, tree.fan_in, tree.mode)
        self.claw = _claw(*sizes, filters.device) if tree.claw else None

    def merge(self, weight: Tensor, filters: Tensor) -> Tensor:
        """Computes the effective filters, (N, K * A, O)."""
        if self.claw is not None:
            return self.claw.merge(weight, filters)
        # Positions beyond the synapses have no axon.
        taps = self._spread(filters)[:, :, : weight.shape[1]]
        return (taps * weight[:, None, :, None]).flatten(1, 2)

    def gradients(
        self, grad: Tensor, weight: Tensor, filters: Tensor, needs: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Computes the gradients of weights and filters, None where not needed, in the precision of
        `grad`, that of the effective filters."""
        weight, filters = weight.to(grad.dtype), filters.to(grad.dtype)
        if self.claw is not None:
            return self.claw.gradients(grad, weight, filters, needs)
        to_weight = to_filters = None
        grad = grad.unflatten(1, (self.k_time, -1))
        sheet = self.tree.sheet
        if needs[0]:
            to_weight = (self._spread(filters)[:, :, : weight.shape[1]] * grad).sum((1, 3))
        if needs[1]:
            empty = sheet[0] * sheet[1] - weight.shape[1]
            padded_grad = F.pad(grad * weight[:, None, :, None], (0, 0, 0, empty)).flatten(1, 2)
            to_filters = toeplitz_transpose(padded_grad, filters.shape, sheet, self.tree.mode)
        return to_weight, to_filters

    def _spread(self, filters: Tensor) -> Tensor:
        return toeplitz_matrices(filters, self.tree.sheet, self.tree.mode).unflatten(
            1, (self.k_time, -1)
        )


class _Claw:
    """The merger of claws: a product along the sites, then a gather across the dendrites."""

    def __init__(self, *sizes: Any) -> None:
        self.k_time, self.branches, self.across, *sheet, self.axons, mode, device = sizes
        self.sites, self.dendrites = sheet
        self.along = padding(self.branches, mode)
        self.sideways = padding(self.across, mode)
        taps = (self.branches, self.across)
        self.rows, self.cols = output_size((self.sites, self.dendrites), taps, mode)
        self.positions = self._gather_index(device)
        self.scatter_index = self._scatter_index(device)

    def merge(self, weight: Tensor, filters: Tensor) -> Tensor:
        along = self.along_sites(weight, filters).flatten(1)
        merged = along.gather(1, self.positions.expand(len(filters), -1))
        return merged.view(len(filters), self.k_time * self.axons, self.rows * self.cols)

    def along_sites(self, weight: Tensor, filters: Tensor) -> Tensor:
        """Correlates weights and taps along the sites; a tap of zeros stands for missing ones."""
        taps = F.pad(filters, (0, 1)).transpose(2, 3).flatten(1, 2)  # (N, K * (K_D + 1), K_P)
        return torch.bmm(taps, self._windows(weight).transpose(1, 2))

    def gradients(
        self, grad: Tensor, weight: Tensor, filters: Tensor, needs: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        numbers = F.pad(grad.reshape(len(grad), -1), (0, 1))
        along = numbers.gather(1, self.scatter_index.expand(len(grad), -1))
        along = along.view(len(grad), self.k_time * self.across, -1)
        to_weight = to_filters = None
        if needs[0]:
            taps = filters.transpose(2, 3).flatten(1, 2)
            windows = torch.bmm(along.transpose(1, 2), taps)
            windows = windows.view(-1, self.dendrites, self.rows, self.branches)
            padded = sum(self.along) + self.sites
            sheet = windows.new_zeros(len(along), self.dendrites, padded)
            for branch in range(self.branches):
                sheet[:, :, branch : branch + self.rows] += windows[..., branch]
            inner = sheet[:, :, self.along[0] : self.along[0] + self.sites]
            to_weight = inner.flatten(1)[:, : weight.shape[1]]
        if needs[1]:
            taps = torch.bmm(along, self._windows(weight))
            shape = (-1, self.k_time, self.across, self.branches)
            to_filters = taps.view(shape).transpose(2, 3)
        return to_weight, to_filters

    def _windows(self, weight: Tensor) -> Tensor:
        """Returns the weights that each branch reads, (N, D * P', K_P)."""
        sheet = F.pad(weight, (0, self.sites * self.dendrites - weight.shape[1]))
        padded = F.pad(sheet.unflatten(1, (self.dendrites, self.sites)), self.along)
        if needs_reference():  # `vmap` has no rule for the gradient of unfold, and warns
            rows = torch.arange(self.rows, device=weight.device)
            branches = torch.arange(self.branches, device=weight.device)
            return padded[:, :, rows[:, None] + branches].flatten(1, 2)
        return padded.unfold(2, self.branches, 1).flatten(1, 2)

    def _gather_index(self, device: torch.device) -> Tensor:
        """Returns the indices into (K, K_D + 1, D, P') that give (K, A, D', P')."""
        presynaptic = torch.arange(self.axons, device=device)[:, None]
        tap = presynaptic + self.sideways[0] - torch.arange(self.cols, device=device)
        tap = torch.where((tap >= 0) & (tap < self.across), tap, self.across)
        column = tap * self.dendrites + presynaptic  # (A, D')
        step = torch.arange(self.k_time, device=device) * ((self.across + 1) * self.dendrites)
        return self._with_rows(step[:, None, None] + column)

    def _scatter_index(self, device: torch.device) -> Tensor:
        """Returns the indices into (K, A, D', P') that give (K, K_D, D, P'), its size for none."""
        presynaptic = torch.arange(self.dendrites, device=device)
        out = presynaptic + self.sideways[0] - torch.arange(self.across, device=device)[:, None]
        reached = (out >= 0) & (out < self.cols) & (presynaptic < self.axons)  # (K_D, D)
        step = torch.arange(self.k_time, device=device) * (self.axons * self.cols)
        index = self._with_rows(step[:, None, None] + presynaptic * self.cols + out)
        last = self.k_time * self.axons * self.cols * self.rows
        reached = reached.flatten().repeat_interleave(self.rows).repeat(self.k_time)
        return torch.where(reached, index, last)

    def _with_rows(self, column: Tensor) -> Tensor:
        row = torch.arange(self.rows, device=column.device)
        return (column.flatten()[:, None] * self.rows + row).flatten()


_claw = constant(_Claw)
