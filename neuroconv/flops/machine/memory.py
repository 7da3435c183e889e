"""Bytes that operators read and write, and the storages that are alive."""

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
from neuroconv.flops.rulebook import DATA
from neuroconv.flops.rules import names

# Operators whose schema does not say what they read and write: see operators.toml.
_SHAPE_ONLY, _UNWRITTEN, _OVERWRITES, _GATHERS, _SCATTERS = (
    names(DATA["memory"][kind])
    for kind in ("shape_only", "unwritten", "overwrites", "gathers", "scatters")
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
    """Returns the bytes of the elements in memory: an expanded axis is stored once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    elements = prod(size if stride or not size else 1 for size, stride in sizes)
    return min(elements * tensor.element_size(), tensor.untyped_storage().nbytes())


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    return sum({storage_key(t): t.untyped_storage().nbytes() for t in tensors}.values())


def tensors_in(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


View = tuple[
    int, int | torch.SymInt, torch.Size, tuple[int, ...]
]  # storage, offset, shape, strides


def _view(tensor: Tensor) -> View:
    return storage_key(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()


@cache
def _writable(func: Any) -> tuple[tuple[str, ...], dict[str, tuple[bool, bool]]]:
    """Reads an operator's schema, which is slow.

    Returns:
        The names of its arguments, and of those that it may write to: whether the schema declares
        it, and whether the argument is keyword-only.
    """
    arguments = func._schema.arguments
    writable = {}
    for argument in arguments:
        declared = bool(argument.alias_info and argument.alias_info.is_write)
        # Batch norms do not declare that they move their statistics.
        if declared or argument.name in ("running_mean", "running_var"):
            writable[argument.name] = (declared, bool(argument.kwarg_only))
    return tuple(argument.name for argument in arguments), writable


class MemoryTracker(OperatorMode):
    """Counts the bytes of every operator, and tracks the storages alive.

    Args:
        device: type of the device whose memory is tracked. Tensors elsewhere, such as a literal on
            its way to the device, are left out.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.alive_bytes = 0
        self._alive: dict[int, tuple[int, finalize]] = {}
        self._external: dict[int, int] = {}  # storages that no operator made, and their bytes
        self.begin()

    def begin(self) -> None:
        """Starts a pass."""
        self.read = self.written = self.new_elements = self.new_bytes = 0
        self.peak = self.alive_bytes
        self._fetched = 0  # bytes of external storages that are freed
        self._fetching: Counter[int] = Counter()  # of those that are alive

    def end(self, result_bytes: int) -> PassTraffic:
        """Returns the pass so far, which leaves results of `result_bytes`."""
        fetched = sum(min(size, self._external[key]) for key, size in self._fetching.items())
        return PassTraffic(
            read_bytes=self.read,
            written_bytes=self.written,
            compulsory_bytes=self._fetched + fetched + result_bytes,
            new_elements=self.new_elements,
            new_bytes=self.new_bytes,
            peak_bytes=self.peak,
        )

    def add_external(self, tensor: Tensor) -> None:
        """Tracks a tensor that no operator has made."""
        if storage_key(tensor) not in self._alive:
            self._external[storage_key(tensor)] = tensor.untyped_storage().nbytes()
            self._track(tensor)

    def is_external(self, tensor: Tensor) -> bool:
        """Returns whether no operator has made the tensor's storage."""
        return storage_key(tensor) in self._external

    def release(self) -> None:
        """Forgets all storages, so that those that outlive the measurement are not tracked."""
        for _, watch in self._alive.values():
            watch.detach()
        self._alive.clear()

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        operator = func._overloadpacket.__name__.rstrip("_")
        operands = self._on_device(func, (*args, *kwargs.values()))
        if operator == "lift_fresh":  # a literal, which comes into being here
            operands = [t for t in operands if storage_key(t) in self._alive]
        for operand in operands:
            self.add_external(operand)
        out = func(*args, **kwargs)
        if torch.Tag.inplace_view not in func.tags:
            self._count(func, operator, args, kwargs, operands, out)
        return out

    def _on_device(self, func: Any, values: Any) -> list[Tensor]:
        tensors = [t for t in tensors_of(values) if t.device.type == self.device]
        for tensor in tensors:
            if tensor.layout is not torch.strided:
                raise ValueError(
                    f"{func} works on a tensor of layout {tensor.layout}, whose bytes do not "
                    "follow from its shape; count_exact lists what such a model runs"
                )
        return tensors

    def _track(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        watch = finalize(storage, partial(self._freed, key))
        watch.atexit = False
        self._alive[key] = (size, watch)
        self.alive_bytes += size
        self.peak = max(self.peak, self.alive_bytes)

    def _freed(self, key: int) -> None:
        self.alive_bytes -= self._alive.pop(key)[0]
        if key in self._external:
            self._fetched += min(self._fetching.pop(key, 0), self._external.pop(key))

    def _count(
        self, func: Any, operator: str, args: Any, kwargs: Any, operands: list[Tensor], out: Any
    ) -> None:
        operand_keys = {storage_key(operand) for operand in operands}
        results = self._on_device(func, out)
        new = {storage_key(t): t for t in results if storage_key(t) not in operand_keys}
        for result in new.values():
            self._track(result)
            size = result.untyped_storage().nbytes()
            self.new_bytes += size
            self.new_elements += size // result.element_size()
            self.written += 0 if operator in _UNWRITTEN else size
        overwritten = self._write_in_place(func, operator, args, kwargs, operands)
        is_view = results and not new and overwritten is None
        if is_view or operator in _SHAPE_ONLY:
            return
        limit = sum(map(stored_bytes, new.values())) if operator in _GATHERS else None
        seen = set(overwritten or ())
        for number, operand in enumerate(operands):
            if _view(operand) in seen:
                continue
            seen.add(_view(operand))
            size = stored_bytes(operand)
            size = size if limit is None or number else min(size, limit)
            self.read += size
            if self.is_external(operand):
                self._fetching[storage_key(operand)] += size

    def _write_in_place(
        self, func: Any, operator: str, args: Any, kwargs: Any, operands: list[Tensor]
    ) -> set[View] | None:
        """Counts what is written to operands.

        Returns:
            The views that were replaced without being read; None if nothing is written in place.
        """
        order, writable = _writable(func)
        if not writable:
            return None
        arguments = dict(zip(order, args, strict=False)) | kwargs
        replaced: set[View] | None = None
        for name, (declared, kwarg_only) in writable.items():
            if not (declared or arguments.get("training")):
                continue
            for t in tensors_of(arguments.get(name)):
                replaced = set() if replaced is None else replaced
                size, is_part = stored_bytes(t), operator in _SCATTERS
                if is_part:
                    elements = max((o.numel() for o in operands if o is not t), default=1)
                    size = min(size, elements * t.element_size())
                    self.read += size if "add" in operator or arguments.get("accumulate") else 0
                self.written += size
                if is_part or operator in _OVERWRITES or kwarg_only:
                    replaced.add(_view(t))
        return replaced
