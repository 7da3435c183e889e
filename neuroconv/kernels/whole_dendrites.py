"""Dendrites whose filters span them, as products of the axons' activity with dense matrices.

Such a dendrite has one output, the sum over its synapses of weight times tap times activity. As a
row of a matrix over all axons, with a zero for each that the dendrite does not receive, it needs no
sheet in memory: a matrix has a column for each axon, a sheet of a batch one for each sample, step
and site.

Shapes: B batch, F axons, N neurons, T time steps, P sites along a dendrite, D dendrites, K the
taps' time steps.
"""

from collections.abc import Iterator
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# A batch of this size runs as dense products unless there are more than this number of axons for
# each site of a dendrite: copying a row of activity for each synapse takes longer than the products
# with zeros.
_BATCH, _AXONS = 8, 64


def runs_dense(batch: int, axons: int, sites: int) -> bool:
    """Returns whether dense products are faster than gathering the activity at each synapse."""
    return batch >= _BATCH and axons <= _AXONS * sites


def activity_rows(window: Tensor, steps: int) -> Tensor:
    """Lays activity (B, F, T) out as (F, K - 1 + T, B), with zeros before the window."""
    return F.pad(window.permute(1, 2, 0), (0, 0, steps - 1, 0)).contiguous()


def tap_windows(activity: Tensor, steps: int) -> Iterator[Tensor]:
    """Yields what each tap meets (..., T * B) of activity (..., K - 1 + T, B), the earliest
    first."""
    length = activity.shape[-2] - steps + 1
    return (activity[..., k : k + length, :].flatten(-2) for k in range(steps))


def dense_potential(filters: Tensor, axons: Tensor, rows: Tensor) -> Tensor:
    """Sums over taps and sites of filters (K, N, D, P) times the activity of `axons` (N, D, P).

    Args:
        rows: the activity, from `activity_rows`.

    Returns:
        (N, D, T * B)
    """
    matrices = filters.new_zeros(*filters.shape[:3], len(rows))
    matrices.scatter_add_(3, axons.expand_as(filters), filters)
    products = map(torch.mm, matrices.flatten(1, 2), tap_windows(rows, len(filters)))
    return reduce(torch.add, products).view(*filters.shape[1:3], -1)


def on_sheet(synapses: Tensor, sheet: tuple[int, int]) -> Tensor:
    """Lays (N, S) out as (N, D, P); empty positions are zero."""
    sites, dendrites = sheet
    empty = sites * dendrites - synapses.shape[1]
    return F.pad(synapses, (0, empty)).unflatten(1, (dendrites, sites))


def dense_current(cells: Any, window: Tensor) -> Tensor:
    """Sums the dendrites' rates of a population, (B, N, T), of activity (B, F, T)."""
    synapses, dendrites = cells.synapses, cells.dendrites
    synapses.check(window)
    taps = dendrites.taps().permute(1, 0, 3, 2)  # (K, N, D, P)
    weight = on_sheet(synapses.effective_weight(), synapses.sheet_shape)
    rows = activity_rows(window, len(taps)).to(taps.dtype)
    potential = dense_potential(
        weight * taps, on_sheet(synapses.wiring, synapses.sheet_shape), rows
    )
    if dendrites.bias is not None:
        potential = potential + dendrites.bias.unsqueeze(2)
    rate = potential if cells.dendritic_rate.linear else potential.relu()
    current = rate.sum(1).unflatten(1, (window.shape[2], -1))
    return current.permute(2, 0, 1)
