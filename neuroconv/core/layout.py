"""Layout in memory: the batch is innermost in sheets of synapses, outermost in maps of images."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor


def memory_order(x: Tensor) -> tuple[int, ...]:
    """Returns the axes from the outermost in memory to the innermost, far faster than dim_order."""
    strides = x.stride()
    return tuple(sorted(range(x.dim()), key=lambda axis: (-strides[axis], axis)))


def along_axis(x: Tensor, axis: int, stage: Callable[[Tensor], Tensor]) -> Tensor:
    """Runs a stage that keeps the shape on x folded to (before, x.shape[axis], after).

    Before and after are the axes outside and inside of it in memory, so that nothing is copied.
    """
    # A tracer (fvcore's) has no numbers to order the axes by, and what it records needs no speed.
    order = tuple(range(x.dim())) if torch.jit.is_tracing() else x.dim_order()
    position = order.index(axis % x.dim())
    ordered = x.permute(order)
    sizes = ordered.shape
    folded = ordered.reshape(prod(sizes[:position]), sizes[position], prod(sizes[position + 1 :]))
    back = [order.index(a) for a in range(x.dim())]
    return stage(folded).reshape(sizes).permute(back)
