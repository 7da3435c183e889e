"""Mixed precision for hand-written operators, which autocast does not know."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from neuroconv.core.counting import constant_when_compiled


@constant_when_compiled
def _is_available(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind)


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """Returns autocast's dtype for products of the tensor; None where off, and for float64."""
    kind = tensor.device.type
    if tensor.dtype == torch.float64 or not _is_available(kind):
        return None
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Switches autocast off on the tensor's device."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if _is_available(kind) else nullcontext()


def widest_float(device: torch.device) -> torch.dtype:
    """Returns float64, or float32 on MPS, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def add_bias(potential: Tensor, bias: Tensor) -> Tensor:
    """Adds a bias in the potential's dtype: a parameter's float32 would promote half precision."""
    return potential + bias.to(potential.dtype)
