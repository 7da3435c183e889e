"""Launches of Triton kernels, and traces that record launches where there is no device.

A trace runs on tensors without data that say they are on CUDA (torch's FakeTensorMode).
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Kernel(NamedTuple):
    """A Triton kernel by its module in `kernels.cuda`, imported at its first launch."""

    module: str
    name: str

    def launch(self, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        """Runs the programs of a grid, on the device of the first tensor among the arguments."""
        if (record := _record.get()) is not None:
            record(self, grid, arguments, constants)
            return
        device = next(x.device for x in arguments if isinstance(x, Tensor))
        on_device: Any = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
        with on_device:
            self.function[grid](*arguments, **constants)

    @property
    def function(self) -> Any:
        return getattr(importlib.import_module(f"neuroconv.kernels.cuda.{self.module}"), self.name)


# (kernel, grid, arguments, constants) of a launch.
Record = Callable[[Kernel, tuple[int, ...], tuple[Any, ...], dict[str, Any]], None]
_record: ContextVar[Record | None] = ContextVar("launches", default=None)


@contextmanager
def recorded(record: Record) -> Iterator[None]:
    """Calls `record` for each launch in the context, which runs nothing."""
    token = _record.set(record)
    try:
        yield
    finally:
        _record.reset(token)


def is_recorded() -> bool:
    return _record.get() is not None


def takes(tensor: Tensor) -> bool:
    """Returns whether a tensor is a plain one, which kernels take, or this is a trace."""
    return is_recorded() or type(tensor) in (Tensor, nn.Parameter)
