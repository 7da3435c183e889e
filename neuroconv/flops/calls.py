"""One call of an operator, as torch's dispatcher sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neuroconv.kernels.operator import plain_operators

Amounts = Mapping[str, int]  # by operator family: MAC of contractions, FLOP of the others


# Products whose operands have one dtype on every device but meta, which multiplies any.
_PRODUCTS = {
    *("addbmm", "addmm", "addmv", "baddbmm", "bmm", "convolution", "dot", "mm", "mv", "vdot"),
}


class OperatorMode(TorchDispatchMode):
    """A dispatch mode whose `run` sees every operator that executes, none of them composite."""

    _within_kernel = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (plain := plain_operators(func)) is not None:  # a kernel of this package
            self._within_kernel = True
            try:
                with self:
                    return plain(*args, **kwargs)
            finally:
                self._within_kernel = False
        # Within a kernel, as in inference mode, composite operators arrive whole.
        if self._within_kernel or torch.is_inference_mode_enabled():
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        dtypes = {a.dtype for a in args if isinstance(a, Tensor)}
        if len(dtypes) > 1 and name_of(func) in _PRODUCTS:
            names = ", ".join(sorted(map(str, dtypes)))
            raise TypeError(f"{func} of {names}; expected one dtype, of model and inputs")
        return self.run(func, args, kwargs)

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Executes the operator, and returns its results."""
        raise NotImplementedError


def tensors_of(values: Any) -> list[Tensor]:
    """Returns all tensors in values, nested in lists, tuples or dictionaries or not."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def name_of(func: Any) -> str:
    """Returns an operator's name in aten without overload and an in-place operator's underscore."""
    name = str(func._overloadpacket.__name__)
    return name if name.startswith("__") else name.rstrip("_")


@cache
def _parameters(func: Any) -> tuple[tuple[str, Any], ...]:
    """Returns names and defaults by the operator's schema, which is slow to read."""
    return tuple((argument.name, argument.default_value) for argument in func._schema.arguments)


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

    @property
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
