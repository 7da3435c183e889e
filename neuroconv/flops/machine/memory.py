"""Bytes that operators read and write, and the storages that are alive."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from math import prod
from typing import Any
from weakref import finalize

import torch
from torch import Tensor

from neuroconv.core.counting import repeats
from neuroconv.flops.calls import Call, OperatorMode, name_of, tensors_of
from neuroconv.flops.rules import DATA

# Operators whose schema does not say what they read and write: see operators.toml.
_SHAPE_ONLY, _UNWRITTEN, _OVERWRITES, _GATHERS, _SCATTERS = (
    frozenset(DATA["memory"][kind].split())
    for kind in ("shape_only", "unwritten", "overwrites", "gathers", "scatters")
)


@dataclass
class PassTraffic:
    """Bytes of one pass, forward or backward, for the whole batch.

    Attributes:
        read_bytes: each operator reads each of its tensors once; an expanded tensor counts by what
            is stored of it, and a gather reads no more than it returns.
        written_bytes: each operator writes its results once, in place or not. Views are free.
        compulsory_bytes: each parameter, buffer and input (backward: gradient of an output too)
            that the pass reads, once, and the outputs or gradients that it leaves, once.
        new_elements, new_bytes: of all tensors that operators allocated.
        peak_bytes: of parameters, buffers, inputs and all tensors alive at once.
    """

    read_bytes: int = 0
    written_bytes: int = 0
    compulsory_bytes: int = 0
    new_elements: int = 0
    new_bytes: int = 0
    peak_bytes: int = 0

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


def _view(tensor: Tensor) -> tuple[Any, ...]:
    return storage_key(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()


@cache
def _writable(func: Any) -> dict[str, tuple[bool, bool]]:
    """Returns whether each argument that may be written to is declared so, and keyword-only."""
    writable = {}
    for argument in func._schema.arguments:
        declared = bool(argument.alias_info and argument.alias_info.is_write)
        # Batch norms do not declare that they move their statistics.
        if declared or argument.name in ("running_mean", "running_var"):
            writable[argument.name] = (declared, bool(argument.kwarg_only))
    return writable


class MemoryTracker(OperatorMode):
    """A count of the bytes of every operator on one type of device, and of the storages alive."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.alive_bytes = 0
        self._alive: dict[int, tuple[int, finalize]] = {}
        self._external: dict[int, int] = {}  # storages that no operator made, and their bytes
        self.begin()

    def begin(self) -> None:
        """Starts a pass."""
        self.traffic = PassTraffic(peak_bytes=self.alive_bytes)
        self._fetched = 0  # bytes of external storages that are freed
        self._fetching: Counter[int] = Counter()  # of those that are alive

    def end(self, result_bytes: int) -> PassTraffic:
        """Returns the pass so far, which leaves results of `result_bytes`."""
        fetched = sum(min(size, self._external[key]) for key, size in self._fetching.items())
        return replace(self.traffic, compulsory_bytes=self._fetched + fetched + result_bytes)

    def add_external(self, tensor: Tensor) -> None:
        """Tracks a tensor that no operator has allocated."""
        if storage_key(tensor) not in self._alive:
            self._external[storage_key(tensor)] = tensor.untyped_storage().nbytes()
            self._track(tensor)

    def is_external(self, tensor: Tensor) -> bool:
        return storage_key(tensor) in self._external

    def release(self) -> None:
        """Forgets the storages that outlive the measurement."""
        for _, watch in self._alive.values():
            watch.detach()
        self._alive.clear()

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        operands = self._on_device(func, (args, kwargs))
        if name_of(func) == "lift_fresh":  # a literal, which comes into being here
            operands = [t for t in operands if storage_key(t) in self._alive]
        for operand in operands:
            self.add_external(operand)
        out = func(*args, **kwargs)
        if torch.Tag.inplace_view not in func.tags:
            self._count(func, Call.of(func, args, kwargs, out), operands)
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
        self.traffic.peak_bytes = max(self.traffic.peak_bytes, self.alive_bytes)

    def _freed(self, key: int) -> None:
        self.alive_bytes -= self._alive.pop(key)[0]
        if key in self._external:
            self._fetched += min(self._fetching.pop(key, 0), self._external.pop(key))

    def _count(self, func: Any, call: Call, operands: list[Tensor]) -> None:
        operand_keys = {storage_key(operand) for operand in operands}
        results = self._on_device(func, call.results)
        new = {storage_key(t): t for t in results if storage_key(t) not in operand_keys}
        times = repeats()
        for result in new.values():
            self._track(result)
            size = times * result.untyped_storage().nbytes()
            self.traffic.new_bytes += size
            self.traffic.new_elements += size // result.element_size()
            self.traffic.written_bytes += 0 if call.operator in _UNWRITTEN else size
        overwritten = self._write_in_place(func, call, operands)
        is_view = results and not new and overwritten is None
        if is_view or call.operator in _SHAPE_ONLY:
            return
        counted = overwritten or set()
        for position, operand in enumerate(operands):
            if _view(operand) in counted:
                continue
            counted.add(_view(operand))
            size = stored_bytes(operand)
            if call.operator in _GATHERS and position == 0:
                size = min(size, sum(map(stored_bytes, new.values())))
            self.traffic.read_bytes += times * size
            if self.is_external(operand):
                self._fetching[storage_key(operand)] += times * size

    def _write_in_place(self, func: Any, call: Call, operands: list[Tensor]) -> set[Any] | None:
        """Counts what is written to operands, and returns the views replaced without being read.

        None if nothing is written in place.
        """
        replaced: set[Any] | None = None
        for name, (declared, kwarg_only) in _writable(func).items():
            if not (declared or call.arguments.get("training")):
                continue
            for target in tensors_of(call.arguments[name]):
                replaced = set() if replaced is None else replaced
                size, is_part = stored_bytes(target), call.operator in _SCATTERS
                if is_part:
                    elements = max((o.numel() for o in operands if o is not target), default=1)
                    size = min(size, elements * target.element_size())
                    if "add" in call.operator or call.arguments.get("accumulate"):
                        self.traffic.read_bytes += repeats() * size
                self.traffic.written_bytes += repeats() * size
                if is_part or call.operator in _OVERWRITES or kwarg_only:
                    replaced.add(_view(target))
        return replaced
