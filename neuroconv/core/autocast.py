"""Mixed precision for operators that autocast does not know: hand-written ones."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """What autocast, where it is on for the tensor's device, would run a matrix product in.

    None where it is off, and for float64, which autocast leaves as it is.
    """
    kind = tensor.device.type
    if tensor.dtype == torch.float64:
        return None
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Inside, operators take tensors of that device in the precision they have."""
    kind = tensor.device.type
    if torch.amp.is_autocast_available(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
