"""Layout in memory: stages that look along one axis, and take every other as it lies.

The sheet that synapses give is a view with the batch innermost in memory, maps of images are
ordinary tensors. A stage that folds the axes around its own in the order of the sheet's shape
would copy one of the two; folded in the order of memory neither is copied.
"""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor


def memory_order(x: Tensor) -> tuple[int, ...]:
    """The axes from the outermost in memory to the innermost; `x.dim_order()` takes far longer."""
    strides = x.stride()
    return tuple(sorted(range(x.dim()), key=lambda axis: (-strides[axis], axis)))


def along_axis(x: Tensor, axis: int, stage: Callable[[Tensor], Tensor]) -> Tensor:
    """Runs a stage that keeps the shape on x folded to (before, x.shape[axis], after).

    Before and after are the axes that lie outside and inside of the axis in memory. The result has
    the shape and the layout of x.
    """
    # A tracer (fvcore's) has no numbers to order the axes by, and what it records needs no speed.
    order = tuple(range(x.dim())) if torch.jit.is_tracing() else x.dim_order()
    place = order.index(axis % x.dim())
    ordered = x.permute(order)
    shape = ordered.shape
    folded = ordered.reshape(prod(shape[:place]), shape[place], prod(shape[place + 1 :]))
    back = [order.index(a) for a in range(x.dim())]
    return stage(folded).reshape(shape).permute(back)
