"""C++ kernels for the CPU, which fuse stages that torch's operators would pass through memory.

Callers run torch's operators where `runs` returns False; tests hold both to the same results. The
library is compiled when it is first needed (`native.build`). NEUROCONV_NATIVE=0 disables it.
"""

import ctypes
import os
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from neuroconv.core.counting import constant_when_compiled
from neuroconv.kernels.native.build import BuildError, library
from neuroconv.kernels.operator import Switch, needs_reference

DTYPES = (torch.float32, torch.float64)
VECTOR_BYTES = 32  # at least
LANES = 16  # rows are padded to a multiple of the widest registers' lanes
# Allows or forbids these kernels inside a context, for comparisons.
native_kernels = Switch("native", default=os.environ.get("NEUROCONV_NATIVE", "1") != "0")


@constant_when_compiled
def state() -> str:
    """Returns "on" if the kernels are used, else "off" and the reason."""
    if not native_kernels.get():
        return "off: left out by NEUROCONV_NATIVE=0 or native_kernels(False)"
    try:
        library()
    except BuildError as error:
        return f"off: {error}"
    return "on"


def runs(*tensors: Tensor) -> bool:
    """Returns whether the kernels take these tensors: not empty, all float32 or all float64, on
    the CPU. Fake tensors are judged by the device and dtype that they stand for."""
    dtype = tensors[0].dtype
    if dtype not in DTYPES or state() != "on":
        return False
    for tensor in tensors:  # a loop: overhead dominates small calls
        if tensor.dtype != dtype or tensor.device.type != "cpu" or 0 in tensor.shape:
            return False
    return True


def prefers_reference(*tensors: Tensor) -> bool:
    """Returns whether an operator's reference runs: where torch needs it, and under a compiler that
    finds no kernel, since it fuses plain operators better than it can call ours."""
    return needs_reference() or (torch.compiler.is_compiling() and not runs(*tensors))


def call(name: str, like: Tensor, *arguments: Any) -> None:
    """Calls the kernel of this name for the dtype of `like`, on all of torch's threads.

    Tensors, which must be contiguous, and tuples of integers are passed as pointers, integers and
    flags as 64 bits.

    Raises:
        TypeError: a tensor of another device or dtype than a kernel reads.
    """
    dtypes = (like.dtype, torch.float64, torch.int64)
    packed: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            if not argument.is_cpu or argument.dtype not in dtypes:
                raise TypeError(
                    f"{name} got a {argument.dtype} tensor on {argument.device}; expected "
                    f"{like.dtype} on the CPU"
                )
            assert argument.is_contiguous()
            packed.append(ctypes.c_void_p(argument.data_ptr()))
        elif isinstance(argument, tuple):
            packed.append((ctypes.c_int64 * len(argument))(*argument))
        elif isinstance(argument, int):
            packed.append(ctypes.c_int64(argument))
        elif isinstance(argument, float):
            packed.append(ctypes.c_double(argument))
        else:
            packed.append(argument)  # a pointer from `memory`, or None
    _function(name, like.dtype)(*packed, ctypes.c_int64(torch.get_num_threads()))


@lru_cache
def _function(name: str, dtype: torch.dtype) -> Any:
    function = getattr(library(), f"{name}_{str(dtype).removeprefix('torch.')}")
    function.restype = None
    return function


def padded(numbers: int) -> int:
    """Rounds a length up to whole vectors."""
    return numbers + -numbers % LANES


def bits(*rows: int, of: int, like: Tensor) -> Tensor:
    """Allocates one bit for each of `of` numbers in a row; the bits of a vector fill an int16."""
    numbers = of * like.element_size() // VECTOR_BYTES
    return torch.empty(*rows, numbers, dtype=torch.int16, device="cpu")


def memory(tensor: Tensor) -> ctypes.c_void_p:
    """Returns a pointer to a tensor that need not be contiguous, for kernels that take strides."""
    return ctypes.c_void_p(tensor.data_ptr())
