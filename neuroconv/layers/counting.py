"""Whether a counter looks on."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
