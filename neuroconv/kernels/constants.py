"""Constants that kernels read, such as index tables, kept on each device.

To make a table takes more launches than a small kernel. Operators write it on the device: a copy
from the host would make the host wait, and a CUDA graph cannot record it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuroconv.core.counting import is_counting
from neuroconv.kernels.operator import is_traced

Function = TypeVar("Function", bound=Callable[..., Any])
# Never emptied: CUDA graphs read the constants with which they were recorded.
_CACHED: dict[Any, Any] = {}
_MOST_BYTES = 1 << 20  # of one constant; windows of all lengths have tables of T x T


def constant(function: Function) -> Function:
    """Keeps the tensors that a function of hashable arguments, the device the last, returns, and
    which no caller may change.

    It runs at each call under a counter, tracer or compiler, which read its operators, and while a
    CUDA graph is recorded.
    """

    def compute(*args: Any) -> Any:
        result = function(*args)
        if args[-1].type == "cuda":  # any stream may read it from now on
            torch.cuda.current_stream(args[-1]).synchronize()
        return result

    @wraps(function)
    def get(*args: Any) -> Any:
        if is_traced() or is_counting():
            return function(*args)
        fakes = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
        cached = _CACHED if fakes is None else vars(fakes).setdefault("_constants", {})
        if (key := (function, *args)) in cached:
            return cached[key]
        if fakes is not None:
            return cached.setdefault(key, function(*args))
        if args[-1].type == "cuda" and torch.cuda.is_current_stream_capturing():
            return function(*args)
        # No mode of the caller reaches a thread of its own, nor does the memory of a graph that
        # torch.compile(mode="reduce-overhead") is about to record, where nothing may stay.
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(compute, *args).result()
        small = sum(getattr(x, "nbytes", 0) for x in tree_leaves(result)) <= _MOST_BYTES
        return cached.setdefault(key, result) if small else result

    return get  # type: ignore[return-value]


@constant
def numbers(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns numbers as a tensor: a literal would be copied to the device from the host."""
    return torch.stack([torch.full((), value, dtype=dtype, device=device) for value in values])
