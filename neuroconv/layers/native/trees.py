"""The kernels of small dendritic trees, `trees.cpp`.

Shapes: N neurons, T time steps, K taps in time, A inputs of a tree; C dendrites of R sites come
out, O = C * R; B samples; S taps of one neuron and time tap, as they are packed.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.layers.native.call import call, memory, whole

ROWS, FEW_ROWS = 7, 4  # of a block, as in trees.cpp
LEAST_SAMPLES = 4  # fewer leave most of a vector empty
# Numbers that a call holds beside its operands: more neurons take more calls.
_MOST_NUMBERS = 1 << 24


class Reach(NamedTuple):
    """Which taps join a tree's inputs and branches; see trees.cpp.

    Attributes:
        rows: R.
        place: (C, A), where in S the taps lie by which an input acts on a dendrite's sites.
        first, last: (C,), the inputs that act on a dendrite.
        numbers: S.
        sites: that inputs are of each dendrite; 1 where an input reaches a whole dendrite.
        branches: of the filter.
        before: sites before its own that a filter reaches.
    """

    rows: int
    place: Tensor
    first: Tensor
    last: Tensor
    numbers: int
    sites: int = 1
    branches: int = 1
    before: int = 0

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


class Heard(NamedTuple):
    """What trees hear.

    Attributes:
        numbers: in whatever order of memory.
        first: (N, A), where each input's first step and sample lies, in numbers from the first.
        step, sample: numbers from one step, one sample to the next.
        steps: T.
        samples: B.
    """

    numbers: Tensor
    first: Tensor
    step: int
    sample: int
    steps: int
    samples: int


def whole_vectors(samples_last: Tensor) -> Tensor:
    """(..., B) -> (..., B'), contiguous, with zeros for samples that are not there."""
    missing = whole(samples_last.shape[-1]) - samples_last.shape[-1]
    padded = F.pad(samples_last, (0, missing)) if missing else samples_last
    return padded.contiguous()  # padding keeps an order of memory that it knows


class Trees:
    """Some neurons' trees.

    Args:
        heard: by these neurons.
        neurons: N of all, that potentials and sums are of.
        weight: of each input, (n, A), or None.
        taps: (n, K, S).
        bias: (n, C), or None.
        steps: how many of the last steps come out.
    """

    def __init__(
        self,
        heard: Heard,
        neurons: int,
        reach: Reach,
        weight: Tensor | None,
        taps: Tensor,
        bias: Tensor | None,
        steps: int,
    ) -> None:
        self.heard, self.reach = heard, reach
        self.index = heard.first.contiguous()
        self.weight = None if weight is None else weight.contiguous()
        self.taps, self.bias = taps.contiguous(), None if bias is None else bias.contiguous()
        self.samples = whole(heard.samples)
        self.numbers = torch.tensor(
            [
                len(taps), neurons, self.samples, heard.steps, taps.shape[1], self.index.shape[1],
                len(reach.first), reach.rows, reach.numbers, heard.step, heard.sample,
                heard.samples, heard.steps - steps, reach.sites, reach.branches, reach.before,
            ],
            device="cpu",
        )  # fmt: skip
        self._operands = (
            self.numbers, memory(heard.numbers), self.index, self.weight, self.taps, reach.place,
            reach.first, reach.last, self.bias,
        )  # fmt: skip

    def potentials(self, result: Tensor) -> None:
        """Written to these neurons' part of (steps, N, O, B')."""
        self._call("trees_forward", 0, 1.0, memory(result), None)

    def total(self, linear: bool, share: float, result: Tensor) -> None:
        """The sum of rates times `share`, written to these neurons' part of (steps, N, B')."""
        self._call("trees_forward", int(linear), share, None, memory(result))

    def gradients(
        self,
        grad: Tensor,
        sums: bool,
        linear: bool,
        share: float,
        asked: tuple[bool, bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Gradients to what is heard (n, T, A, B'), weights, taps and bias, where asked for.

        Args:
            grad: these neurons' part of that of potentials (steps, N, O, B'), or with `sums` of
                the sum of rates times `share`, (steps, N, B').
        """
        inputs = self.index.shape[1]
        shape = (len(self.taps), self.heard.steps, inputs, self.samples)
        back = grad.new_empty(shape) if asked[0] else None
        weight = None if self.weight is None or not asked[1] else torch.empty_like(self.weight)
        taps = torch.empty_like(self.taps) if asked[2] else None
        bias = None
        if asked[3]:
            bias = grad.new_empty(len(self.taps), len(self.reach.first))
        found = (back, weight, taps, bias)
        stage = (int(sums), int(linear), share)
        self._call("trees_backward", *stage, memory(grad), *found)
        return found

    def scatter(self, back: Tensor, rows: Tensor) -> None:
        """Adds what `gradients` gave for what is heard to the rows it was heard from."""
        call("trees_scatter", back, self.numbers, back, self.index, rows)

    def _call(self, name: str, *rest: Any) -> None:
        call(name, self.heard.numbers, *self._operands, *rest)


def cells_at_once(neurons: int, numbers: int) -> Iterator[slice]:
    """Neurons, so many of which hold so many numbers each."""
    width = max(1, _MOST_NUMBERS // max(1, numbers))
    for first in range(0, neurons, width):
        yield slice(first, min(first + width, neurons))
