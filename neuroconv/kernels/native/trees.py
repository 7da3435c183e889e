"""The kernels of small dendritic trees, `trees.cpp`.

Shapes: N neurons, T time steps, K taps in time, K_P x K_D on the sheet; A inputs of a tree; C
output dendrites with R sites, O = C * R; B samples, B' of them with padding.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.counting import blocks
from neuroconv.kernels.native import call, memory, padded

ROWS, FEW_ROWS = 7, 4  # of a block, as in trees.cpp
# Numbers in a call's working memory: more neurons take more calls.
_MOST_NUMBERS = 1 << 24


class TapIndex(NamedTuple):
    """The taps between a tree's inputs and branches; see trees.cpp and taps.h."""

    sheet: tuple[int, int]  # (P, D), of the synapses
    rows: int  # R
    offset: Tensor  # (C, A), of the packed taps by which an input acts on a dendrite's sites
    first: Tensor  # (C,), the inputs that act on a dendrite are those from first
    last: Tensor  # (C,), to last
    line: int  # packed numbers of a tap across the dendrites; with a claw, of a column
    before: int  # sites by which a filter starts before its output
    sideways: int  # dendrites by which it starts before
    claw: bool  # inputs end on all sites of a dendrite instead of on one site

    @property
    def outputs(self) -> int:
        return self.rows * len(self.first)


def multiplied_sites(sites: int, rows: int, branches: int) -> int:
    """Counts the pairs of an input and an output site that are multiplied, zeros included."""
    if sites == 1:
        return rows
    blocks = -(-rows // (FEW_ROWS if branches <= FEW_ROWS else ROWS))
    return rows * min(sites, -(-rows // blocks) + branches - 1)


class TreeInputs(NamedTuple):
    """The inputs of trees, with their strides in memory."""

    numbers: Tensor  # with any strides
    first: Tensor  # offset of each input's first step and sample, (N, A), or (A,) for all neurons
    step: int  # stride of steps
    sample: int  # stride of samples
    steps: int  # T
    samples: int  # B
    cell: int = 0  # stride of neurons, added to `first`


def pad_samples(samples_last: Tensor) -> Tensor:
    """Pads (..., B) with zeros to whole vectors, (..., B'), contiguous."""
    missing = padded(samples_last.shape[-1]) - samples_last.shape[-1]
    result = F.pad(samples_last, (0, missing)) if missing else samples_last
    return result.contiguous()  # padding may keep another order of memory


class Trees:
    """The trees of n of N neurons.

    Args:
        weight: of each synapse, (n, S), or None for 1; without a claw S is A.
        filters: (n, K, K_P, K_D).
        bias: (n, C), or None.
        steps: how many of the last steps are computed.
    """

    def __init__(
        self,
        inputs: TreeInputs,
        neurons: int,
        taps: TapIndex,
        weight: Tensor | None,
        filters: Tensor,
        bias: Tensor | None,
        steps: int,
    ) -> None:
        self.inputs, self.taps = inputs, taps
        self.index = inputs.first.contiguous()
        self.weight = None if weight is None else weight.contiguous()
        self.filters = filters.contiguous()
        self.bias = None if bias is None else bias.contiguous()
        self.samples, fan_in = padded(inputs.samples), self.index.shape[-1]
        _, k_time, branches, across = filters.shape
        synapses = 0 if self.weight is None else self.weight.shape[1]
        assert taps.claw or synapses in (0, fan_in)
        self.numbers = (
            len(filters), neurons, self.samples, inputs.steps, k_time, fan_in,
            len(taps.first), taps.rows, taps.line, inputs.step, inputs.sample,
            inputs.samples, inputs.steps - steps, inputs.cell, fan_in * (self.index.dim() - 1),
            *taps.sheet, branches, across, taps.before, taps.sideways, int(taps.claw), synapses,
        )  # fmt: skip
        self._operands = (
            self.numbers, memory(inputs.numbers), self.index, self.weight, self.filters,
            taps.offset, taps.first, taps.last, self.bias,
        )  # fmt: skip

    def potentials(self, result: Tensor) -> None:
        """Writes the potentials to these neurons' part of (steps, N, O, B')."""
        self._call("trees_forward", 0, 1.0, memory(result), None, None)

    def total(
        self, linear: bool, share: float, result: Tensor, passes: Tensor | None = None
    ) -> None:
        """Writes the sum of rates times `share` to these neurons' part of (steps, N, B'), and to
        `passes` one bit of each potential: whether it is above zero."""
        bits_memory = None if passes is None else memory(passes)
        self._call("trees_forward", int(linear), share, None, memory(result), bits_memory)

    def gradients(
        self,
        grad: Tensor,
        needs: Sequence[bool],
        share: float | None = None,
        passes: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        """Computes the needed gradients of inputs (n, T, A, B'), weights, filters and bias.

        Args:
            grad: these neurons' part of the gradient of `potentials`, (steps, N, O, B'), or with a
                share of that of `total`, (steps, N, B').
            passes: the bits from `total`; None without a rectifier.
        """
        shape = (len(self.filters), self.inputs.steps, self.index.shape[-1], self.samples)
        back = grad.new_empty(shape) if needs[0] else None
        weight = None if self.weight is None or not needs[1] else torch.empty_like(self.weight)
        filters = torch.empty_like(self.filters) if needs[2] else None
        bias = grad.new_empty(len(self.filters), len(self.taps.first)) if needs[3] else None
        grads = (back, weight, filters, bias)
        sums, share = share is not None, 1.0 if share is None else share
        bits_memory = None if passes is None else memory(passes)
        self._call("trees_backward", int(sums), share, bits_memory, memory(grad), *grads)
        return grads

    def scatter(self, back: Tensor, rows: Tensor) -> None:
        """Adds the gradients of the inputs to the rows that they were gathered from."""
        call("trees_scatter", back, self.numbers, back, self.index, rows)

    def _call(self, name: str, *rest: Any) -> None:
        call(name, self.inputs.numbers, *self._operands, *rest)


def cells_at_once(neurons: int, numbers: int) -> Iterator[slice]:
    """Returns slices of neurons whose working memory, `numbers` each, fits one call."""
    return blocks(neurons, max(1, _MOST_NUMBERS // max(1, numbers)))
