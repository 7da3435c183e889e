"""The kernels of pointwise stages, `columns.cpp`.

Shapes: as in `layers.columns`.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuroconv.layers.native.call import call


def columns_sum(
    columns: Sequence[Tensor],
    sizes: tuple[int, int],
    scale: Tensor | None,
    offset: Tensor | None,
    linear: bool,
) -> Tensor:
    """The sum over dendrites of max(0, scale * column + offset), (T, M, U).

    Args:
        columns: of each dendrite, (rows, width), contiguous.
        sizes: T and U.
        scale, offset: (dendrites, width), or None.
        linear: leave the maximum out.
    """
    steps, units = sizes
    total = columns[0].new_empty(steps, columns[0].numel() // (steps * units), units)
    call("columns_sum", columns[0], *_stage(columns, sizes, scale, offset, linear), total)
    return total


def columns_sums(
    columns: Sequence[Tensor],
    sizes: tuple[int, int],
    scale: Tensor | None,
    offset: Tensor | None,
    linear: bool,
    grad: Tensor,
) -> Tensor:
    """Over the rows, the sums of the gradient that passes and of it times the potential.

    Shape: grad (T, M, U) -> (dendrites, 2, width), float64
    """
    found = grad.new_empty(len(columns), 2, columns[0].shape[1], dtype=torch.float64)
    call("columns_sums", grad, *_stage(columns, sizes, scale, offset, linear), grad, found)
    return found


def columns_gradients(
    columns: Sequence[Tensor],
    sizes: tuple[int, int],
    scale: Tensor | None,
    offset: Tensor | None,
    linear: bool,
    grad: Tensor,
    through: tuple[Tensor, Tensor] | None,
) -> list[Tensor]:
    """Gradients to the columns: scale * what passes, and `through` (slope, start) of the columns'
    own statistics, slope * column + start, each (dendrites, width)."""
    results = [torch.empty_like(column) for column in columns]
    slope, start = through or (None, None)
    stage = _stage(columns, sizes, scale, offset, linear)
    call("columns_back", grad, *stage, grad, slope, start, _pointers(results))
    return results


def columns_statistics(columns: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the rows, (dendrites, width), float64."""
    rows, width = columns[0].shape
    mean = columns[0].new_empty(len(columns), width, dtype=torch.float64)
    variance = torch.empty_like(mean)
    sizes = (len(columns), rows, width)
    call("columns_statistics", columns[0], _pointers(columns), *sizes, mean, variance)
    return mean, variance


def soma(maps: Tensor, taps: Tensor, turned: bool = False) -> Tensor:
    """Maps (T, ...), contiguous, by the taps (K,), the last of which meets the present; `turned`
    as the gradient goes."""
    result = torch.empty_like(maps)
    call("soma", maps, maps, len(maps), maps[0].numel(), taps, len(taps), int(turned), result)
    return result


def soma_taps(maps: Tensor, grad: Tensor, count: int) -> Tensor:
    """The gradient to so many taps, (K,), float64."""
    found = maps.new_empty(count, dtype=torch.float64)
    call("soma_taps", maps, maps, grad, len(maps), maps[0].numel(), count, found)
    return found


def _stage(
    columns: Sequence[Tensor],
    sizes: tuple[int, int],
    scale: Tensor | None,
    offset: Tensor | None,
    linear: bool,
) -> tuple[Any, ...]:
    rows, width = columns[0].shape
    return _pointers(columns), len(columns), rows, width, *sizes, scale, offset, int(linear)


def _pointers(tensors: Sequence[Tensor]) -> Any:
    """An array of pointers."""
    assert all(each.is_contiguous() for each in tensors)
    return (ctypes.c_void_p * len(tensors))(*(each.data_ptr() for each in tensors))
