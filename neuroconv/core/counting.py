"""The context of a counted run, blocks that count for others like them, and the check for hooks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_COUNTING: ContextVar[bool] = ContextVar("counting", default=False)
_REPEATS: ContextVar[int] = ContextVar("repeats", default=1)


def constant_when_compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Does the work of `torch.compiler.assume_constant_result` without loading the compiler.

    Compilers before torch 2.14 cannot read a context's variables, and break the graph there.
    """
    marked: Any = function
    marked._dynamo_marked_constant = True
    return function


@constant_when_compiled
def is_exporting() -> bool:
    """Returns `torch.compiler.is_exporting()`, which torch 2.11's compiler takes for True."""
    return torch.compiler.is_exporting()


@contextmanager
def counting() -> Iterator[None]:
    """Marks a run as counted as a whole: it uses no cache, and hooks do not change how it runs."""
    token = _COUNTING.set(True)
    try:
        yield
    finally:
        _COUNTING.reset(token)


@constant_when_compiled
def is_counting() -> bool:
    return _COUNTING.get()


def repeats() -> int:
    """Returns how many runs the operators that run now stand for; see `blocks`."""
    return _REPEATS.get()


def blocks(length: int, width: int, on_meta: bool = False) -> Iterator[slice]:
    """Yields the slices of an axis of `length` elements, `width` at a time, the last maybe fewer.

    On meta the first, second and last block stand for all: a count takes no longer for a larger
    batch. The second is as large as those that are left out, and counters multiply what it runs by
    `repeats()`. The first and the last may do more, or less, than the others.
    """
    starts = range(0, length, width)
    if not on_meta or len(starts) <= 3:
        yield from (slice(start, min(start + width, length)) for start in starts)
        return
    yield slice(0, width)
    token = _REPEATS.set(repeats() * (len(starts) - 2))
    try:
        yield slice(width, 2 * width)
    finally:
        _REPEATS.reset(token)
    yield slice(starts[-1], length)


def is_watched(*modules: nn.Module) -> bool:
    """Returns whether a module has a forward of its own, or a hook other than a counter's."""
    hooked = not is_counting() and any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in modules
    )
    return hooked or any("forward" in vars(m) for m in modules)
