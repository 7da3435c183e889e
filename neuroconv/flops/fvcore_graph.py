"""Reading a trace: the shapes, types and integers that fvcore's handles see.

A handle is given the inputs and outputs of one traced operator (torch._C.Value). A trace records
what a value depends on, and its shape, but no numbers beside constants.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

# MAC of contractions and FLOP of the others by family; or why the operator costs nothing.
Amounts = Mapping[str, int] | str


@dataclass(frozen=True)
class Handle:
    """How one traced operator is counted.

    Attributes:
        family: what its work is, mainly; see `neuroconv.flops.rules`. "zero": it costs nothing.
        how: the rule in a few words.
        amounts: the rule itself, of the operator's traced inputs and outputs.
    """

    family: str
    how: str
    amounts: Callable[[list[Any], list[Any]], Amounts]

    def of(self, operators: str) -> dict[str, "Handle"]:
        """The handle for each of the operators that a text names, and for their in-place forms."""
        found = {}
        for name in operators.split():
            found[f"aten::{name}"] = self
            if hasattr(torch.ops.aten, f"{name}_"):
                found[f"aten::{name}_"] = self
        return found


def shape(value: Any) -> list[int]:
    """The shape of a traced tensor."""
    return list(value.type().sizes())


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of known shape and type."""
    return bool(value.isCompleteTensor())


def _dtype(value: Any) -> torch.dtype:
    dtype: torch.dtype = value.type().dtype()
    return dtype


def is_complex(value: Any) -> bool:
    """Whether a value is a tensor of complex numbers."""
    return is_tensor(value) and _dtype(value).is_complex


def is_boolean(value: Any) -> bool:
    """Whether a value is a tensor of Booleans."""
    return is_tensor(value) and _dtype(value) == torch.bool


def size(value: Any) -> int:
    """The number of elements of a traced tensor."""
    return prod(shape(value))


def is_float(value: Any) -> bool:
    """Whether a value is a tensor of real or complex floating-point numbers."""
    return is_tensor(value) and (_dtype(value).is_floating_point or _dtype(value).is_complex)


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "aten::add": lambda a, b: a + b,
    "aten::sub": lambda a, b: a - b,
    "aten::rsub": lambda a, b: b - a,
    "aten::mul": lambda a, b: a * b,
    "aten::floor_divide": lambda a, b: a // b,
}


def integer(value: Any) -> int:
    """A traced integer: a constant, or arithmetic on sizes (tracing records x.shape[0] + 2)."""
    constant = value.toIValue()
    if constant is not None:
        return int(constant)
    node = value.node()
    kind, inputs = node.kind(), list(node.inputs())
    if kind == "aten::size":
        return shape(inputs[0])[integer(inputs[1])]
    if kind in ("aten::Int", "aten::ScalarImplicit", "prim::NumToTensor"):
        return integer(inputs[0])
    if kind in _ARITHMETIC:
        return _ARITHMETIC[kind](integer(inputs[0]), integer(inputs[1]))
    raise ValueError(
        f"fvcore: the length of a transform comes from {kind}, which a trace does not resolve. "
        "Compute lengths with + - * // on sizes, or turn them into int"
    )


def integers(value: Any) -> list[int] | None:
    """A traced list of integers; None for None."""
    if value.type().kind() == "NoneType":
        return None
    if value.node().kind() == "prim::ListConstruct":
        return [integer(item) for item in value.node().inputs()]
    constant = value.toIValue()
    return list(constant) if isinstance(constant, list) else [integer(value)]


def tensors(value: Any) -> list[Any]:
    """The tensors of a traced list; empty if the value is no list, or None is among them."""
    if value.node().kind() != "prim::ListConstruct":
        return []
    held = list(value.node().inputs())
    return held if all(is_tensor(item) for item in held) else []
