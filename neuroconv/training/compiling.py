"""torch.compile for training and evaluation, and what is said where it cannot work."""

import torch
from torch import nn

from neuroconv.training.config import ConfigError


def check_compiler(device: torch.device) -> None:
    """ConfigError, which says what to install, where torch.compile cannot work."""
    try:
        torch.compile(_try)(torch.zeros(2, device=device))
    except Exception as error:  # the compiler's own kinds are many, and none of them public
        reason = str(error).strip().partition("\n")[0]
        needed = "a C++ compiler (g++ or clang++)"
        if device.type == "cuda":
            needed += " and the package triton"
        raise ConfigError(
            f"compile = true: torch.compile does not work for {device.type} here "
            f"({type(error).__name__}: {reason}): install {needed}, or set compile = false"
        ) from None


def compiled(model: nn.Module) -> nn.Module:
    """The model as torch.compile runs it. It has the model's own tensors; the model stays as it is.

    What is compiled is told apart by whether the model trains; in evaluation it must always be
    watched by an `ActivityMonitor`, or never, for torch.compile does not look for new hooks.
    """
    runner: nn.Module = torch.compile(model)  # type: ignore[assignment]
    return runner


def _try(x: torch.Tensor) -> torch.Tensor:
    return x * 2 + 1
