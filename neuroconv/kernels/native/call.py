"""Whether the kernels run, and how they are called."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from neuroconv.core.counting import is_counting
from neuroconv.kernels.native.build import BuildError, library

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


def state() -> str:
    """Whether the kernels are used here: "on", or "off" and why."""
    if not _ENABLED.get():
        return "off: left out by NEUROCONV_NATIVE=0 or native_kernels(False)"
    try:
        library()
    except BuildError as error:
        return f"off: {error}"
    return "on"


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels compute with these tensors: all of one dtype, float32 or float64, on the
    CPU, and not empty.

    Under a counter torch's operators run, which it sees; so they do for tracers and compilers, and
    under transforms of torch.func and forward differentiation.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return (
        all(map(_is_plain, tensors))
        and all(each.dtype == tensors[0].dtype for each in tensors)
        and _ENABLED.get()
        and not is_counting()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and state() == "on"
    )


def _is_plain(tensor: Tensor) -> bool:
    known = type(tensor) in (Tensor, torch.nn.Parameter)  # no fake ones
    here = tensor.is_cpu and tensor.dtype in DTYPES and not tensor.is_neg()
    return known and here and tensor.numel() > 0


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
    return -(-numbers // LANES) * LANES


def bits(*rows: int, of: int, like: Tensor) -> Tensor:
    """Room for one bit of each of so many numbers in a row: of a vector's in one."""
    numbers = of * like.element_size() // VECTOR_BYTES
    return torch.empty(*rows, numbers, dtype=torch.int16, device="cpu")


def memory(tensor: Tensor) -> ctypes.c_void_p:
    """Where a tensor lies that is not contiguous, for a kernel that knows its strides."""
    return ctypes.c_void_p(tensor.data_ptr())
