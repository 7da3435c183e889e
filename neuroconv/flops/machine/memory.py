"""A tracker of bytes: what operators read and write, and which storages are alive."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuroconv.flops.calls import OperatorMode, tensors_of
from neuroconv.flops.rules import names

# Their tensor argument gives a shape only; and results that nothing is written to.
_SHAPE_ONLY = names(
    "empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_empty "
    "new_zeros new_ones new_full new_empty_strided"
)
_UNWRITTEN = names(
    "empty empty_like empty_strided empty_permuted new_empty new_empty_strided resize set"
)
# In place, these replace what was there without reading it.
_OVERWRITES = names(
    "copy fill zero random normal uniform bernoulli exponential geometric cauchy log_normal"
)
# They read at most as many elements of their first operand as they return.
_GATHERS = names("index index_select gather embedding take take_along_dim _unsafe_index")
# In place, they touch as many elements as their largest other operand has.
_SCATTERS = names(
    "index_put _index_put_impl index_copy index_add index_fill scatter scatter_add scatter_reduce"
)


@dataclass(frozen=True)
class PassTraffic:
    """Bytes of one pass, forward or backward, for the whole batch.

    Attributes:
        read_bytes: each operator reads each of its tensors once; an expanded tensor counts by what
            is stored of it, and a gather reads no more than it returns.
        written_bytes: each operator writes its results once, in place or not. Views are free.
        compulsory_bytes: what no order of the same work avoids: each parameter, buffer and input
            that the pass reads, once, and its results, once: the outputs, or the gradients that it
            leaves. The backward pass also reads the outputs' gradients.
        new_elements: elements of all tensors that operators made.
        new_bytes: their bytes.
        peak_bytes: of parameters, buffers, inputs and all tensors alive at once.
    """

    read_bytes: int
    written_bytes: int
    compulsory_bytes: int
    new_elements: int
    new_bytes: int
    peak_bytes: int

    @property
    def moved_bytes(self) -> int:
        return self.read_bytes + self.written_bytes


def storage_key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of the elements that are there: an expanded axis is stored once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    elements = prod(size if stride or not size else 1 for size, stride in sizes)
    return min(elements * tensor.element_size(), tensor.untyped_storage().nbytes())


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    return sum({storage_key(t): t.untyped_storage().nbytes() for t in tensors}.values())


def tensors_in(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@cache
def _writable(func: Any) -> tuple[tuple[str, ...], dict[str, tuple[bool, bool]]]:
    """By the operator's schema, which is slow to read: the names of its arguments, and those that
    it may write to, each with whether it declares so, and whether it is given by keyword only."""
    arguments = func._schema.arguments
    writable = {}
    for each in arguments:
        declared = bool(each.alias_info and each.alias_info.is_write)
        # Batch norms do not declare that they move their statistics.
        if declared or each.name in ("running_mean", "running_var"):
            writable[each.name] = (declared, bool(each.kwarg_only))
    return tuple(each.name for each in arguments), writable


class MemoryTracker(OperatorMode):
    """Counts the bytes of every operator, and keeps count of the storages alive.

    Args:
        device: type of the device whose memory is tracked. What lies elsewhere, such as a literal
            on its way to the device, is left out.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.alive_bytes = 0
        self._alive: dict[int, tuple[int, finalize]] = {}
        self._given: dict[int, int] = {}  # storages that no operator made, and their bytes
        self.begin()

    def begin(self) -> None:
        """Starts a pass."""
        self.read = self.written = self.new_elements = self.new_bytes = 0
        self.peak = self.alive_bytes
        self._fetched = 0  # of given storages that are no more
        self._fetching: Counter[int] = Counter()  # of those that are

    def end(self, results: int) -> PassTraffic:
        """The pass so far, which leaves results of so many bytes."""
        fetched = sum(min(size, self._given[key]) for key, size in self._fetching.items())
        return PassTraffic(
            read_bytes=self.read,
            written_bytes=self.written,
            compulsory_bytes=self._fetched + fetched + results,
            new_elements=self.new_elements,
            new_bytes=self.new_bytes,
            peak_bytes=self.peak,
        )

    def give(self, tensor: Tensor) -> None:
        """Takes note of a tensor that no operator has made."""
        if storage_key(tensor) not in self._alive:
            self._given[storage_key(tensor)] = tensor.untyped_storage().nbytes()
            self._hold(tensor)

    def gave(self, tensor: Tensor) -> bool:
        """Whether the tensor's storage is one that no operator has made."""
        return storage_key(tensor) in self._given

    def release(self) -> None:
        """Forgets all storages: what outlives the measurement keeps no trace of it."""
        for _, watch in self._alive.values():
            watch.detach()
        self._alive.clear()

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        operator = func._overloadpacket.__name__.rstrip("_")
        operands = self._here(func, (*args, *kwargs.values()))
        if operator == "lift_fresh":  # a literal: this is where it comes to be
            operands = [t for t in operands if storage_key(t) in self._alive]
        for operand in operands:
            self.give(operand)
        out = func(*args, **kwargs)
        if torch.Tag.inplace_view not in func.tags:
            self._count(func, operator, args, kwargs, operands, out)
        return out

    def _here(self, func: Any, values: Any) -> list[Tensor]:
        """The tensors that lie on the tracked device."""
        found = [t for t in tensors_of(values) if t.device.type == self.device]
        for tensor in found:
            if tensor.layout is not torch.strided:
                raise ValueError(
                    f"{func} works on a tensor of layout {tensor.layout}, whose bytes do not "
                    "follow from its shape; count_exact lists what such a model runs"
                )
        return found

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        watch = finalize(storage, partial(self._freed, key))
        watch.atexit = False
        self._alive[key] = (size, watch)
        self.alive_bytes += size
        self.peak = max(self.peak, self.alive_bytes)

    def _freed(self, key: int) -> None:
        self.alive_bytes -= self._alive.pop(key)[0]
        if key in self._given:
            self._fetched += min(self._fetching.pop(key, 0), self._given.pop(key))

    def _count(
        self, func: Any, operator: str, args: Any, kwargs: Any, operands: list[Tensor], out: Any
    ) -> None:
        known = {storage_key(operand) for operand in operands}
        results = self._here(func, out)
        made = {storage_key(t): t for t in results if storage_key(t) not in known}
        for result in made.values():
            self._hold(result)
            size = result.untyped_storage().nbytes()
            self.new_bytes += size
            self.new_elements += size // result.element_size()
            self.written += 0 if operator in _UNWRITTEN else size
        unread = self._write_in_place(func, operator, args, kwargs, operands)
        view = results and not made and unread is None
        if view or operator in _SHAPE_ONLY:
            return
        limit = sum(map(stored_bytes, made.values())) if operator in _GATHERS else None
        seen = set(unread or ())
        for number, operand in enumerate(operands):
            key = storage_key(operand)
            place = (key, operand.storage_offset(), operand.shape, operand.stride())
            if place in seen:
                continue
            seen.add(place)
            size = stored_bytes(operand)
            size = size if limit is None or number else min(size, limit)
            self.read += size
            if key in self._given:
                self._fetching[key] += size

    def _write_in_place(
        self, func: Any, operator: str, args: Any, kwargs: Any, operands: list[Tensor]
    ) -> set[Any] | None:
        """Counts what is written to operands, and returns the places replaced without reading
        them; None if nothing is written in place."""
        order, writable = _writable(func)
        if not writable:
            return None
        given = dict(zip(order, args, strict=False)) | kwargs
        replaced: set[Any] | None = None
        for name, (declared, kwarg_only) in writable.items():
            if not (declared or given.get("training")):
                continue
            for t in tensors_of(given.get(name)):
                replaced = set() if replaced is None else replaced
                size, partly = stored_bytes(t), operator in _SCATTERS
                if partly:
                    most = max((each.numel() for each in operands if each is not t), default=1)
                    size = min(size, most * t.element_size())
                    self.read += size if "add" in operator or given.get("accumulate") else 0
                self.written += size
                if partly or operator in _OVERWRITES or kwarg_only:
                    replaced.add((storage_key(t), t.storage_offset(), t.shape, t.stride()))
        return replaced
