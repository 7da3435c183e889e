"""How the fvcore witness counts contractions: convolutions, matrix products, Fourier transforms.

Real convolutions and plain matrix products are left to fvcore's own handles, which are right. The
rest is counted here, from traced shapes.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from math import isqrt, prod
from types import MappingProxyType
from typing import Any

from neuroconv.flops.fvcore_graph import (
    Amounts,
    Handle,
    integer,
    integers,
    is_complex,
    is_tensor,
    shape,
    size,
    tensors,
)
from neuroconv.flops.rules import fft_transform_macs

Rule = Callable[[list[Any], list[Any]], Amounts]


def _complex(outputs: list[Any]) -> int:
    return 4 if is_complex(outputs[0]) else 1  # a complex product is four real ones


def _stock(name: str, family: str) -> Rule:
    """A handle of fvcore's own."""

    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        from fvcore.nn import jit_handles  # here, because its import warns

        counted = getattr(jit_handles, name)(inputs, outputs)
        mac = sum(counted.values()) if isinstance(counted, Counter) else counted
        complex_products = 1 if family == "convolution" else _complex(outputs)
        return {family: complex_products * int(mac)}

    return amounts


def _convolution(rule: Rule) -> Rule:
    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        counted = rule(inputs, outputs)
        if isinstance(counted, str) or not is_complex(outputs[0]):
            return counted
        # torch makes three real ones of it: of the real parts, of the imaginary, of their sums.
        sums = sum(size(given) for given in inputs[:3] if is_tensor(given))
        return {"convolution": 3 * counted["convolution"], "pointwise": sums + 7 * size(outputs[0])}

    return amounts


def _taps(inputs: list[Any], outputs: list[Any]) -> Amounts:
    return {"convolution": prod(shape(inputs[1])[1:]) * size(outputs[0])}


def _product(first: int) -> Rule:
    """Any matrix product: output elements times the last axis of the operand at `first`."""

    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        return {"matmul": _complex(outputs) * size(outputs[0]) * shape(inputs[first])[-1]}

    return amounts


def _addbmm(inputs: list[Any], outputs: list[Any]) -> Amounts:
    return {"matmul": _complex(outputs) * size(inputs[1]) * shape(inputs[2])[-1]}


def _tensordot(inputs: list[Any], outputs: list[Any]) -> Amounts:
    # |a| |b| = |out| k^2 for k contracted terms
    out = size(outputs[0])
    terms = isqrt(size(inputs[0]) * size(inputs[1]) // max(out, 1))
    return {"matmul": _complex(outputs) * out * terms}


def _bilinear(inputs: list[Any], outputs: list[Any]) -> Amounts:
    triples = size(outputs[0]) * shape(inputs[0])[-1] * shape(inputs[1])[-1]
    return {"matmul": triples, "pointwise": triples}


def _einsum(inputs: list[Any], outputs: list[Any]) -> Amounts:
    """Contract two operands at a time, along torch's path or from left to right."""
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
    counts: Counter[str] = Counter()
    while len(pending) > 1:
        pair = (path.pop(0), path.pop(0)) if path else (0, 1)
        a, b = (pending.pop(position) for position in sorted(pair, reverse=True))
        kept = set(result).union(*pending)
        # What only one of the two holds and nobody needs is summed before the product.
        touched = {label for label in a | b if label in kept or label in a & b}
        products = prod(length[label] for label in touched)
        if touched - kept:
            counts["matmul"] += _complex(outputs) * products
        else:
            counts["pointwise"] += (6 if is_complex(outputs[0]) else 1) * products
        pending.append(touched & kept)
    return counts


def _attention(inputs: list[Any], outputs: list[Any]) -> Amounts:
    query, key, value = (shape(given) for given in inputs[:3])
    scores = prod(query[:-1]) * key[-2]
    dropped = scores if inputs[4].toIValue() else 0
    return {
        "matmul": scores * (query[-1] + value[-1]),
        "pointwise": scores * (1 + is_tensor(inputs[3])) + 2 * dropped,
        "normalisation": 5 * scores,
        "random": dropped,
    }


# Gates of a cell, and the FLOPs of one hidden unit and step beside the matrix products. A gate
# adds what comes from the input to what comes from the state, then takes its sigmoid or tanh. An
# LSTM then does c = f c + i g and h = o tanh(c); a GRU n = tanh(a + r b), h = n + z (h - n).
_CELLS = {
    "lstm": (4, 4 * 2 + 3 + 2),
    "gru": (3, 2 * 2 + 3 + 3),
    "rnn_tanh": (1, 2),
    "rnn_relu": (1, 2),
}


def _recurrent(cell: str) -> Rule:
    """A whole recurrent layer, of all its layers, directions and steps."""
    gates, flop = _CELLS[cell]

    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        # The input is (..., features), packed or not; the last list of tensors is the weights.
        steps = prod(shape(inputs[0])[:-1])
        place, weights = [(i, w) for i, w in enumerate(map(tensors, inputs)) if w][-1]
        layers, both = integer(inputs[place + 2]), inputs[place + 5].toIValue()
        cells = layers * (2 if both else 1)
        first = weights[:: len(weights) // cells]  # each cell's input weights come first
        hidden = sum(shape(weight)[0] // gates for weight in first)
        matrices = sum(size(weight) for weight in weights if len(shape(weight)) == 2)
        return {"matmul": steps * matrices, "pointwise": steps * hidden * flop}

    return amounts


def _fft(kind: str, several: bool) -> Rule:
    """A transform along one axis or several; kind is "r2c", "c2r" or "c2c"."""

    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        source, out = shape(inputs[0]), shape(outputs[0])
        lengths, axes = integers(inputs[1]), integers(inputs[2])
        if axes is None:
            axes = list(range(-len(lengths or source), 0))
        points = prod(out[axis] for axis in axes)
        transforms = prod(out) // points
        if kind == "r2c":  # half of the last axis is kept: its length is that of the real input
            last = lengths[-1] if lengths else source[axes[-1]]
            points = points // out[axes[-1]] * last
        # Along one axis torch transforms a real input by the real algorithm, along several not.
        real = kind != "c2c" or not (several or is_complex(inputs[0]))
        return {"fft": fft_transform_macs(points, real=real) * transforms}

    return amounts


def _transforms() -> dict[str, Handle]:
    found: dict[str, Handle] = {}
    for kind, transforms in {"r2c": "rfft ihfft", "c2r": "irfft hfft", "c2c": "fft ifft"}.items():
        how = f"{2.5 if kind == 'c2c' else 1.25} n log2 n MAC a transform"
        if kind == "c2c":
            how += ", half of it along one axis of a real input"
        for name in transforms.split():
            found |= Handle("fft", how, _fft(kind, several=False)).of(f"fft_{name}")
            if "h" not in name:
                found |= Handle("fft", how, _fft(kind, several=True)).of(f"fft_{name}2 fft_{name}n")
    return found


_CONVOLUTION = "weights x output positions x batch (transposed: input positions)"
_PRODUCT = "m n k of each matrix product"

CONTRACTION_HANDLES: Mapping[str, Handle] = MappingProxyType({
    **Handle("convolution", f"{_CONVOLUTION}; fvcore's own handle",
             _convolution(_stock("conv_flop_jit", "convolution"))).of("_convolution"),
    **Handle("convolution", _CONVOLUTION, _convolution(_taps)).of("_convolution_mode"),
    **{f"aten::{name}": Handle("matmul", f"{_PRODUCT}; fvcore's own handle",
                               _stock(f"{handle}_flop_jit", "matmul"))
       for name, handle in {"linear": "linear", "addmm": "addmm", "mm": "matmul",
                            "bmm": "bmm"}.items()},
    **Handle("matmul", _PRODUCT, _product(0)).of("matmul mv dot vdot inner"),
    **Handle("matmul", _PRODUCT, _product(1)).of("baddbmm addmv"),
    **Handle("matmul", "batch m n k", _addbmm).of("addbmm"),
    **Handle("matmul", "output elements x contracted terms", _tensordot).of("tensordot"),
    **Handle("matmul", "a MAC and a product for each triple", _bilinear).of("bilinear"),
    **Handle("matmul", "two operands at a time along torch's path; a product without a sum is "
             "pointwise", _einsum).of("einsum"),
    **Handle("matmul", "query x key and weights x value; 6 FLOP a score for scale and softmax, "
             "7 with a mask", _attention).of("scaled_dot_product_attention"),
    **{f"aten::{cell}": Handle("matmul", "each weight matrix once a step and sequence; "
                               f"{flop} FLOP a hidden unit", _recurrent(cell))
       for cell, (_, flop) in _CELLS.items()},
    **_transforms(),
})  # fmt: skip
