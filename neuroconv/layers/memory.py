"""Memory of causal filters: the past steps that a stage reads.

Shapes: B batch, N neurons, T time steps.
"""

import torch
from torch import Tensor


def recall(past: Tensor | None, present: Tensor, taps: int) -> tuple[Tensor, Tensor]:
    """Concatenates past (None at rest) and present (B, N, T, ...) for a causal filter's taps.

    Returns:
        The filter's input (B, N, T + past steps, ...), at rest the present alone, since the filter
        pads it with zeros; and its last steps (B, N, taps - 1, ...).

    Raises:
        ValueError: past and present differ in more than their steps, or the present has none.
    """
    if present.dim() < 3 or not present.shape[2]:
        raise ValueError(
            f"a stretch has shape {tuple(present.shape)}; expected (batch, neurons, time_steps, "
            "...), one step or more"
        )
    if past is not None and (*past.shape[:2], *past.shape[3:]) != (
        *present.shape[:2], *present.shape[3:],
    ):  # fmt: skip
        raise ValueError(
            f"the state has shape {tuple(past.shape)}, and the stretch after it "
            f"{tuple(present.shape)}; expected equal sizes but for the steps, axis 2: pass the "
            "state after this batch's last stretch, or none to start from rest"
        )
    window = present if past is None else torch.cat([past, present], 2)
    past = window[:, :, max(0, window.shape[2] - taps + 1) :]
    if padding := taps - 1 - past.shape[2]:
        rest = past.new_zeros(*past.shape[:2], padding, *past.shape[3:])
        past = torch.cat([rest, past], 2)
    return window, past


def last_steps(steps: int, activity: Tensor) -> Tensor:
    """Returns the last steps of (B, N, T, ...); all T of them as they are, which saves a copy."""
    return activity if activity.shape[2] == steps else activity[:, :, -steps:]
