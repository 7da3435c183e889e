"""Where the tensors of a counted run come from.

A counter sees the operators that torch dispatches in its own thread. What another thread computes,
or a kernel that is launched past the dispatcher, it does not see; but it sees the result arrive: a
tensor that no operator wrote before its eyes.
"""

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
# The storages that an operator made while a counter looked on, or that were copied for a count; and
# whether they were written to.
_KNOWN: WeakKeyDictionary[torch.UntypedStorage, bool] = WeakKeyDictionary()


def _storage(tensor: Tensor) -> torch.UntypedStorage | None:
    try:
        return tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):  # a sparse tensor, a wrapper
        return None


def remember(
    tensors: Iterable[Tensor], *, written: bool = True, viewed: Iterable[Tensor] = ()
) -> None:
    """Notes that the origin of these tensors is known, unless they are views of `viewed`."""
    for storage in {*map(_storage, tensors)}.difference(map(_storage, viewed)):
        if storage is not None:
            _KNOWN[storage] = written or _KNOWN.get(storage, False)


class ForeignTensors:
    """What came from outside in one run, by storage."""

    def __init__(self) -> None:
        self.reports: dict[object, str] = {}
        self._tensors: list[Tensor] = []  # an address belongs to a storage as long as it lives

    def check(self, receiver: str, tensors: Iterable[Tensor], *, written: bool = True) -> None:
        """Notes those of the tensors whose origin is not known, or that nothing has written to."""
        for tensor in tensors:
            storage = _storage(tensor)
            if storage is None or not tensor.numel() or _KNOWN.get(storage, -1) >= written:
                continue
            # Memory of NumPy; on meta, where no operator makes it, an index written as a list.
            is_index = tensor.is_meta and not (tensor.is_floating_point() or tensor.is_complex())
            if storage.resizable() and not is_index:
                self._tensors.append(tensor)
                self.reports[storage._cdata] = (
                    f"{receiver} received a tensor of shape {tuple(tensor.shape)} that no counted "
                    "operator wrote"
                )

    def add_module(self, path: str) -> None:
        """Notes that a module runs where no counter sees it; never the same as in another run."""
        self.reports[object()] = f"the module {path!r} ran outside the counted thread"


FOREIGN: ContextVar[ForeignTensors | None] = ContextVar("foreign", default=None)


def refuse_foreign(run: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
    """Makes a count raise ValueError if tensors come from other threads.

    A constant, such as a global tensor, is foreign too. A second run meets the same storage
    again, where a thread makes a new one.
    """

    @wraps(run)
    def checked(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        constants = ForeignTensors()
        while True:
            foreign = ForeignTensors()
            token = FOREIGN.set(foreign)
            try:
                result = run(*args, **kwargs)
            finally:
                FOREIGN.reset(token)
            new = [text for key, text in foreign.reports.items() if key not in constants.reports]
            if not new:
                return result
            if constants.reports:
                raise ValueError(
                    f"{new[0]}: operators of other threads and processes, and kernels launched "
                    "past torch's dispatcher, are not counted. Run the model in one thread, on "
                    "operators of torch, while it is counted"
                )
            constants = foreign

    return checked
