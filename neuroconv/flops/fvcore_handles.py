"""fvcore's handles for contractions: convolutions, matrix products, Fourier transforms.

Real convolutions and plain matrix products are left to fvcore's own handles, which are right. What
fvcore has no handle for, or counts wrongly, is counted here from traced shapes.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt, prod
from types import MappingProxyType
from typing import Any

import torch

from neuroconv.flops.fvcore_trace import integers, is_complex, shape, size, tensors
from neuroconv.flops.operators import RULES, ZERO, is_pointwise
from neuroconv.flops.rules import CONTRACTIONS, fft_transform_macs, names

Rule = Callable[[list[Any], list[Any]], int]  # MAC by the traced inputs and outputs


@dataclass(frozen=True)
class Handle:
    """How one traced operator is counted.

    Attributes:
        family: one of `CONTRACTIONS`.
        how: the rule in a few words.
        mac: the rule itself, of the operator's traced inputs and outputs.
    """

    family: str
    how: str
    mac: Rule

    def of(self, operators: str) -> dict[str, "Handle"]:
        """Returns the handle for each operator of a text, and for its in-place form."""
        aten, words = torch.ops.aten, operators.split()
        forms = [*words, *(f"{name}_" for name in words if hasattr(aten, f"{name}_"))]
        return {f"aten::{name}": self for name in forms}


def _complex(outputs: list[Any]) -> int:
    return 4 if is_complex(outputs[0]) else 1  # a complex product is four real ones


def _stock(name: str) -> Rule:
    """Returns the rule by a handle of fvcore's own."""

    def mac(inputs: list[Any], outputs: list[Any]) -> int:
        from fvcore.nn import jit_handles  # here, because its import warns

        counted = getattr(jit_handles, name)(inputs, outputs)
        return int(sum(counted.values()) if isinstance(counted, Counter) else counted)

    return mac


def _convolution(rule: Rule) -> Rule:
    # torch makes three real convolutions of a complex one.
    return lambda inputs, outputs: rule(inputs, outputs) * (3 if is_complex(outputs[0]) else 1)


def _taps(inputs: list[Any], outputs: list[Any]) -> int:
    return prod(shape(inputs[1])[1:]) * size(outputs[0])


def _stock_product(name: str) -> Rule:
    rule = _stock(name)
    return lambda inputs, outputs: _complex(outputs) * rule(inputs, outputs)


def _product(operand: int) -> Rule:
    """Returns the rule of a product: output elements times the last axis of an operand."""
    return lambda inputs, outputs: _complex(outputs) * size(outputs[0]) * shape(inputs[operand])[-1]


def _addbmm(inputs: list[Any], outputs: list[Any]) -> int:
    return _complex(outputs) * size(inputs[1]) * shape(inputs[2])[-1]


def _tensordot(inputs: list[Any], outputs: list[Any]) -> int:
    out = size(outputs[0])
    terms = isqrt(size(inputs[0]) * size(inputs[1]) // max(out, 1))  # |a| |b| = |out| terms^2
    return _complex(outputs) * out * terms


def _bilinear(inputs: list[Any], outputs: list[Any]) -> int:
    return size(outputs[0]) * shape(inputs[0])[-1] * shape(inputs[1])[-1]


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
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
        kept = set(result).union(*pending)
        # What only one of the two has and nobody needs is summed before the product.
        labels = {label for label in a | b if label in kept or label in a & b}
        if labels - kept:  # else nothing is summed, and the product is pointwise
            mac += _complex(outputs) * prod(length[label] for label in labels)
        pending.append(labels & kept)
    return mac


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    query, key, value = (shape(operand) for operand in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(inputs: list[Any], outputs: list[Any]) -> int:
    """Counts a whole recurrent layer, of all its layers, directions and steps."""
    # The input is (..., features), packed or not; the last list of tensors is the weights.
    weights = [weights for weights in map(tensors, inputs) if weights][-1]
    matrices = sum(size(weight) for weight in weights if len(shape(weight)) == 2)
    return prod(shape(inputs[0])[:-1]) * matrices


def _fft(kind: str, several: bool) -> Rule:
    """Returns the rule of transforms along one axis or several; kind: "r2c", "c2r" or "c2c"."""

    def mac(inputs: list[Any], outputs: list[Any]) -> int:
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
        return fft_transform_macs(points, real=real) * transforms

    return mac


def _transforms() -> dict[str, Handle]:
    handles: dict[str, Handle] = {}
    for kind, transforms in {"r2c": "rfft ihfft", "c2r": "irfft hfft", "c2c": "fft ifft"}.items():
        how = f"{2.5 if kind == 'c2c' else 1.25} n log2 n MAC a transform"
        if kind == "c2c":
            how += ", half of it along one axis of a real input"
        for name in transforms.split():
            handles |= Handle("fft", how, _fft(kind, several=False)).of(f"fft_{name}")
            if "h" not in name:
                handles |= Handle("fft", how, _fft(kind, several=True)).of(
                    f"fft_{name}2 fft_{name}n"
                )
    return handles


_CONVOLUTION = "weights x output positions x batch (transposed: input positions)"
_PRODUCT = "m n k of each matrix product"

HANDLES: Mapping[str, Handle] = MappingProxyType({
    **Handle("convolution", f"{_CONVOLUTION}; fvcore's own handle",
             _convolution(_stock("conv_flop_jit"))).of("_convolution"),
    **Handle("convolution", _CONVOLUTION, _convolution(_taps)).of("_convolution_mode"),
    **{f"aten::{name}": Handle("matmul", f"{_PRODUCT}; fvcore's own handle",
                               _stock_product(f"{handle}_flop_jit"))
       for name, handle in {"linear": "linear", "addmm": "addmm", "mm": "matmul",
                            "bmm": "bmm"}.items()},
    **Handle("matmul", _PRODUCT, _product(0)).of("matmul mv dot vdot inner"),
    **Handle("matmul", _PRODUCT, _product(1)).of("baddbmm addmv"),
    **Handle("matmul", "batch m n k", _addbmm).of("addbmm"),
    **Handle("matmul", "output elements x contracted terms", _tensordot).of("tensordot"),
    **Handle("matmul", "one MAC for each triple", _bilinear).of("bilinear"),
    **Handle("matmul", "two operands at a time along torch's path; without a sum none",
             _einsum).of("einsum"),
    **Handle("matmul", "query x key and weights x value", _attention).of(
        "scaled_dot_product_attention"),
    **Handle("matmul", "each weight matrix once a step and sequence", _recurrent).of(
        "lstm gru rnn_tanh rnn_relu"),
    **_transforms(),
})  # fmt: skip

# Operators of a trace that contract nothing, beside those of the exact counter's tables.
_COMPOSITES = names(
    "Float __or__ adaptive_avg_pool1d adaptive_avg_pool3d adaptive_max_pool1d alpha_dropout "
    "argsort atleast_1d atleast_2d atleast_3d avg_pool1d broadcast_tensors column_stack concat "
    "dropout dstack embedding_bag feature_alpha_dropout feature_dropout fliplr flipud ger hstack "
    "is_complex kron log_sigmoid log_softmax max_pool1d max_pool1d_with_indices max_pool2d "
    "max_pool3d meshgrid numel one_hot outer pad _pad_packed_sequence prelu randperm rms_norm "
    "softmax take_along_dim tile unsafe_chunk vstack _weight_norm"
)


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
    return (
        name in ZERO
        or name in _COMPOSITES
        or any(overload.is_view or is_pointwise(overload) for overload in overloads)
    )
