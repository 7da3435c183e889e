"""fvcore's counter, with handles for the operators it lacks or miscounts.

fvcore traces the model and asks a handle for each aten operator. Handles see traced shapes only;
the stock ones are kept where they are right (convolution, linear, addmm, mm, bmm).
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from neuroconv.flops.rules import (
    CONTRACTIONS,
    OTHERS,
    Counts,
    fft_transform_macs,
    names,
    pointwise_weight,
)
from neuroconv.flops.stand_in import as_inputs, stand_in

# A handle takes the traced inputs and outputs of one operator (torch._C.Value).
Handle = Callable[[list[Any], list[Any]], Any]


def _shape(value: Any) -> list[int]:
    return list(value.type().sizes())


def _dtype(value: Any) -> torch.dtype:
    dtype: torch.dtype = value.type().dtype()
    return dtype


def _is_tensor(value: Any) -> bool:
    return bool(value.isCompleteTensor())


def _is_complex(value: Any) -> bool:
    return _is_tensor(value) and _dtype(value).is_complex


def _is_float(value: Any) -> bool:
    return _is_tensor(value) and (_dtype(value).is_floating_point or _dtype(value).is_complex)


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "aten::add": lambda a, b: a + b,
    "aten::sub": lambda a, b: a - b,
    "aten::rsub": lambda a, b: b - a,
    "aten::mul": lambda a, b: a * b,
    "aten::floor_divide": lambda a, b: a // b,
}


def _integer(value: Any) -> int:
    """A traced integer: a constant, or arithmetic on sizes (tracing records x.shape[0] + 2)."""
    constant = value.toIValue()
    if constant is not None:
        return int(constant)
    node = value.node()
    kind, inputs = node.kind(), list(node.inputs())
    if kind == "aten::size":
        return _shape(inputs[0])[_integer(inputs[1])]
    if kind in ("aten::Int", "aten::ScalarImplicit", "prim::NumToTensor"):
        return _integer(inputs[0])
    if kind in _ARITHMETIC:
        return _ARITHMETIC[kind](_integer(inputs[0]), _integer(inputs[1]))
    raise ValueError(
        f"fvcore: the length of a transform comes from {kind}, which a trace does not resolve. "
        "Compute lengths with + - * // on sizes, or turn them into int"
    )


def _integers(value: Any) -> list[int] | None:
    if value.type().kind() == "NoneType":
        return None
    if value.node().kind() == "prim::ListConstruct":
        return [_integer(item) for item in value.node().inputs()]
    constant = value.toIValue()
    return list(constant) if isinstance(constant, list) else [_integer(value)]


def _convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    weight, out = _shape(inputs[1]), _shape(outputs[0])
    return Counter(conv=prod(weight[1:]) * prod(out))


def _product(first: int) -> Handle:
    """Any matrix product: output elements times the last axis of the operand at `first`."""

    def handle(inputs: list[Any], outputs: list[Any]) -> int:
        return prod(_shape(outputs[0])) * _shape(inputs[first])[-1]

    return handle


def _addbmm(inputs: list[Any], outputs: list[Any]) -> int:
    return prod(_shape(inputs[1])) * _shape(inputs[2])[-1]


def _tensordot(inputs: list[Any], outputs: list[Any]) -> int:
    # |a| |b| = |out| k^2 for k contracted terms
    a, b, out = (prod(_shape(v)) for v in (inputs[0], inputs[1], outputs[0]))
    return out * math.isqrt(a * b // max(out, 1))


def _einsum(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Contract two operands at a time, along torch's path or from left to right."""
    terms, _, result = inputs[0].toIValue().replace(" ", "").partition("->")
    operands = [_shape(value) for value in inputs[1].node().inputs()]
    if "..." in terms or "->" not in inputs[0].toIValue():
        raise ValueError(f"fvcore: write einsum {inputs[0].toIValue()!r} with every index and '->'")
    size: dict[str, int] = {}
    for term, shape in zip(terms.split(","), operands, strict=True):
        for label, length in zip(term, shape, strict=True):
            size[label] = max(length, size.get(label, 1))
    path = _integers(inputs[2]) if len(inputs) > 2 else None
    pending = [set(term) for term in terms.split(",")]
    counts: Counter[str] = Counter()
    while len(pending) > 1:
        pair = (path.pop(0), path.pop(0)) if path else (0, 1)
        a, b = (pending.pop(position) for position in sorted(pair, reverse=True))
        kept = set(result).union(*pending)
        # What only one of the two holds and nobody needs is summed before the product.
        touched = {label for label in a | b if label in kept or label in a & b}
        amount = prod(size[label] for label in touched)
        counts["einsum" if touched - kept else "mul"] += amount
        pending.append(touched & kept)
    return counts


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    q, k, v = (_shape(value) for value in inputs[:3])
    return prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _fft(kind: str, several: bool) -> Handle:
    """A transform along one axis or several; kind is "r2c", "c2r" or "c2c"."""

    def handle(inputs: list[Any], outputs: list[Any]) -> int:
        source, out = _shape(inputs[0]), _shape(outputs[0])
        lengths, axes = _integers(inputs[1]), _integers(inputs[2])
        if axes is None:
            axes = list(range(-len(lengths or source), 0))
        points = prod(out[axis] for axis in axes)
        transforms = prod(out) // points
        if kind == "r2c":  # half of the last axis is kept: its length is that of the real input
            last = lengths[-1] if lengths else source[axes[-1]]
            points = points // out[axes[-1]] * last
        # Along one axis torch transforms a real input by the real algorithm, along several not.
        real = kind != "c2c" or not (several or _is_complex(inputs[0]))
        return fft_transform_macs(points, real=real) * transforms

    return handle


def _pointwise(name: str) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> int:
        if not any(_is_float(value) for value in (*inputs, outputs[0])):
            return 0  # integers, Booleans and the arithmetic on sizes that tracing records
        complex_inputs = sum(_is_complex(value) for value in inputs)
        weight = pointwise_weight(name, _is_complex(outputs[0]), complex_inputs)
        return prod(_shape(outputs[0])) * weight

    return handle


def _extremum(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    if len(inputs) == 2 and _is_tensor(inputs[1]):  # of two tensors, element by element
        return Counter(maximum=_pointwise("maximum")(inputs, outputs))
    return Counter(amax=_per_input(1)(inputs, outputs))


def _per_input(weight: int) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> int:
        return weight * prod(_shape(inputs[0])) if _is_float(inputs[0]) else 0

    return handle


def _batch_norm(inputs: list[Any], outputs: list[Any]) -> int:
    own_statistics = inputs[5].toIValue()
    return prod(_shape(inputs[0])) * (4 + _is_tensor(inputs[1]) if own_statistics else 2)


def _norm(base: int, weight: int) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> int:
        return prod(_shape(inputs[0])) * (base + _is_tensor(inputs[weight]))

    return handle


def _pool(axes: int) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> int:
        window = _integers(inputs[1]) or []
        taps = window[0] ** axes if len(window) == 1 else prod(window)
        return prod(_shape(outputs[0])) * taps

    return handle


_POINTWISE = names(
    "add sub rsub mul div true_divide neg abs sign square sqrt rsqrt reciprocal pow exp exp2 expm1 "
    "log log2 log10 log1p sin cos tan tanh sigmoid relu relu6 leaky_relu prelu elu selu gelu silu "
    "mish softplus hardtanh hardswish hardsigmoid logit erf clamp clamp_min clamp_max maximum "
    "minimum where masked_fill threshold lerp addcmul addcdiv fmod remainder floor ceil round gt "
    "ge lt le eq ne isnan isfinite outer ger"
)
_REDUCTIONS = names(
    "sum mean amax amin prod var std norm linalg_vector_norm logsumexp cumsum argmax argmin"
)
_IGNORED = names(
    "real imag view_as_real view_as_complex conj _conj resolve_conj resolve_neg conj_physical "
    "movedim moveaxis swapaxes unflatten expand_as view_as reshape_as repeat clone alias "
    "empty_like ones_like new_ones index_select index_copy flip diagonal unfold numpy_T mT mH pad "
    "feature_dropout alpha_dropout embedding unsafe_split tile adjoint lift_fresh scatter "
    "is_complex dropout_ feature_dropout_ fill_ zero_"
)


def _handles() -> tuple[dict[str, Handle], dict[str, str]]:
    """The handles by aten operator, and the family of each name that they report."""
    handles: dict[str, Handle] = {}
    family = {"conv": "convolution", "maximum": "pointwise", "amax": "reduction"}
    for kept in ("linear", "addmm", "mm", "bmm"):  # fvcore's own
        family[kept] = "matmul"
    family |= {"upsample_nearest2d": "pointwise", "upsample_bilinear2d": "pointwise"}
    family |= {"grid_sampler": "pointwise", "adaptive_avg_pool2d": "pooling"}

    def add(group: str, name: str, handle: Handle) -> None:
        handles[f"aten::{name}"] = handle
        family[name] = group

    add("convolution", "_convolution_mode", _convolution)
    for name in ("matmul", "mv", "dot", "vdot", "inner"):
        add("matmul", name, _product(0))
    for name in ("baddbmm", "addmv"):
        add("matmul", name, _product(1))
    add("matmul", "addbmm", _addbmm)
    add("matmul", "tensordot", _tensordot)
    add("matmul", "einsum", _einsum)
    add("matmul", "scaled_dot_product_attention", _attention)
    for kind, transforms in {"r2c": "rfft ihfft", "c2r": "irfft hfft", "c2c": "fft ifft"}.items():
        for name in transforms.split():
            add("fft", f"fft_{name}", _fft(kind, several=False))
            if "h" not in name:
                add("fft", f"fft_{name}2", _fft(kind, several=True))
                add("fft", f"fft_{name}n", _fft(kind, several=True))
    for name in _POINTWISE:
        add("pointwise", name, _pointwise(name))
        add("pointwise", f"{name}_", _pointwise(name))
    for name in _REDUCTIONS:
        add("reduction", name, _per_input(1))
    add("reduction", "max", _extremum)
    add("reduction", "min", _extremum)
    add("normalisation", "batch_norm", _batch_norm)
    add("normalisation", "instance_norm", _norm(4, weight=1))
    add("normalisation", "group_norm", _norm(4, weight=2))
    add("normalisation", "layer_norm", _norm(4, weight=2))
    add("normalisation", "rms_norm", _norm(3, weight=2))
    for name in ("softmax", "log_softmax"):
        add("normalisation", name, _per_input(5))
    for axes in (1, 2, 3):
        for name in (f"max_pool{axes}d", f"avg_pool{axes}d", f"max_pool{axes}d_with_indices"):
            add("pooling", name, _pool(axes))
        for name in (f"adaptive_avg_pool{axes}d", f"adaptive_max_pool{axes}d"):
            add("pooling", name, _per_input(1))
    return handles, family


def count_fvcore(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], *, device: str = "cpu"
) -> Counts:
    """Count one run in eval mode by fvcore's FlopCountAnalysis.

    Args:
        model: any module with real parameters; it is left untouched.
        inputs: what it is called with, the batch first; meta inputs become zeros.
        device: "cpu" or "cuda".

    Raises:
        ValueError: the device is meta, the model holds meta or fake tensors, the model cannot be
            traced, or an autograd.Function hides what it runs from the trace.
    """
    if torch.device(device).type == "meta":
        raise ValueError("fvcore runs the model and needs real tensors: use device='cpu' or 'cuda'")
    held, items = (*model.parameters(), *model.buffers()), as_inputs(inputs)
    if any(t.is_meta for t in held) or any(isinstance(t, FakeTensor) for t in (*held, *items)):
        raise ValueError("fvcore needs real tensors, not meta or fake ones: build them on the CPU")
    with warnings.catch_warnings():
        # fvcore decorates functions it never runs here with torch.jit.script.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.script", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

    handles, family = _handles()
    with stand_in(model, items, device) as placed, torch.no_grad():
        analysis = FlopCountAnalysis(model, placed)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle(**handles)
        analysis.set_op_handle(**{f"aten::{name}": None for name in _IGNORED})
        try:
            totals = analysis.by_operator()
        except RuntimeError as error:
            raise ValueError(f"fvcore could not trace the model: {error}") from error
        uncounted = dict(analysis.unsupported_ops())
        by_module = analysis.by_module_and_operator()
    hidden = [name for name in uncounted if name.startswith(("prim::PythonOp", "prim::CallFunc"))]
    if hidden:
        raise ValueError(
            f"fvcore cannot see inside {', '.join(hidden)}: its cost is hidden. Call plain torch "
            "operators when no gradient is needed (torch.is_grad_enabled() is False while counting)"
        )

    def contractions(counts: Counter[str]) -> dict[str, int]:
        return {op: int(n) for op, n in counts.items() if n and family[op] in CONTRACTIONS}

    amounts: Counter[str] = Counter()
    for operator, amount in totals.items():
        amounts[family[operator]] += int(amount)
    return Counts(
        counter="fvcore",
        device=torch.device(device).type,
        macs={group: amounts[group] for group in CONTRACTIONS if amounts[group]},
        flops={group: amounts[group] for group in OTHERS if amounts[group]},
        operators=contractions(totals),
        modules={path: sum(contractions(counts).values()) for path, counts in by_module.items()},
        uncounted=uncounted,
    )
