"""What the fvcore witness knows of every operator: a handle, or the reason why it costs nothing.

A handle sees an operator as it was called, before torch takes it apart: a linear layer, an
attention, a global average pool is one operator here, and for the exact counter often several.
"""

from collections.abc import Callable, Mapping
from itertools import zip_longest
from math import ceil, log2, prod
from types import MappingProxyType
from typing import Any

import torch

from neuroconv.flops.fvcore_contractions import CONTRACTION_HANDLES
from neuroconv.flops.fvcore_graph import (
    Amounts,
    Handle,
    integers,
    is_boolean,
    is_complex,
    is_float,
    is_tensor,
    shape,
    size,
)
from neuroconv.flops.rules import pointwise_weight

Rule = Callable[[list[Any], list[Any]], Amounts]
DISCRETE = "integers or Booleans alone, or arithmetic on sizes"


def _floating(rule: Rule) -> Rule:
    """The rule where a floating-point tensor goes in or comes out; else it costs nothing."""

    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        return rule(inputs, outputs) if any(map(is_float, (*inputs, *outputs))) else DISCRETE

    return amounts


def _pointwise(name: str) -> Rule:
    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        numbers = sum(is_complex(v) or isinstance(v.toIValue(), complex) for v in inputs)
        product = "mul" if name in ("outer", "ger", "kron") else name
        weight = pointwise_weight(product, is_complex(outputs[0]), numbers)
        return {"pointwise": weight * size(outputs[0])}

    return _floating(amounts)


def _read(family: str, weight: int = 1) -> Rule:
    return _floating(lambda inputs, outputs: {family: weight * size(inputs[0])})


def _written(family: str, weight: int = 1) -> Rule:
    return _floating(lambda inputs, outputs: {family: weight * size(outputs[0])})


def _extremum(inputs: list[Any], outputs: list[Any]) -> Amounts:
    of_two_tensors = len(inputs) == 2 and is_tensor(inputs[1])  # then element by element
    rule = _pointwise("maximum") if of_two_tensors else _read("reduction")
    return rule(inputs, outputs)


def _batch_norm(inputs: list[Any], outputs: list[Any]) -> Amounts:
    own_statistics = inputs[5].toIValue()
    weight = 4 + is_tensor(inputs[1]) if own_statistics else 2
    return {"normalisation": weight * size(inputs[0])}


def _own_norm(base: int, weight: int) -> Rule:
    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        return {"normalisation": (base + is_tensor(inputs[weight])) * size(inputs[0])}

    return amounts


def _pool(axes: int) -> Rule:
    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        window = integers(inputs[1]) or []
        taps = window[0] ** axes if len(window) == 1 else prod(window)
        return {"pooling": taps * size(outputs[0])}

    return amounts


def _grid_sampler(inputs: list[Any], outputs: list[Any]) -> Amounts:
    axes = len(shape(inputs[0])) - 2
    neighbours = {0: 2**axes, 1: 0, 2: 4**axes}[inputs[2].toIValue()]  # linear, nearest, cubic
    return {"pooling": neighbours * size(outputs[0])} if neighbours else "moves elements"


def _index_put(inputs: list[Any], outputs: list[Any]) -> Amounts:
    if not inputs[3].toIValue():
        return "moves elements"
    if not is_float(inputs[0]):
        return DISCRETE
    indices = list(inputs[1].node().inputs())
    if any(is_boolean(index) for index in indices):  # how many it selects is not in the trace
        return {"scatter": size(inputs[2])}
    # The indices, broadcast, take the place of the axes that they index.
    given = [shape(index) for index in indices if is_tensor(index)]
    kept = [
        n
        for index, n in zip_longest(indices, shape(inputs[0]))
        if index is None or not is_tensor(index)
    ]
    return {"scatter": prod(torch.broadcast_shapes(*given)) * prod(kept)}


def _scatter(inputs: list[Any], outputs: list[Any]) -> Amounts:
    if len(inputs) == 4:  # without a word for what to do with the number that is there
        return "moves elements"
    return _floating(lambda given, _: {"scatter": size(given[2])})(inputs, outputs)


def _dropout(noise: int, numbers: int, *, per_feature: bool) -> Rule:
    """`noise` FLOPs for each number drawn and `numbers` for each element, in training."""

    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        probability, training = inputs[1].toIValue(), inputs[2].toIValue()
        if not training or probability == 0:
            return "the identity"
        elements = size(inputs[0])
        if probability == 1:  # a product with zero
            return {"pointwise": elements}
        drawn = prod(shape(inputs[0])[:2]) if per_feature else elements
        return {"random": drawn, "pointwise": noise * drawn + numbers * elements}

    return amounts


def _sorting(dim: int) -> Rule:
    """n ceil(log2 n) along the axis that the input at place `dim` names."""

    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        along = (shape(inputs[0]) or [1])[integers(inputs[dim])[0]]  # type: ignore[index]
        return {"sorting": size(inputs[0]) * ceil(log2(max(along, 1)))}

    return _floating(amounts)


def _search(boundaries: int) -> Rule:
    def amounts(inputs: list[Any], outputs: list[Any]) -> Amounts:
        steps = ceil(log2(max(shape(inputs[boundaries])[-1], 1)))
        return {"sorting": size(outputs[0]) * steps}

    return _floating(amounts)


def _cdist(inputs: list[Any], outputs: list[Any]) -> Amounts:
    left, right, out = shape(inputs[0]), shape(inputs[1]), size(outputs[0])
    order, mode = inputs[2].toIValue(), inputs[3].toIValue() or 0
    many = max(left[-2], right[-2]) > 25  # from there on torch multiplies matrices, if it may
    if order == 2 and (mode == 1 or (mode == 0 and many)):
        batch = prod(shape(outputs[0])[:-2])  # points of either side, for all of it
        a, b = (batch * prod(side[-2:]) for side in (left, right))
        return {
            "matmul": out * (left[-1] + 2),
            "pointwise": 2 * a + b + 2 * out,
            "reduction": a + b,
        }
    return {"reduction": 3 * out * left[-1]}


def _renorm(inputs: list[Any], outputs: list[Any]) -> Amounts:
    return {"reduction": size(inputs[1]) * shape(inputs[0])[-1]}


def _bag(inputs: list[Any], outputs: list[Any]) -> Amounts:
    return {"reduction": size(inputs[1]) * shape(inputs[0])[-1]}


_POINTWISE = (
    "add sub rsub mul div true_divide floor_divide neg abs sign sgn square sqrt rsqrt reciprocal "
    "pow exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh "
    "acosh atanh sinc sigmoid relu relu6 leaky_relu prelu elu celu selu gelu silu mish softplus "
    "log_sigmoid hardtanh hardswish hardsigmoid hardshrink softshrink glu logit erf erfc erfinv "
    "lgamma digamma xlogy logaddexp logaddexp2 hypot copysign heaviside nan_to_num clamp clamp_min "
    "clamp_max maximum minimum fmax fmin where masked_fill threshold lerp addcmul addcdiv fmod "
    "remainder floor ceil round trunc frac gt ge lt le eq ne isnan isinf logical_and "
    "logical_or logical_xor logical_not outer ger addr kron polar"
)
_ALONG_AXES = "one an input element"
_MIXED = "one a neighbour that an output element is mixed from"
_POOLS = {axes: f"max_pool{axes}d avg_pool{axes}d max_pool{axes}d_with_indices"
          for axes in (1, 2, 3)}  # fmt: skip
_ADAPTIVE = " ".join(
    f"adaptive_{kind}_pool{axes}d" for kind in ("avg", "max") for axes in (1, 2, 3)
)

_OTHER_HANDLES: dict[str, Handle] = {
    **{operator: handle for name in _POINTWISE.split() for operator, handle in Handle(
        "pointwise", "one an output element, addcmul two; complex: add 2, multiply 6, other 2",
        _pointwise(name)).of(name).items()},
    **Handle("pointwise", "three an output element", _written("pointwise", 3)).of("isfinite"),
    **Handle("pointwise", "one an element, and one for the sum", _read("pointwise", 2)).of(
        "mse_loss smooth_l1_loss huber_loss binary_cross_entropy soft_margin_loss "
        "binary_cross_entropy_with_logits"),
    **Handle("reduction", _ALONG_AXES, _read("reduction")).of(
        "sum mean amax amin aminmax prod var std var_mean std_mean norm dist trace "
        "linalg_vector_norm logsumexp logcumsumexp cumsum cumprod cummax cummin argmax argmin any "
        "all nansum median nanmedian count_nonzero"),
    **Handle("reduction", f"{_ALONG_AXES}; of two tensors, pointwise", _extremum).of("max min"),
    **Handle("reduction", "one an element of the rows that are summed", _bag).of("embedding_bag"),
    **Handle("reduction", "three a pair and axis; of many points, a matrix product", _cdist).of(
        "cdist"),
    **Handle("reduction", "one an element of the rows whose norm is bounded", _renorm).of(
        "embedding_renorm"),
    **Handle("normalisation", "running statistics 2 an element, own 4, or 5 with a weight",
             _batch_norm).of("batch_norm instance_norm"),
    **Handle("normalisation", "4 an element, or 5 with a weight", _own_norm(4, weight=2)).of(
        "group_norm layer_norm"),
    **Handle("normalisation", "3 an element, or 4 with a weight", _own_norm(3, weight=2)).of(
        "rms_norm"),
    **Handle("normalisation", "3 an element", _read("normalisation", 3)).of("_weight_norm"),
    **Handle("normalisation", "5 an element", _read("normalisation", 5)).of("softmax log_softmax"),
    **{operator: handle for axes, pools in _POOLS.items() for operator, handle in Handle(
        "pooling", "the window an output element", _pool(axes)).of(pools).items()},
    **Handle("pooling", _ALONG_AXES, _read("pooling")).of(_ADAPTIVE),
    **{f"aten::upsample_{kind}": Handle("pooling", _MIXED, _written("pooling", neighbours))
       for kind, neighbours in {"linear1d": 2, "bilinear2d": 4, "trilinear3d": 8,
                                "bicubic2d": 16}.items()},
    **Handle("pooling", _MIXED, _grid_sampler).of("grid_sampler"),
    **Handle("scatter", "one an element of the index",
             _floating(lambda inputs, _: {"scatter": size(inputs[2])})).of(
        "scatter_add scatter_reduce"),
    **Handle("scatter", "one an element that is added",
             _floating(lambda inputs, _: {"scatter": size(inputs[3])})).of(
        "index_add"),
    **Handle("scatter", "one an element that is added, if it accumulates", _index_put).of(
        "index_put _index_put_impl"),
    **Handle("scatter", "one an element of the index, if it reduces", _scatter).of("scatter"),
    **Handle("random", "one a number that is drawn", _written("random")).of(
        "bernoulli binomial poisson normal uniform exponential geometric cauchy log_normal "
        "multinomial random rand rand_like randn randn_like randint randint_like"),
    **Handle("random", "in training a number drawn and two FLOP an element",
             _dropout(0, 2, per_feature=False)).of("dropout"),
    **Handle("random", "in training a number drawn and one FLOP a feature, one an element",
             _dropout(1, 1, per_feature=True)).of("feature_dropout"),
    **Handle("random", "in training a number drawn and six FLOP an element",
             _dropout(4, 2, per_feature=False)).of("alpha_dropout"),
    **Handle("random", "in training a number drawn and four FLOP a feature, two an element",
             _dropout(4, 2, per_feature=True)).of("feature_alpha_dropout"),
    **Handle("sorting", "n ceil(log2 n) comparisons along the axis", _sorting(-2)).of(
        "sort argsort"),
    **Handle("sorting", "n ceil(log2 n) comparisons along the axis", _sorting(2)).of(
        "topk kthvalue"),
    **Handle("sorting", "n ceil(log2 n) comparisons along the axis", _sorting(1)).of("mode"),
    **Handle("sorting", "ceil(log2 n) comparisons a value", _search(1)).of("bucketize"),
    **Handle("sorting", "ceil(log2 n) comparisons a value", _search(0)).of("searchsorted"),
}  # fmt: skip


def _zero(reason: str, operators: str) -> dict[str, Handle]:
    return Handle("zero", reason, lambda inputs, outputs: reason).of(operators)


_ZERO: dict[str, Handle] = {
    **_zero("a view, or a copy where it cannot be one",
        "alias adjoint chunk detach diagonal expand expand_as flatten mH mT movedim moveaxis "
        "narrow numpy_T permute positive ravel real imag view_as_real view_as_complex conj _conj "
        "resolve_conj resolve_neg reshape reshape_as select slice split split_with_sizes "
        "tensor_split squeeze swapaxes swapdims t transpose unbind unflatten unfold unsqueeze "
        "view view_as broadcast_to broadcast_tensors atleast_1d atleast_2d atleast_3d"),
    **_zero("copies, or changes the type",
        "clone complex contiguous copy to type_as unsafe_chunk unsafe_split lift_fresh"),
    **_zero("moves elements",
        "cat concat stack hstack vstack dstack column_stack constant_pad_nd pad block_diag "
        "diag_embed embedding flip fliplr flipud gather im2col index index_copy index_fill "
        "index_select masked_scatter masked_select take take_along_dim pixel_shuffle "
        "pixel_unshuffle channel_shuffle repeat repeat_interleave roll rot90 tile tril triu "
        "slice_scatter select_scatter diagonal_scatter upsample_nearest1d upsample_nearest2d "
        "upsample_nearest3d one_hot _pack_padded_sequence _pad_packed_sequence"),
    **_zero("allocates or fills",
        "arange empty empty_like new_empty full full_like new_full fill linspace eye zeros "
        "zeros_like new_zeros zero ones ones_like new_ones meshgrid"),
    **_zero(DISCRETE,
        "Int Float ScalarImplicit randperm size numel is_complex __and__ __or__ bitwise_and "
        "bitwise_not bitwise_or bitwise_xor"),
    **_zero("finds places", "nonzero"),
}  # fmt: skip

HANDLES: Mapping[str, Handle] = MappingProxyType({**_ZERO, **_OTHER_HANDLES, **CONTRACTION_HANDLES})


def fvcore_rules() -> dict[str, str]:
    """How the fvcore witness counts each operator of a trace, by its name in aten.

    Each text is "family: how", in MAC for a contraction and in FLOP for another family, or
    "zero: reason". An operator that is not here is listed as uncounted where it runs.
    """
    return {
        operator: f"{handle.family}: {handle.how}" for operator, handle in sorted(HANDLES.items())
    }
