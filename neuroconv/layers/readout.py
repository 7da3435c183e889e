"""The read-out: the input of a classifier, taken from a window."""

import torch
from torch import Tensor, nn

from neuroconv.core.cost import Cost


class LastStep(nn.Module):
    """The last time step, the only one that depends on the whole window.

    Shape:
        (B, N, T, ...) -> (B, N, ...)
    """

    def forward(self, activity: Tensor) -> Tensor:
        if activity.dim() < 3 or not activity.shape[2]:
            raise ValueError(
                f"activity has shape {tuple(activity.shape)}; expected (batch, neurons, time_steps)"
            )
        return activity[:, :, -1]

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        """Returns no rows: a slice costs nothing."""
        return ()
