"""The kernels of small dendritic trees, `trees.cpp`.

Shapes: N neurons, T time steps, K taps in time, K_P x K_D on the sheet; A inputs of a tree; C
dendrites of R sites come out, O = C * R; B samples.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels.native.call import bits, call, memory, whole

ROWS, FEW_ROWS = 7, 4  # of a block, as in trees.cpp
# Numbers that a call holds beside its operands: more neurons take more calls.
_MOST_NUMBERS = 1 << 24


class TapIndex(NamedTuple):
    """Which taps join a tree's inputs and branches; see trees.cpp and taps.h.

    Attributes:
        sheet: (P, D), of the synapses.
        rows: R.
        place: (C, A), where the taps are packed by which an input acts on a dendrite's sites.
        first, last: (C,), the inputs that act on a dendrite.
        line: packed numbers of a tap across the dendrites; of a claw, of a column.
        before, sideways: sites before its own, and dendrites, that a filter reaches.
        claw: inputs are dendrites, and end on all their sites; or else they are sites.
    """

    sheet: tuple[int, int]
    rows: int
    place: Tensor
    first: Tensor
    last: Tensor
    line: int
    before: int
    sideways: int
    claw: bool

    @property
    def outputs(self) -> int:
        """O."""
        return self.rows * len(self.first)


def multiplied_sites(sites: int, rows: int, branches: int) -> int:
    """Pairs of a site and one that comes out that are multiplied, zeros among them."""
    if sites == 1:
        return rows
    blocks = -(-rows // (FEW_ROWS if branches <= FEW_ROWS else ROWS))
    return rows * min(sites, -(-rows // blocks) + branches - 1)


class TreeInputs(NamedTuple):
    """What trees hear.

    Attributes:
        numbers: in whatever order of memory.
        first: (N, A), where each input's first step and sample lies, in numbers from the first; or
            (A,) of all neurons alike.
        step, sample: numbers from one step, one sample to the next.
        steps: T.
        samples: B.
        cell: numbers from one neuron to the next, beside what `first` says.
    """

    numbers: Tensor
    first: Tensor
    step: int
    sample: int
    steps: int
    samples: int
    cell: int = 0


def whole_vectors(samples_last: Tensor) -> Tensor:
    """(..., B) -> (..., B'), contiguous, with zeros for samples that are not there."""
    missing = whole(samples_last.shape[-1]) - samples_last.shape[-1]
    padded = F.pad(samples_last, (0, missing)) if missing else samples_last
    return padded.contiguous()  # padding keeps an order of memory that it knows


class Trees:
    """Some neurons' trees.

    Args:
        inputs: of these neurons.
        neurons: N of all, that potentials and sums are of.
        weight: of each synapse, (n, S), or None: of each input, if it is no claw.
        filters: (n, K, K_P, K_D).
        bias: (n, C), or None.
        steps: how many of the last steps come out.
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
        self.samples, fan_in = whole(inputs.samples), self.index.shape[-1]
        _, k_time, branches, across = filters.shape
        synapses = 0 if self.weight is None else self.weight.shape[1]
        assert taps.claw or synapses in (0, fan_in)
        self.numbers = torch.tensor(
            [
                len(filters), neurons, self.samples, inputs.steps, k_time, fan_in,
                len(taps.first), taps.rows, taps.line, inputs.step, inputs.sample,
                inputs.samples, inputs.steps - steps, inputs.cell, fan_in * (self.index.dim() - 1),
                *taps.sheet, branches, across, taps.before,
                taps.sideways, int(taps.claw), synapses,
            ],
            device="cpu",
        )  # fmt: skip
        self._operands = (
            self.numbers, memory(inputs.numbers), self.index, self.weight, self.filters,
            taps.place, taps.first, taps.last, self.bias,
        )  # fmt: skip

    def potentials(self, result: Tensor) -> None:
        """Written to these neurons' part of (steps, N, O, B')."""
        self._call("trees_forward", 0, 1.0, memory(result), None, None)

    def total(
        self, linear: bool, share: float, result: Tensor, passes: Tensor | None = None
    ) -> None:
        """The sum of rates times `share`, written to these neurons' part of (steps, N, B').

        Args:
            passes: room for `bits`, to be bits_memory which potentials are above zero.
        """
        bits_memory = None if passes is None else memory(passes)
        self._call("trees_forward", int(linear), share, None, memory(result), bits_memory)

    def bits(self, steps: int) -> Tensor:
        """Room for one bit of each of all potentials: of a vector's in one number."""
        rows = (len(self.filters), steps, self.taps.outputs)
        return bits(*rows, of=self.samples, like=self.filters)

    def gradients(
        self,
        grad: Tensor,
        needs: Sequence[bool],
        share: float | None = None,
        passes: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Gradients to the inputs (n, T, A, B'), weights, filters and bias, None for one nobody
        needs.

        Args:
            grad: these neurons' part of that of potentials (steps, N, O, B'), or with a share of
                the sum of rates times it, (steps, N, B').
            passes: what `total` bits_memory; None without a rectifier.
        """
        shape = (len(self.filters), self.inputs.steps, self.index.shape[-1], self.samples)
        back = grad.new_empty(shape) if needs[0] else None
        weight = None if self.weight is None or not needs[1] else torch.empty_like(self.weight)
        filters = torch.empty_like(self.filters) if needs[2] else None
        bias = None
        if needs[3]:
            bias = grad.new_empty(len(self.filters), len(self.taps.first))
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
    """Neurons, so many of which hold so many numbers each."""
    width = max(1, _MOST_NUMBERS // max(1, numbers))
    for first in range(0, neurons, width):
        yield slice(first, min(first + width, neurons))
