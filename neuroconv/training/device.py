"""Where a model runs, and in which arithmetic its float32 numbers are multiplied there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from neuroconv.training.config import ConfigError

_MODES = {"float32": "ieee", "tf32": "tf32"}


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)  # a device that torch knows may still be absent
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f'device = {name!r}: {reason}; expected "auto", "cpu" or "cuda"'
        ) from None
    return device


@contextmanager
def float32_arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Inside, float32 products and convolutions on CUDA run as `precision` says.

    "float32" rounds as IEEE 754 has it, "tf32" lets tensor cores read 10 bits of each factor's
    mantissa; any other precision leaves torch's settings alone. They are restored at the end.

    Raises:
        ConfigError: "tf32" on another device, which has no such arithmetic.
    """
    arithmetic_of(precision, device)
    if device.type != "cuda":
        yield
        return
    mode = _MODES.get(precision)
    settings = _settings() if mode is not None else ()
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = mode
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def arithmetic_of(precision: str, device: torch.device) -> str:
    """The arithmetic that a run's products have: "bfloat16", "float32" or "tf32".

    Raises:
        ConfigError: "tf32" on another device than CUDA, which has no such arithmetic.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError(
            f'precision = "tf32" on the device "{device}": expected "float32" or "bfloat16" there; '
            "tf32 is CUDA's"
        )
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return precision


def _settings() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    return torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn
