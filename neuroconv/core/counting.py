"""The context of a counted run, and the check whether hooks observe a module."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn

_COUNTING: ContextVar[bool] = ContextVar("counting", default=False)


@contextmanager
def counting() -> Iterator[None]:
    """Marks a run as counted as a whole: it uses no cache, and hooks do not change how it runs."""
    token = _COUNTING.set(True)
    try:
        yield
    finally:
        _COUNTING.reset(token)


def is_counting() -> bool:
    return _COUNTING.get()


def is_watched(*modules: nn.Module) -> bool:
    """Returns whether a hook, other than a counter's, observes a module's calls or gradients."""
    return not is_counting() and any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in modules
    )
