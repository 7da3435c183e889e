"""A copy of a model with its tensors on meta or a device, which shares nothing mutable with it."""

import copy
import threading
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OperatorBase

from neuroconv.flops.origins import remember

_CONTAINERS = (list, set, deque, dict, OrderedDict, defaultdict, Counter)
_IMMUTABLE = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, Enum),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, OperatorBase),
    *(type, ModuleType, BuiltinFunctionType),
)
_LOCKS = {type(threading.Lock()): threading.Lock, type(threading.RLock()): threading.RLock}


def copy_tensor(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a leaf of the same class, flags and attributes; on meta no memory is allocated."""
    if device.type == "meta":
        duplicate = torch.empty_like(tensor, device=device, requires_grad=False)
    elif tensor.is_meta:  # values do not change a count, but an operator needs some
        duplicate = torch.zeros_like(tensor, device=device, requires_grad=False)
    else:
        duplicate = tensor.detach().to(device, copy=True)
    if isinstance(tensor, nn.Parameter):
        duplicate = nn.Parameter(duplicate, requires_grad=tensor.requires_grad)
    vars(duplicate).update(vars(tensor))
    remember([duplicate])
    return duplicate.requires_grad_(tensor.requires_grad)


class Copies:
    """Copies of a model, and of all that its modules' attributes refer to, one for each object.

    Parameters and buffers go to `device`; other tensors stay where they are. A function is copied
    if its closure or its defaults hold a module or a registered tensor. A data-parallel wrapper
    becomes a call of its module. Shared with the model are classes, globals, and what cannot be
    copied, such as a pool of threads or a file.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device
        self._copies: dict[int, Any] = {}  # as the memo of `copy.deepcopy`
        self._originals: list[Any] = []  # an id is an object's own as long as the object lives
        tensors, modules = [*model.parameters(), *model.buffers()], list(model.modules())
        self._registered = set(map(id, tensors))
        for tensor in tensors:
            self.of(tensor)
        for module in modules:
            self._copies[id(module)] = object.__new__(type(module))
        for module in modules:
            self._fill(module)
        self.model: nn.Module = self.of(model)

    def of(self, value: Any) -> Any:
        """Returns the copy of an object; raises whatever its class raises if it has none."""
        if isinstance(value, _IMMUTABLE) and type(value) not in weakref.ProxyTypes:
            return value
        if id(value) not in self._copies:
            self._originals.append(value)
            self._copies.setdefault(id(value), self._copy(value))
        return self._copies[id(value)]

    def _of_or_shared(self, value: Any) -> Any:
        before = len(self._copies)
        try:
            return self.of(value)
        except Exception:  # classes that cannot be copied raise what they like
            while len(self._copies) > before:
                self._copies.popitem()
            return self._copies.setdefault(id(value), value)

    def _copy(self, value: Any) -> Any:
        kind = type(value)
        if kind in weakref.ProxyTypes:
            return weakref.proxy(self.of(value.__init__.__self__))
        if isinstance(value, nn.Module):
            self._registered.update(map(id, value.parameters()), map(id, value.buffers()))
            self._copies[id(value)] = object.__new__(kind)
            return self._fill(value)
        if isinstance(value, Tensor):
            moves = id(value) in self._registered or isinstance(value, nn.Parameter)
            return copy_tensor(value, self._device if moves else value.device)
        if isinstance(value, torch.Generator):
            return value.clone_state()
        if kind in _CONTAINERS:
            return self._container(value)
        if kind is tuple:
            return tuple(map(self._of_or_shared, value))
        if kind is FunctionType:
            return self._function(value)
        if kind is MethodType:
            return MethodType(value.__func__, self.of(value.__self__))
        if kind is partial:
            return partial(self.of(value.func), *self.of(value.args), **self.of(value.keywords))
        if kind is weakref.ref:
            return value if value() is None else weakref.ref(self.of(value()))
        if kind in _LOCKS:
            return _LOCKS[kind]()
        if kind is object or kind is threading.Thread:
            raise TypeError(f"{value!r} is itself alone")
        names = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__deepcopy__")
        if any(getattr(kind, name, None) is not getattr(object, name, None) for name in names):
            return copy.deepcopy(value, self._copies)
        copied = self._copies[id(value)] = object.__new__(kind)
        vars(copied).update({name: self.of(attribute) for name, attribute in vars(value).items()})
        return copied

    def _fill(self, module: nn.Module) -> nn.Module:
        shell: nn.Module = self._copies[id(module)]
        vars(shell).update({name: self._of_or_shared(v) for name, v in vars(module).items()})
        if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            vars(shell)["forward"] = self.of(module.module).__call__
        return shell

    def _container(self, value: Any) -> Any:
        copied = self._copies[id(value)] = copy.copy(value)  # may contain itself
        copied.clear()
        item = self._of_or_shared
        if isinstance(value, dict):
            copied.update({item(key): item(content) for key, content in value.items()})
        else:
            (copied.update if isinstance(value, set) else copied.extend)(map(item, value))
        return copied

    def _function(self, value: FunctionType) -> FunctionType:
        self._copies[id(value)] = value  # it may refer to itself
        closure, defaults = value.__closure__ or (), value.__defaults__ or ()
        cells, values = tuple(map(self._cell, closure)), tuple(map(self._part, defaults))
        if all(a is b for a, b in zip((*closure, *defaults), (*cells, *values), strict=True)):
            return value
        copied = FunctionType(value.__code__, value.__globals__, value.__name__, values, cells)
        copied.__kwdefaults__ = value.__kwdefaults__
        vars(copied).update(vars(value))
        self._copies[id(value)] = copied
        return copied

    def _cell(self, cell: CellType) -> CellType:
        if id(cell) not in self._copies:
            self._originals.append(cell)
            part = self._part(cell.cell_contents)
            self._copies[id(cell)] = cell if part is cell.cell_contents else CellType(part)
        return self._copies[id(cell)]

    def _part(self, value: Any) -> Any:
        """Returns the copy of what may belong to the model; other values are shared."""
        parts = (nn.Module, nn.Parameter, MethodType, FunctionType, partial)
        is_part = isinstance(value, parts) or id(value) in self._registered
        return self._of_or_shared(value) if is_part else value
