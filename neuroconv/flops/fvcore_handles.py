"""fvcore's handles for contractions: MAC from the inputs and outputs of a traced operator.

Real convolutions and plain matrix products are left to fvcore's own handles, which are right. What
fvcore has no handle for, or counts wrongly, is counted here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from math import isqrt, prod
from operator import add, floordiv, mul, sub
from typing import Any

import torch

from neuroconv.core.cost import fft_macs
from neuroconv.flops.operators import RULES, ZERO, is_pointwise
from neuroconv.flops.rules import CONTRACTIONS, DATA, Rule, read_rules

# --- reading a trace: a torch._C.Value has a shape, and no number unless it is constant


def is_complex(value: Any) -> bool:
    return bool(value.isCompleteTensor() and value.type().dtype().is_complex)


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
    """Returns a traced integer: a constant, or arithmetic on sizes (x.shape[0] + 2 is recorded)."""
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
    return items if all(item.isCompleteTensor() for item in items) else []


Count = Callable[[list[Any], list[Any]], int]


def _factor(outputs: list[Any], if_complex: int) -> int:
    return if_complex if is_complex(outputs[0]) else 1


def stock(handle: str, if_complex: int) -> Count:
    """Counts by a handle of fvcore's own; a complex operator as `if_complex` real ones."""

    def mac(inputs: list[Any], outputs: list[Any]) -> int:
        from fvcore.nn import jit_handles  # here, because its import warns

        counted = getattr(jit_handles, handle)(inputs, outputs)
        total = sum(counted.values()) if isinstance(counted, Counter) else counted
        return _factor(outputs, if_complex) * int(total)

    return mac


def convolution(inputs: list[Any], outputs: list[Any]) -> int:
    return _factor(outputs, 3) * prod(shape(inputs[1])[1:]) * size(outputs[0])


def product(operand: int) -> Count:
    """Counts output elements times the last axis of an operand."""

    def mac(inputs: list[Any], outputs: list[Any]) -> int:
        return _factor(outputs, 4) * size(outputs[0]) * shape(inputs[operand])[-1]

    return mac


def addbmm(inputs: list[Any], outputs: list[Any]) -> int:
    return _factor(outputs, 4) * size(inputs[1]) * shape(inputs[2])[-1]


def tensordot(inputs: list[Any], outputs: list[Any]) -> int:
    out = size(outputs[0])
    terms = isqrt(size(inputs[0]) * size(inputs[1]) // max(out, 1))  # |a| |b| = |out| terms^2
    return _factor(outputs, 4) * out * terms


def bilinear(inputs: list[Any], outputs: list[Any]) -> int:
    return size(outputs[0]) * shape(inputs[0])[-1] * shape(inputs[1])[-1]


def einsum(inputs: list[Any], outputs: list[Any]) -> int:
    """Contracts two operands at a time, along torch's path or from left to right."""
    equation = inputs[0].toIValue()
    terms, arrow, result = equation.replace(" ", "").partition("->")
    if "..." in terms or not arrow:
        raise ValueError(f"fvcore: write einsum {equation!r} with every index and '->'")
    length: dict[str, int] = {}
    for term, operand in zip(terms.split(","), tensors(inputs[1]), strict=True):
        for label, points in zip(term, shape(operand), strict=True):
            length[label] = max(points, length.get(label, 1))
    path = integers(inputs[2]) if len(inputs) > 2 else None
    pending = [set(term) for term in terms.split(",")]
    mac = 0
    while len(pending) > 1:
        pair = (path.pop(0), path.pop(0)) if path else (0, 1)
        a, b = (pending.pop(position) for position in sorted(pair, reverse=True))
        needed = set(result).union(*pending)
        # An index of one operand alone that is not needed is summed before the product.
        labels = {label for label in a | b if label in needed or label in a & b}
        if labels - needed:  # else nothing is summed, and the product is pointwise
            mac += _factor(outputs, 4) * prod(length[label] for label in labels)
        pending.append(labels & needed)
    return mac


def attention(inputs: list[Any], outputs: list[Any]) -> int:
    query, key, value = (shape(operand) for operand in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def recurrent(inputs: list[Any], outputs: list[Any]) -> int:
    # The input is (..., features), packed or not; the last list of tensors is the weights.
    weights = [weights for weights in map(tensors, inputs) if weights][-1]
    matrices = sum(size(weight) for weight in weights if len(shape(weight)) == 2)
    return prod(shape(inputs[0])[:-1]) * matrices


def fft(kind: str, several: bool = False) -> Count:
    """Counts transforms along one axis or several; kind: "r2c", "c2r" or "c2c"."""

    def mac(inputs: list[Any], outputs: list[Any]) -> int:
        source, out = shape(inputs[0]), shape(outputs[0])
        lengths, axes = integers(inputs[1]), integers(inputs[2])
        if axes is None:
            axes = list(range(-len(lengths or source), 0))
        points = prod(out[axis] for axis in axes)
        transforms = prod(out) // points
        if kind == "r2c":  # half of the last axis is kept: its length is that of the real input
            points = points // out[axes[-1]] * (lengths[-1] if lengths else source[axes[-1]])
        # Along one axis torch transforms a real input by the real algorithm, along several not.
        real = kind != "c2c" or not (several or is_complex(inputs[0]))
        return fft_macs(points, real=real) * transforms

    return mac


# By operator of a trace, in-place forms included.
HANDLES: Mapping[str, Rule] = {
    f"aten::{form}": rule
    for name, rule in read_rules("fvcore", globals()).items()
    for form in (name, f"{name}_")
    if form == name or hasattr(torch.ops.aten, form)
}
_NO_CONTRACTION = {*ZERO, *DATA["fvcore_ignored"]["operators"].split()}


def contracts_nothing(operator: str) -> bool:
    """Returns whether a traced operator without a handle is known to hold no contraction."""
    namespace, _, name = operator.partition("::")
    if namespace != "aten":
        return False
    name = name if name.startswith("__") else name.rstrip("_")
    if name in RULES:
        return RULES[name].family not in CONTRACTIONS
    packet = getattr(torch.ops.aten, name, None)
    overloads = () if packet is None else [getattr(packet, n) for n in packet.overloads()]
    return name in _NO_CONTRACTION or any(o.is_view or is_pointwise(o) for o in overloads)
