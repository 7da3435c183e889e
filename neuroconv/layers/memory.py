"""Memory of causal filters: what a stage reads of the past, and what it will read again.

Shapes: B batch, N neurons, T time steps.
"""

import torch
from torch import Tensor


def recall(past: Tensor | None, present: Tensor, taps: int) -> tuple[Tensor, Tensor]:
    """Joins past and present steps for a causal filter, and keeps its last `taps - 1` steps.

    Args:
        past: the steps kept of the stretch before, or None at rest.
        present: (B, N, T, ...).
        taps: length of the filter in time.

    Returns:
        what the filter reads, (B, N, T + past steps, ...): without a past the present alone, for
        the filters' own padding is a neuron at rest; and what it will read again,
        (B, N, taps - 1, ...).
    """
    read = present if past is None else torch.cat([past, present], 2)
    kept = read[:, :, max(0, read.shape[2] - taps + 1) :]
    missing = taps - 1 - kept.shape[2]
    if missing:
        rest = kept.new_zeros(*kept.shape[:2], missing, *kept.shape[3:])
        kept = torch.cat([rest, kept], 2)
    return read, kept


def last_steps(steps: int, activity: Tensor) -> Tensor:
    """The last steps of (B, N, T, ...); all of them untouched, for a slice's gradient is a copy."""
    return activity if activity.shape[2] == steps else activity[:, :, -steps:]
