"""Reading a trace: the shapes, types and integers that fvcore's handles see.

A handle is given the inputs and outputs of one traced operator (torch._C.Value). A trace records
what a value depends on, and its shape, but no numbers beside constants.
"""

from math import prod
from operator import add, floordiv, mul, sub
from typing import Any


def is_tensor(value: Any) -> bool:
    """Returns whether a value is a tensor of known shape and type."""
    return bool(value.isCompleteTensor())


def is_complex(value: Any) -> bool:
    return is_tensor(value) and bool(value.type().dtype().is_complex)


def shape(value: Any) -> list[int]:
    return list(value.type().sizes())


def size(value: Any) -> int:
    return prod(shape(value))


_ARITHMETIC = {
    "aten::add": add,
    "aten::sub": sub,
    "aten::rsub": lambda a, b: b - a,
    "aten::mul": mul,
    "aten::floor_divide": floordiv,
}


def integer(value: Any) -> int:
    """Returns a traced integer: a constant, or arithmetic on sizes (x.shape[0] + 2 is recorded).

    Raises:
        ValueError: it comes from another operator.
    """
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
        return int(_ARITHMETIC[kind](integer(inputs[0]), integer(inputs[1])))
    raise ValueError(
        f"fvcore: the length of a transform comes from {kind}, which a trace does not resolve. "
        "Compute lengths with + - * // on sizes, or turn them into int"
    )


def integers(value: Any) -> list[int] | None:
    """Returns a traced list of integers; None for None."""
    if value.type().kind() == "NoneType":
        return None
    if value.node().kind() == "prim::ListConstruct":
        return [integer(item) for item in value.node().inputs()]
    constant = value.toIValue()
    return list(constant) if isinstance(constant, list) else [integer(value)]


def tensors(value: Any) -> list[Any]:
    """Returns the tensors of a traced list; [] if the value is no list, or None is among them."""
    if value.node().kind() != "prim::ListConstruct":
        return []
    items = list(value.node().inputs())
    return items if all(is_tensor(item) for item in items) else []
