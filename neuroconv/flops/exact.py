"""The exact counter: every operator that executes, by torch's dispatcher.

Contractions go to torch's FlopCounterMode with formulas for what it lacks or miscounts; all the
rest to a dispatch mode beneath it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from neuroconv.flops.rules import (
    CONTRACTIONS,
    OTHERS,
    Counts,
    fft_transform_macs,
    names,
    pointwise_weight,
)
from neuroconv.flops.stand_in import as_inputs, explained, stand_in

aten = torch.ops.aten
Shape = Sequence[int]

_UNTAGGED = names("hardswish _prelu_kernel")  # pointwise, without the dispatcher's tag
_REDUCTIONS = names(
    "sum mean amax amin aminmax max min prod var std var_mean std_mean norm linalg_vector_norm "
    "argmax argmin any all cumsum cumprod logsumexp nansum median"
)
_BATCH_NORMS = names(
    "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update"
)
_OWN_NORMS = frozenset({"native_layer_norm", "native_group_norm"})
_SOFTMAX = frozenset({"_softmax", "_log_softmax", "_safe_softmax"})
_POOLS = names(
    "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d "
    "mkldnn_max_pool2d mkldnn_max_pool3d"
)
_ADAPTIVE_POOLS = names(
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d"
)
# No arithmetic: allocation, copies, and moving elements about. Views are recognised by their
# schema. Several of these carry the dispatcher's pointwise tag, so this list is asked first.
_FREE = names(
    "empty empty_like empty_strided empty_permuted new_empty new_empty_strided zeros zeros_like "
    "new_zeros ones ones_like new_ones full full_like new_full scalar_tensor arange linspace eye "
    "clone copy _to_copy fill zero resize set_ lift_fresh lift _unsafe_view _reshape_alias detach "
    "unsafe_split cat stack constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d index index_select gather embedding "
    "index_copy repeat roll flip tril triu slice_scatter select_scatter index_put _index_put_impl "
    "_local_scalar_dense slice_backward select_backward scatter _conj_physical"
)


def _mac_flops(*factors: int) -> int:
    return 2 * prod(factors)


def _convolution_backward(
    _grad: Shape, x: Shape, weight: Shape, *rest: Any, out_shape: Any = None, **_: Any
) -> int:
    # Each gradient is a convolution as large as the forward one, grouped or not: torch's own
    # formula takes the weight gradient of a grouped convolution too high by the number of groups.
    transposed, mask = rest[4], rest[7]
    positions = x if transposed else _grad
    forward = _mac_flops(x[0], *weight, *positions[2:])
    return forward * (bool(mask[0]) + bool(mask[1]))


def _fft(real: bool) -> Callable[..., int]:
    def flops(x: Shape, dim: Sequence[int], *_: Any, out_shape: Any = None, **__: Any) -> int:
        points = prod(x[d] for d in dim)
        return 2 * fft_transform_macs(points, real=real) * (prod(x) // points)

    return flops


def _fft_c2r(
    x: Shape, dim: Sequence[int], _normalisation: int, last: int, *, out_shape: Any = None
) -> int:
    points = prod(x[d] for d in dim[:-1]) * last  # the input holds half of the last axis only
    transforms = prod(x) // prod(x[d] for d in dim)
    return 2 * fft_transform_macs(points, real=True) * transforms


_FORMULAS: dict[Any, Callable[..., int]] = {
    aten.convolution_backward: _convolution_backward,
    aten._fft_r2c: _fft(real=True),
    aten._fft_c2c: _fft(real=False),
    aten._fft_c2r: _fft_c2r,
    aten.mv: lambda a, b, out_shape=None: _mac_flops(*a),
    aten.dot: lambda a, b, out_shape=None: _mac_flops(*a),
    aten.vdot: lambda a, b, out_shape=None: _mac_flops(*a),
    aten.addmv: lambda bias, a, b, out_shape=None, **_: _mac_flops(*a),
    aten.addbmm: lambda bias, a, b, out_shape=None, **_: _mac_flops(*a, b[-1]),
    aten._addmm_activation: lambda bias, a, b, out_shape=None, **_: _mac_flops(*a, b[-1]),
}


def _family(operator: str) -> str:
    """The contraction family of an operator that FlopCounterMode counts."""
    return "convolution" if "conv" in operator else "fft" if "fft" in operator else "matmul"


class _Others(TorchDispatchMode):
    """Counts what is no contraction, from the shapes of its arguments and results."""

    def __init__(self, contractions: set[Any]) -> None:
        super().__init__()
        self.contractions = contractions
        self.flops: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket not in self.contractions and not func.is_view:
            self._count(func, args, kwargs or {}, out)
        return out

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        operator = func._overloadpacket.__name__.rstrip("_")
        results = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        operands = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if operator in _FREE or torch.Tag.inplace_view in func.tags:
            return
        if not any(t.is_floating_point() or t.is_complex() for t in operands + results):
            return  # integers and Booleans
        if not operands or not results:
            self.uncounted[str(func)] += 1
            return
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        read, written = operands[0].numel(), results[0].numel()
        if torch.Tag.pointwise in func.tags or operator in _UNTAGGED:
            inputs = sum(t.is_complex() for t in operands) + sum(
                isinstance(a, complex) for a in args
            )
            weight = pointwise_weight(operator, results[0].is_complex(), inputs)
            self.flops["pointwise"] += written * weight
        elif operator in _REDUCTIONS:
            self.flops["reduction"] += read
        elif operator in _BATCH_NORMS:
            own_statistics = given.get("training", operator == "_batch_norm_with_update")
            affine = given.get("weight") is not None
            self.flops["normalisation"] += read * (4 + affine if own_statistics else 2)
        elif operator in _OWN_NORMS:
            self.flops["normalisation"] += read * (4 + (given.get("weight") is not None))
        elif operator in _SOFTMAX:
            self.flops["normalisation"] += 5 * read
        elif operator in _POOLS:
            window, axes = given["kernel_size"], 3 if "3d" in operator else 2
            self.flops["pooling"] += written * (
                window[0] ** axes if len(window) == 1 else prod(window)
            )
        elif operator in _ADAPTIVE_POOLS:
            self.flops["pooling"] += read
        else:
            self.uncounted[str(func)] += 1


def count_exact(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    *,
    device: str = "meta",
    backward: bool = False,
    training: bool = False,
) -> Counts:
    """Count what executes when the model runs once, by torch's dispatcher.

    Args:
        model: any module; it is left untouched.
        inputs: what it is called with, the batch first.
        device: "meta" (no memory, no arithmetic), "cpu" or "cuda".
        backward: count the backward pass too. The gradient to an input counts if that input
            requires one, as in training.
        training: run in training mode.

    Raises:
        ValueError: the model cannot run on meta tensors, or a device is missing.
    """
    flop_counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    others = _Others(set(flop_counter.flop_registry))
    with (
        stand_in(model, as_inputs(inputs), device, training=training) as items,
        explained(device),
        torch.set_grad_enabled(backward),
        others,
        flop_counter,
    ):
        result = model(*items)
        if backward:
            ends = [t for t in tree_leaves(result) if isinstance(t, Tensor) and t.requires_grad]
            torch.autograd.backward(ends, [torch.ones_like(end) for end in ends])

    by_module = flop_counter.get_flop_counts()
    operators = {str(op): flops // 2 for op, flops in by_module.pop("Global", {}).items()}
    macs: Counter[str] = Counter()
    for operator, amount in operators.items():
        macs[_family(operator)] += amount
    return Counts(
        counter="exact",
        device=device,
        macs={family: macs[family] for family in CONTRACTIONS if macs[family]},
        flops={family: others.flops[family] for family in OTHERS if others.flops[family]},
        operators=operators,
        modules={
            path.partition(".")[2]: sum(counts.values()) // 2 for path, counts in by_module.items()
        },
        uncounted=dict(others.uncounted),
    )
