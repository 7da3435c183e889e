"""What the exact counter knows of every operator: a rule, or the reason why it costs nothing.

An operator that is in neither table, is no view and has no pointwise tag of torch's own is listed
as uncounted.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from neuroconv.flops import amounts
from neuroconv.flops.calls import Call, Rule, name_of
from neuroconv.flops.contractions import CONTRACTION_RULES

POINTWISE = Rule("pointwise", "one an output element; complex: add 2, multiply 6, other 2",
                 amounts.pointwise)  # fmt: skip


_OTHER_RULES: dict[str, Rule] = {
    **POINTWISE.of(
        "hardswish _prelu_kernel glu log_sigmoid_forward polar gelu mish silu hardsigmoid "
        "elu_backward gelu_backward glu_backward hardsigmoid_backward hardswish_backward "
        "hardtanh_backward leaky_relu_backward log_sigmoid_backward softplus_backward "
        "_prelu_kernel_backward silu_backward mish_backward threshold_backward sigmoid_backward "
        "tanh_backward rrelu_with_noise_backward native_dropout_backward _masked_scale addr "
        "huber_loss_backward smooth_l1_loss_backward mse_loss_backward heaviside copysign "
        "soft_margin_loss_backward binary_cross_entropy_backward floor_divide rsub abs eq ge gt "
        "le lt ne masked_fill threshold hardshrink_backward softshrink_backward"
    ),
    **Rule("pointwise", "one an element, and one for the sum", amounts.read("pointwise", 2)).of(
        "mse_loss smooth_l1_loss huber_loss binary_cross_entropy soft_margin_loss "
        "binary_cross_entropy_with_logits"
    ),
    **Rule("reduction", "one a target", amounts.elements_of("target", "reduction")).of(
        "nll_loss_forward nll_loss2d_forward"
    ),
    **Rule("scatter", "one a target", amounts.elements_of("target", "scatter")).of(
        "nll_loss_backward nll_loss2d_backward"
    ),
    **Rule("reduction", "one an input element", amounts.read("reduction")).of(
        "sum mean amax amin aminmax max min prod var std var_mean std_mean norm renorm dist trace "
        "linalg_vector_norm argmax argmin any all cumsum cumprod cummax cummin logsumexp "
        "logcumsumexp nansum median nanmedian count_nonzero"
    ),
    **Rule("reduction", "one an element of the rows that are summed",
           amounts.rows_of("weight", "reduction")).of("_embedding_bag _embedding_bag_forward_only"),
    **Rule("scatter", "one an element of the rows that were summed",
           amounts.rows_of("grad", "scatter")).of("_embedding_bag_backward"),
    **Rule("reduction", "one an element of the rows whose norm is bounded",
           amounts.rows_of("self", "reduction")).of("embedding_renorm"),
    **Rule("reduction", "three a pair and axis", amounts.pairs).of("_cdist_forward"),
    **Rule("normalisation", "running statistics 2 an element, own 4, or 5 with a weight",
           amounts.batch_norm(1)).of(
        "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit "
        "_native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update "
        "_native_batch_norm_legit_functional _batch_norm_with_update_functional"
    ),
    **Rule("normalisation", "twice the forward pass", amounts.batch_norm(2)).of(
        "native_batch_norm_backward cudnn_batch_norm_backward miopen_batch_norm_backward "
        "batch_norm_backward"
    ),
    **Rule("normalisation", "4 an element, or 5 with a weight", amounts.norm(4, 1)).of(
        "native_layer_norm native_group_norm"
    ),
    **Rule("normalisation", "twice the forward pass", amounts.norm(4, 2)).of(
        "native_layer_norm_backward native_group_norm_backward"
    ),
    **Rule("normalisation", "3 an element, or 4 with a weight", amounts.norm(3, 1)).of(
        "_fused_rms_norm"
    ),
    **Rule("normalisation", "twice the forward pass", amounts.norm(3, 2)).of(
        "_fused_rms_norm_backward"
    ),
    **Rule("normalisation", "3 an element", amounts.read("normalisation", 3)).of(
        "_weight_norm_interface"
    ),
    **Rule("normalisation", "twice the forward pass", amounts.read("normalisation", 6)).of(
        "_weight_norm_interface_backward"
    ),
    **Rule("normalisation", "5 an element", amounts.read("normalisation", 5)).of(
        "_softmax _log_softmax _safe_softmax"
    ),
    **Rule("normalisation", "4 an element", amounts.read("normalisation", 4)).of(
        "_softmax_backward_data _log_softmax_backward_data"
    ),
    **Rule("pooling", "the window an output element", amounts.pool).of(
        "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d "
        "mkldnn_max_pool2d mkldnn_max_pool3d"
    ),
    **Rule("pooling", "one an element of the gradient",
           amounts.elements_of("grad_output", "pooling")).of(
        "max_pool2d_with_indices_backward max_pool3d_with_indices_backward "
        "adaptive_max_pool2d_backward adaptive_max_pool3d_backward"
    ),
    **Rule("pooling", "the window an element of the gradient", amounts.average_pool_backward).of(
        "avg_pool2d_backward avg_pool3d_backward"
    ),
    **Rule("pooling", "one an input element", amounts.read("pooling")).of(
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d"
    ),
    **Rule("pooling", "one an input element", amounts.elements_of("self", "pooling")).of(
        "_adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward"
    ),
    **Rule("pooling", "one for each neighbour that an output element is mixed from",
           amounts.interpolation).of(
        "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d "
        "upsample_linear1d_backward upsample_bilinear2d_backward upsample_trilinear3d_backward "
        "upsample_bicubic2d_backward"
    ),
    **Rule("pooling", "one for each neighbour that an output element is mixed from",
           amounts.grid_sampler).of(
        "grid_sampler_2d grid_sampler_3d grid_sampler_2d_backward grid_sampler_3d_backward"
    ),
    **Rule("scatter", "one an element that is added", amounts.elements_of("source", "scatter")).of(
        "index_add index_reduce"
    ),
    **Rule("scatter", "one an element that is added, if it reduces", amounts.scatter).of("scatter"),
    **Rule("scatter", "one an element that is added", amounts.elements_of("index", "scatter")).of(
        "scatter_add scatter_reduce"
    ),
    **Rule("scatter", "one an element that is added", amounts.elements_of("values", "scatter")).of(
        "_unsafe_masked_index_put_accumulate"
    ),
    **Rule("scatter", "one an element that is added, if it accumulates", amounts.put).of(
        "index_put _index_put_impl _unsafe_index_put"
    ),
    **Rule("scatter", "one an element of the gradient", amounts.read("scatter")).of(
        "embedding_dense_backward col2im unfold_backward reflection_pad1d_backward "
        "reflection_pad2d_backward reflection_pad3d_backward replication_pad1d_backward "
        "replication_pad2d_backward replication_pad3d_backward upsample_nearest1d_backward "
        "upsample_nearest2d_backward upsample_nearest3d_backward "
        "_upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward "
        "_upsample_nearest_exact3d_backward"
    ),
    **Rule("random", "one a number that is drawn", amounts.written("random")).of(
        "bernoulli binomial poisson normal normal_functional uniform exponential geometric cauchy "
        "log_normal multinomial random rand rand_like randn randn_like randint randint_like "
        "_standard_gamma"
    ),
    **Rule("random", "in training a number drawn and two FLOP an element", amounts.dropout).of(
        "native_dropout"
    ),
    **Rule("random", "in training a number drawn an element, and one FLOP",
           amounts.noisy_rectifier).of(
        "rrelu_with_noise"
    ),
    **Rule("sorting", "n ceil(log2 n) comparisons along the axis", amounts.sorting).of(
        "sort topk kthvalue mode"
    ),
    **Rule("sorting", "ceil(log2 n) comparisons a value", amounts.search).of(
        "bucketize searchsorted"
    ),
    **Rule("pointwise", "one an element of all tensors in the list", amounts.lists).of(
        "_foreach_add _foreach_sub _foreach_mul _foreach_div _foreach_neg _foreach_sqrt "
        "_foreach_lerp _foreach_addcmul _foreach_addcdiv _foreach_clamp_min _foreach_clamp_max"
    ),
}  # fmt: skip

RULES: Mapping[str, Rule] = MappingProxyType({**CONTRACTION_RULES, **_OTHER_RULES})


def _zero(reason: str, operators: str) -> dict[str, str]:
    return dict.fromkeys(operators.split(), reason)


VIEW = "a view: no element moves"
DISCRETE = "integers or Booleans alone"
# Several of these carry the dispatcher's pointwise tag, so this table is asked first.
ZERO: Mapping[str, str] = MappingProxyType(
    _zero(
        "allocates or fills",
        "empty empty_like empty_strided empty_permuted new_empty new_empty_strided zeros "
        "zeros_like new_zeros ones ones_like new_ones full full_like new_full scalar_tensor arange "
        "linspace logspace eye fill zero resize resize_as _resize_output set lift lift_fresh "
        "tril_indices triu_indices hann_window _efficientzerotensor",
    )
    | _zero(
        "copies, or changes the type",
        "clone copy _to_copy _pin_memory _conj_physical complex _unsafe_view _reshape_alias detach "
        "view_as_real view_as_complex alias_copy as_strided_copy diagonal_copy expand_copy "
        "narrow_copy permute_copy select_copy slice_copy split_copy split_with_sizes_copy "
        "squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsqueeze_copy view_copy",
    )
    | _zero(
        "moves elements",
        "cat stack _chunk_cat block_diag split unsafe_split unsafe_split_with_sizes "
        "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d index _unsafe_index "
        "_unsafe_masked_index index_select index_copy "
        "index_fill gather take embedding repeat repeat_interleave roll rot90 flip tril triu "
        "slice_scatter select_scatter diagonal_scatter as_strided_scatter slice_backward "
        "select_backward diagonal_backward diag_embed masked_scatter "
        "masked_scatter_backward masked_select im2col channel_shuffle pixel_shuffle "
        "pixel_unshuffle max_unpool2d max_unpool3d upsample_nearest1d upsample_nearest2d "
        "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
        "_upsample_nearest_exact3d _pack_padded_sequence _pack_padded_sequence_backward",
    )
    | _zero("finds indices", "nonzero nonzero_static")
    | _zero("reads one number, or checks", "_local_scalar_dense _assert_async _assert_scalar "
            "_assert_tensor_metadata _functional_assert_async is_same_size equal "
            "_has_same_storage_numel")
)  # fmt: skip


def look_up(func: Any, call: Call) -> Rule | str | None:
    """Returns the rule of a call, or why it costs nothing; None if neither is known."""
    operator = name_of(func)
    if func.is_view or torch.Tag.inplace_view in func.tags:
        return VIEW
    if operator in ZERO:
        return ZERO[operator]
    tensors = call.operands + call.results
    if any(t.layout is not torch.strided for t in tensors):
        return None  # the number of elements that a sparse tensor stores is not in its shape
    if not any(t.is_floating_point() or t.is_complex() for t in tensors):
        return DISCRETE
    if operator in RULES:
        return RULES[operator]
    return POINTWISE if is_pointwise(func) and call.results else None


def is_pointwise(func: Any) -> bool:
    """Returns whether torch tags an operator as pointwise, or its twin of forward-mode autograd."""
    if func.namespace != "prims":
        return torch.Tag.pointwise in func.tags
    twin = getattr(torch.ops.aten, name_of(func), None)
    overloads = () if twin is None else (getattr(twin, name) for name in twin.overloads())
    return any(torch.Tag.pointwise in overload.tags for overload in overloads)
