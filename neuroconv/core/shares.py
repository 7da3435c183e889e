"""The neurons of a population that one process holds, where several hold a population together."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

# Numbers drawn at once: a multiple of 16, since torch draws normal ones by sixteens.
_BLOCK = 1 << 22


class NeuronShare(NamedTuple):
    """The neurons of a population, `rows`, that the process `rank` of `size` holds."""

    neurons: int  # of all processes
    rank: int = 0
    size: int = 1

    @property
    def local(self) -> int:
        return self.neurons // self.size

    @property
    def rows(self) -> slice:
        return slice(self.rank * self.local, (self.rank + 1) * self.local)


_WHOLE = NeuronShare(0)
_SHARE = ContextVar("share", default=_WHOLE)


@contextmanager
def share_of(
    neurons: int, rank: int | None = None, size: int | None = None
) -> Iterator[NeuronShare]:
    """Returns the share of a population that is being built inside the context: all its neurons, or
    inside `share_of(0, rank, size)` those of a process. What `size` does not divide stays whole."""
    outer = _SHARE.get()
    share = NeuronShare(
        neurons, outer.rank if rank is None else rank, outer.size if size is None else size
    )
    share = NeuronShare(neurons) if neurons % share.size else share
    token = _SHARE.set(share)
    try:
        yield share
    finally:
        _SHARE.reset(token)


def draw(tensor: Tensor, fill: Callable[[Tensor], object]) -> None:
    """Fills a tensor of a share's rows with what `fill` gives these rows of the tensor of all
    neurons, which is drawn a block at a time: on the CPU the same numbers, to the bit."""
    share = _SHARE.get()
    if share.size == 1 or tensor.is_meta:
        fill(tensor)
        return
    numbers = tensor.detach().view(-1)
    start, total = share.rank * len(numbers), share.size * len(numbers)
    # No block has less than 16 numbers but a single one.
    for low, high in pairwise([*range(0, max(total - 16, 1), _BLOCK), total]):
        block = numbers.new_empty(high - low)
        fill(block)
        first, last = max(low, start), min(high, start + len(numbers))
        if first < last:
            numbers[first - start : last - start] = block[first - low : last - low]
