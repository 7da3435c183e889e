"""Whether the kernels run, and how they are called."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from neuroconv.kernels.native.build import BuildError, library
from neuroconv.kernels.operator import constant_when_compiled

DTYPES = (torch.float32, torch.float64)
VECTOR_BYTES = 32  # or more
LANES = 16  # numbers are padded to whole vectors of the widest registers
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


@constant_when_compiled
def state() -> str:
    """Whether the kernels are used here: "on", or "off" and why."""
    if not _ENABLED.get():
        return "off: left out by NEUROCONV_NATIVE=0 or native_kernels(False)"
    try:
        library()
    except BuildError as error:
        return f"off: {error}"
    return "on"


def runs(*tensors: Tensor) -> bool:
    """Whether the kernels compute with these tensors: not empty, all float32 or all float64, on the
    CPU. Fake tensors and those that a compiler traces are judged as the tensors they stand for."""
    dtype = tensors[0].dtype
    return (
        dtype in DTYPES
        and all(tensor.device.type == "cpu" and tensor.dtype == dtype for tensor in tensors)
        and all(0 not in tensor.shape for tensor in tensors)
        and state() == "on"
    )


def call(name: str, like: Tensor, *arguments: Any) -> None:
    """A kernel by its name and the dtype, on all of torch's threads.

    Tensors go by their memory, which has to be contiguous; integers as 64 bits, flags too.

    Raises:
        TypeError: a tensor of another device or dtype than a kernel reads.
    """
    given: list[Any] = []
    for each in arguments:
        if isinstance(each, Tensor):
            if not each.is_cpu or each.dtype not in (like.dtype, torch.float64, torch.int64):
                raise TypeError(
                    f"{name} got a {each.dtype} tensor on {each.device}; expected {like.dtype} on "
                    "the CPU"
                )
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


def whole(numbers: int) -> int:
    """So many numbers, padded to whole vectors."""
    return numbers + -numbers % LANES


def bits(*rows: int, of: int, like: Tensor) -> Tensor:
    """Room for one bit of each of so many numbers in a row: of a vector's in one."""
    numbers = of * like.element_size() // VECTOR_BYTES
    return torch.empty(*rows, numbers, dtype=torch.int16, device="cpu")


def memory(tensor: Tensor) -> ctypes.c_void_p:
    """Where a tensor lies that is not contiguous, for a kernel that knows its strides."""
    return ctypes.c_void_p(tensor.data_ptr())
