"""State over time: what a neuron remembers between two stretches, as an argument and a result.

Shapes: B batch, N neurons, T time steps.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuroconv.layers.poisson import DropoutState


class NeuronState(NamedTuple):
    """What neurons remember between two stretches of time; zeros are a neuron at rest.

    Attributes:
        sheet: charge that lingers on the dendrites, the last (filter time steps - 1) steps: of a
            population's sheet (B, N, T, P, D), of an image layer's maps (B, C, T, H, W).
        current: summed dendritic current that lingers in the soma, the last (soma time steps - 1)
            steps of (B, N, T, ...).
        output: what the output stage remembers, its waiting periods.
        places: the waiting periods of the places on the sheet, under "unit" dropout in training.
    """

    sheet: Tensor | None = None
    current: Tensor | None = None
    output: Any = None
    places: DropoutState | None = None


REST = NeuronState()


def last(steps: int, activity: Tensor) -> Tensor:
    """The last steps of (B, N, T, ...); all of them untouched, for a slice's gradient is a copy."""
    return activity if activity.shape[2] == steps else activity[:, :, -steps:]


def after(past: Tensor | None, present: Tensor, taps: int) -> tuple[Tensor, Tensor]:
    """What a causal filter of so many taps reads of (B, N, T, ...), and what it will read again.

    Without a past it is the present alone: the filters' own padding is a neuron at rest.
    """
    read = present if past is None else torch.cat([past, present], 2)
    held = read[:, :, max(0, read.shape[2] - taps + 1) :]
    missing = taps - 1 - held.shape[2]
    if missing:
        rest = held.new_zeros(*held.shape[:2], missing, *held.shape[3:])
        held = torch.cat([rest, held], 2)
    return read, held
