"""One call of an operator, as torch's dispatcher sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neuroconv.flops.origins import FOREIGN, remember
from neuroconv.flops.rules import DATA
from neuroconv.kernels.operator import plain_operators

# Operators that write nothing to their results, and that read nothing of a tensor but its shape.
_UNWRITTEN, _SHAPE_ONLY = (
    frozenset(DATA["memory"][kind].split()) for kind in ("unwritten", "shape_only")
)
Amounts = Mapping[str, int]  # by operator family: MAC of contractions, FLOP of the others

# Products whose operands have one dtype on every device but meta, which multiplies any.
_PRODUCTS = {
    *("addbmm", "addmm", "addmv", "baddbmm", "bmm", "convolution", "dot", "mm", "mv", "vdot")
}


class OperatorMode(TorchDispatchMode):
    """A dispatch mode whose `run` sees every operator that executes, none of them composite."""

    _within_kernel = False

    def __init__(self) -> None:
        super().__init__()
        self.foreign = FOREIGN.get()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (plain := plain_operators(func)) is not None:  # a kernel of this package
            outer, self._within_kernel = self._within_kernel, True
            try:
                with self:
                    return plain(*args, **kwargs)
            finally:
                self._within_kernel = outer
        # Within a kernel, as in inference mode, composite operators arrive whole.
        if self._within_kernel or torch.is_inference_mode_enabled():
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        name = name_of(func)
        dtypes = {a.dtype for a in args if isinstance(a, Tensor)} if name in _PRODUCTS else ()
        if len(dtypes) > 1:
            names = ", ".join(sorted(map(str, dtypes)))
            raise TypeError(f"{func} of {names}; expected one dtype, of model and inputs")
        values = dict(zip((n for n, _ in _parameters(func)), args, strict=False)) | kwargs
        overwritten = tensors_of([values.pop(n) for n in _overwritten(func) & values.keys()])
        read = tensors_of(values)
        if self.foreign is not None and not (func.is_view or name in _SHAPE_ONLY):
            receiver = f"{func}{self.where()}"
            self.foreign.check(receiver, read)
            self.foreign.check(receiver, overwritten, written=False)
        out = self.run(func, args, kwargs)
        viewed = read if func.is_view and name != "lift_fresh" else []  # which lifts a literal
        remember(overwritten)
        remember(tensors_of(out), written=name not in _UNWRITTEN, viewed=viewed)
        return out

    def receive(self, outputs: Any) -> list[Tensor]:
        """Returns the model's output tensors, and checks where they come from."""
        tensors = tensors_of(outputs)
        if self.foreign is not None:
            self.foreign.check("the output", tensors)
        return tensors

    def where(self) -> str:
        """Returns " in" and the module that is running, if that is known."""
        return ""

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Executes the operator, and returns its results."""
        raise NotImplementedError


def tensors_of(values: Any) -> list[Tensor]:
    """Returns all tensors in values, nested in lists, tuples, dictionaries and dataclasses."""
    tensors: list[Tensor] = []
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif hasattr(leaf, "__dataclass_fields__") and not isinstance(leaf, type):
            # Of a class that torch does not know.
            tensors += tensors_of([getattr(leaf, name) for name in leaf.__dataclass_fields__])
    return tensors


def name_of(func: Any) -> str:
    """Returns an operator's name without overload and an in-place operator's underscore.

    Outside aten, and its parts in prims, the namespace comes first, as in "torchvision::nms".
    """
    name = str(func._overloadpacket.__name__)
    name = name if name.startswith("__") else name.rstrip("_")
    return name if func.namespace in ("aten", "prims") else f"{func.namespace}::{name}"


@cache
def _parameters(func: Any) -> tuple[tuple[str, Any], ...]:
    """Returns names and defaults by the operator's schema, which is slow to read."""
    return tuple((argument.name, argument.default_value) for argument in func._schema.arguments)


@cache
def _overwritten(func: Any) -> frozenset[str]:
    aliases = {argument.name: argument.alias_info for argument in func._schema.arguments}
    return frozenset(name for name, info in aliases.items() if info is not None and info.is_write)


@dataclass(frozen=True)
class Call:
    """One call: `name_of` the operator, arguments by name with defaults, and result tensors."""

    operator: str
    arguments: Mapping[str, Any]
    results: list[Tensor]

    @classmethod
    def of(cls, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> "Call":
        arguments = {
            name: args[position] if position < len(args) else kwargs.get(name, default)
            for position, (name, default) in enumerate(_parameters(func))
        }
        return cls(name_of(func), arguments, tensors_of(out))

    @cached_property
    def is_integral(self) -> bool:
        """Whether no operand and no result is of real or complex numbers."""
        tensors = self.operands + self.results
        return not any(t.is_floating_point() or t.is_complex() for t in tensors)

    @cached_property
    def operands(self) -> list[Tensor]:
        return tensors_of(list(self.arguments.values()))

    def tensor(self, position: int) -> Tensor:
        return list(self.arguments.values())[position]

    @property
    def read(self) -> int:
        """Elements of the first operand."""
        return self.operands[0].numel()

    @property
    def written(self) -> int:
        """Elements of the first result."""
        return self.results[0].numel()
