"""The device of a model, its float32 arithmetic, and whether torch.compile works on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from neuroconv.training.config import ConfigError

_MODES = {"float32": "ieee", "tf32": "tf32"}


def choose_device(name: str) -> torch.device:
    """Returns a device; "auto" is CUDA or, for one process, XPU or MPS where present, else CPU."""
    if name == "auto":
        one = int(os.environ.get("WORLD_SIZE", 1)) == 1
        kinds = ("cuda", "xpu", "mps") if one else ("cuda",)
        return torch.device(next((k for k in kinds if getattr(torch, k).is_available()), "cpu"))
    try:
        device = torch.device(name)
        torch.empty(0, device=device)  # a device that torch knows may still be absent
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f'device = {name!r}: {reason}; expected "auto", "cpu", "cuda", "xpu" or "mps"'
        ) from None
    return device


def arithmetic_of(precision: str, device: torch.device) -> str:
    """Returns the arithmetic of a run's products: "bfloat16", "float32" or, on CUDA, "tf32"."""
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError(
            f'precision = "tf32" on the device "{device}": expected "float32" or "bfloat16" there; '
            "tf32 is CUDA's"
        )
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return precision


@contextmanager
def float32_arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Sets CUDA's float32 arithmetic for "float32" (IEEE 754) or "tf32", and restores it."""
    arithmetic_of(precision, device)
    cudnn: Any = torch.backends.cudnn
    settings: tuple[Any, ...] = ()
    if device.type == "cuda" and precision in _MODES:
        settings = torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn
    before = [setting.fp32_precision for setting in settings]

    def change(modes: list[str]) -> None:
        if settings:  # the older flags too, which torch refuses to read where they disagree
            settings[0].allow_tf32, cudnn.allow_tf32 = (mode == "tf32" for mode in modes[:2])
        for setting, mode in zip(settings, modes, strict=True):
            setting.fp32_precision = mode

    try:
        change([_MODES.get(precision, "")] * len(settings))
        yield
    finally:
        change(before)


def check_compiler(device: torch.device) -> None:
    """Raises a ConfigError that says what to install where torch.compile does not work."""
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.zeros(2, device=device))
    except Exception as error:  # the compiler's own kinds are many, and none of them public
        reason = str(error).strip().partition("\n")[0]
        needed = "a C++ compiler (g++ or clang++)"
        if device.type == "cuda":
            needed += " and the package triton"
        raise ConfigError(
            f"compile = true: torch.compile does not work for {device.type} here "
            f"({type(error).__name__}: {reason}): install {needed}, or set compile = false"
        ) from None
