"""Constants that kernels read, such as index tables, kept on each device.

To make a table takes more launches than a small kernel. Operators write it on the device: a copy
from the host would make the host wait, and a CUDA graph cannot record it.
"""

from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from neuroconv.core.counting import is_counting
from neuroconv.kernels.operator import is_traced

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")
# Never emptied: CUDA graphs read the constants with which they were recorded.
_CACHED: dict[Any, Any] = {}
_DERIVED: MutableMapping[Tensor, dict[Any, tuple[Any, Any]]] = WeakTensorKeyDictionary()
_MOST_BYTES = 1 << 20  # of one constant; windows of all lengths have tables of T x T


def constant(function: Function) -> Function:
    """Keeps the tensors that a function of hashable arguments, the device the last, returns, and
    which no caller may change.

    It runs at each call under a counter, tracer or compiler, which read its operators, and while a
    CUDA graph is recorded.
    """

    @wraps(function)
    def get(*args: Any) -> Any:
        if is_traced() or is_counting():
            return function(*args)
        fakes = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
        cached = _CACHED if fakes is None else vars(fakes).setdefault("_constants", {})
        if (key := (function, *args)) in cached:
            result = cached[key]
            return function(*args) if result is None else result
        if fakes is not None:
            return cached.setdefault(key, function(*args))
        if args[-1].type == "cuda" and torch.cuda.is_current_stream_capturing():
            return function(*args)
        result = _apart(partial(function, *args), args[-1])
        small = sum(getattr(x, "nbytes", 0) for x in tree_leaves(result)) <= _MOST_BYTES
        cached.setdefault(key, result if small else None)
        return get(*args)

    return get  # type: ignore[return-value]


def derived(source: Tensor, key: Any, compute: Callable[[], Result]) -> Result:
    """Returns `compute()`, computed from an index tensor, or its result since that last changed.

    As a `constant` it is computed at each call where operators are read, and for an inference
    tensor, which counts no versions. A CUDA graph reads the result with which it was recorded: a
    changed source reaches it at the next call outside of it.
    """
    plain = type(source) is Tensor  # a fake one has no address
    on_cuda = plain and source.is_cuda
    if is_traced() or is_counting() or source.is_inference():
        return compute()
    version = (source._version, source.data_ptr() if plain else None)
    results = _DERIVED.setdefault(source, {})
    if key not in results or results[key][0] != version:
        if on_cuda and torch.cuda.is_current_stream_capturing():
            return compute()
        if on_cuda:  # the thread has a stream of its own
            torch.cuda.current_stream(source.device).synchronize()
        with torch.inference_mode(False):  # whose tensors training could not use
            new = _apart(compute, source.device) if on_cuda else compute()
        before = tree_leaves(results[key][1]) if key in results else []
        if [x.shape for x in before] == [x.shape for x in tree_leaves(new)]:
            for x, value in zip(before, tree_leaves(new), strict=True):
                x.copy_(value)  # CUDA graphs read these tensors
            new = results[key][1]
        results[key] = version, new
    return results[key][1]


def _apart(compute: Callable[[], Result], device: torch.device) -> Result:
    """Computes constants on a thread: no mode of the caller reaches it, nor does the memory of a
    graph that torch.compile(mode="reduce-overhead") is about to record, where nothing may stay."""

    def run() -> Result:
        result = compute()
        if device.type == "cuda":  # any stream may read it from now on
            torch.cuda.current_stream(device).synchronize()
        return result

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@constant
def numbers(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns numbers as a tensor: a literal would be copied to the device from the host."""
    return torch.stack([torch.full((), value, dtype=dtype, device=device) for value in values])
