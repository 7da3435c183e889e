"""Whether the kernels run, and how they are called."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from neuroconv.layers.counting import is_counting
from neuroconv.layers.native.build import BuildError, library

DTYPES = (torch.float32, torch.float64)
_ENABLED: ContextVar[bool] = ContextVar(
    "native", default=os.environ.get("NEUROCONV_NATIVE", "1") != "0"
)


@contextmanager
def native_kernels(enabled: bool) -> Iterator[None]:
    """Inside, stages on the CPU run by these kernels where they can, or never: to compare."""
    token = _ENABLED.set(enabled)
    try:
        yield
    finally:
        _ENABLED.reset(token)


def state() -> str:
    """Whether the kernels are used here: "on", or "off" and why."""
    if not _ENABLED.get():
        return "off: NEUROCONV_NATIVE=0"
    try:
        library()
    except BuildError as error:
        return f"off: {error}"
    return "on"


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels compute with these tensors: float32 or float64 on the CPU, and not empty.

    Under a counter torch's operators run, which it sees.
    """
    first = tensors[0]
    return (
        first.is_cpu
        and first.dtype in DTYPES
        and all(type(each) in (Tensor, torch.nn.Parameter) for each in tensors)  # no fake ones
        and all(each.dtype == first.dtype and each.numel() > 0 for each in tensors)
        and _ENABLED.get()
        and not is_counting()
        and state() == "on"
    )


def call(name: str, like: Tensor, *arguments: Any) -> None:
    """A kernel by its name and the dtype, on all of torch's threads.

    Tensors go by their memory, which has to be contiguous; integers as 64 bits, flags too.
    """
    given: list[Any] = []
    for each in arguments:
        if isinstance(each, Tensor):
            assert each.is_contiguous()
            given.append(ctypes.c_void_p(each.data_ptr()))
        elif isinstance(each, int):
            given.append(ctypes.c_int64(each))
        elif isinstance(each, float):
            given.append(ctypes.c_double(each))
        else:
            given.append(each)  # memory as it is, or None for none
    function = getattr(library(), f"{name}_{str(like.dtype).removeprefix('torch.')}")
    function.restype = None
    function(*given, ctypes.c_int64(torch.get_num_threads()))


def memory(tensor: Tensor) -> ctypes.c_void_p:
    """Where a tensor lies that is not contiguous, for a kernel that knows its strides."""
    return ctypes.c_void_p(tensor.data_ptr())
