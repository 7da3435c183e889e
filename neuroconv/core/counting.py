"""Who looks on: a counter, or the hooks of others."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn

_COUNTING: ContextVar[bool] = ContextVar("counting", default=False)


@contextmanager
def counting() -> Iterator[None]:
    """Inside, a run is counted or timed as a whole: nothing that an earlier call made serves it,
    and hooks, which are the counter's own, do not change how a module runs."""
    token = _COUNTING.set(True)
    try:
        yield
    finally:
        _COUNTING.reset(token)


def is_counting() -> bool:
    return _COUNTING.get()


def is_watched(*modules: nn.Module) -> bool:
    """Whether a hook wants to see what goes through a module, either way, and is no counter's."""
    return not is_counting() and any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in modules
    )
