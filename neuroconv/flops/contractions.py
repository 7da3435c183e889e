"""How the exact counter counts contractions: convolutions, matrix products, Fourier transforms.

A rule takes one call and returns multiply-adds (MAC) from the sizes of its tensors; the rule of a
fused operator returns its other FLOPs too. A product of complex numbers is four of real ones.
"""

from collections.abc import Callable
from math import prod

from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuroconv.flops.calls import Amounts, Call, Rule
from neuroconv.flops.rules import fft_transform_macs


def _complex(call: Call) -> int:
    return 4 if call.results[0].is_complex() else 1


def _convolution(call: Call) -> Amounts:
    x, weight, out = call.tensor(0), call.tensor(1), call.results[0]
    # An element of the smaller map meets each tap of its unit, or of its channel, once.
    positions = x if call.arguments.get("transposed") else out
    points = out.shape[0] * prod(positions.shape[2:])
    return {"convolution": _complex(call) * weight.numel() * points}


def _convolution_backward(call: Call) -> Amounts:
    # Each gradient is a convolution as large as the forward one, grouped or not; torch's own
    # formula takes the weight gradient of a grouped one too high by the number of groups.
    grad, x, weight = call.tensor(0), call.tensor(1), call.tensor(2)
    transposed, (to_input, to_weight, to_bias) = (
        call.arguments["transposed"],
        call.arguments["output_mask"],
    )
    positions = x if transposed else grad
    forward = _complex(call) * x.shape[0] * weight.numel() * prod(positions.shape[2:])
    amounts = {"convolution": forward * (to_input + to_weight)}
    return amounts | ({"reduction": grad.numel()} if to_bias else {})


def _product(first: int) -> Callable[[Call], Amounts]:
    """Counts output elements times the last axis of the operand at position `first`."""

    def amounts(call: Call) -> Amounts:
        return {"matmul": _complex(call) * call.results[0].numel() * call.tensor(first).shape[-1]}

    return amounts


def _dot(call: Call) -> Amounts:
    return {"matmul": _complex(call) * call.tensor(0).numel()}


def _addbmm(call: Call) -> Amounts:
    return {"matmul": _complex(call) * call.tensor(1).numel() * call.tensor(2).shape[-1]}


def _distances(call: Call) -> Amounts:
    # The square of a difference by the product of (-2 a, |a|^2, 1) and (b, 1, |b|^2).
    left, right, out = call.tensor(0), call.tensor(1), call.written
    return {
        "matmul": out * (left.shape[-1] + 2),
        "pointwise": 2 * left.numel() + right.numel() + 2 * out,
        "reduction": left.numel() + right.numel(),
    }


def _trilinear(call: Call) -> Amounts:
    factors = [call.tensor(position) for position in range(3)]
    axes = factors[0].dim() + len(call.arguments["expand1"])
    sizes = [1] * axes
    for number, factor in enumerate(factors, start=1):
        inserted = set(call.arguments[f"expand{number}"])
        kept = [axis for axis in range(axes) if axis not in inserted]
        for axis, size in zip(kept, factor.shape, strict=True):
            sizes[axis] = sizes[axis] if size == 1 else size
    return {"matmul": prod(sizes), "pointwise": prod(sizes)}  # a product, and a multiply-add


def _attention(products: int) -> Callable[[Call], Amounts]:
    """Counts two products forward (query x key, weights x value), five backward."""

    def amounts(call: Call) -> Amounts:
        query, key, value = (call.arguments[name] for name in ("query", "key", "value"))
        scores = prod(query.shape[:-1]) * key.shape[-2]
        narrow, wide = query.shape[-1], value.shape[-1]
        if products == 2:
            mask = next(
                (call.arguments[n] for n in ("attn_mask", "attn_bias") if n in call.arguments), None
            )
            return {
                "matmul": scores * (narrow + wide),
                "pointwise": scores * (1 + (mask is not None)),
                "normalisation": 5 * scores,
            }
        # Backward: the scores are computed again, with the gradients to query and key, over
        # `narrow`; the gradients to the weights and to the values are over `wide`.
        return {
            "matmul": scores * (3 * narrow + 2 * wide),
            "pointwise": 2 * scores,
            "normalisation": (5 + 4) * scores,
        }

    return amounts


_GATES = {0: 1, 1: 1, 2: 4, 3: 3}  # by torch's number of a mode: ReLU, tanh, LSTM, GRU
# FLOPs of one hidden unit and step beside the matrix products, by gates, as when a cell runs
# operator by operator.
_CELL_FLOPS = {4: 13, 3: 10, 1: 2}


def _recurrent(passes: int) -> Callable[[Call], Amounts]:
    """Counts each weight matrix once for each step of each sequence; backward twice (`passes`)."""

    def amounts(call: Call) -> Amounts:
        arguments, x = call.arguments, call.tensor(0)
        gates, hidden = _GATES[arguments["mode"]], arguments["hidden_size"]
        weights = tree_leaves([v for name, v in arguments.items() if name.startswith("weight")])
        matrices = [w for w in weights if isinstance(w, Tensor) and w.dim() == 2]
        cells = sum(w.shape[0] == gates * hidden for w in matrices) // 2  # layers, directions
        steps = x.numel() // x.shape[-1]
        return {
            "matmul": passes * steps * sum(w.numel() for w in matrices),
            "pointwise": passes * steps * cells * hidden * _CELL_FLOPS[gates],
        }

    return amounts


def _fused_cell(gates: int) -> Callable[[Call], Amounts]:
    def amounts(call: Call) -> Amounts:
        return {"pointwise": call.written * _CELL_FLOPS[gates]}

    return amounts


def _fft(real: bool) -> Callable[[Call], Amounts]:
    def amounts(call: Call) -> Amounts:
        x = call.tensor(0)
        points = prod(x.shape[axis] for axis in call.arguments["dim"])
        return {"fft": fft_transform_macs(points, real=real) * (x.numel() // max(points, 1))}

    return amounts


def _fft_c2r(call: Call) -> Amounts:
    x, axes, last = call.tensor(0), call.arguments["dim"], call.arguments["last_dim_size"]
    points = prod(x.shape[axis] for axis in axes[:-1]) * last  # the input holds half of the axis
    transforms = x.numel() // prod(x.shape[axis] for axis in axes)
    return {"fft": fft_transform_macs(points, real=True) * transforms}


CONTRACTION_RULES: dict[str, Rule] = {
    **Rule("convolution", "weights x output positions x batch (transposed: input positions)",
           _convolution).of("convolution _convolution cudnn_convolution mkldnn_convolution"),
    **Rule("convolution", "as the forward convolution for each gradient that is needed",
           _convolution_backward).of("convolution_backward"),
    **Rule("matmul", "m n k of each matrix product", _product(0)).of("mm bmm mv _scaled_mm"),
    **Rule("matmul", "m n k of each matrix product", _product(1)).of(
        "addmm baddbmm addmv _addmm_activation"),
    **Rule("matmul", "batch m n k", _addbmm).of("addbmm"),
    **Rule("matmul", "one MAC an element", _dot).of("dot vdot"),
    **Rule("matmul", "a product over the axes and two more for the norms; squares and roots",
           _distances).of("_euclidean_dist"),
    **Rule("matmul", "a product and a MAC for each triple", _trilinear).of("_trilinear"),
    **Rule("matmul", "query x key and weights x value; 6 FLOP a score for scale and softmax",
           _attention(2)).of(
        "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_fused_attention_overrideable"),
    **Rule("matmul", "five products: the scores again, and four gradients", _attention(5)).of(
        "_scaled_dot_product_flash_attention_backward "
        "_scaled_dot_product_flash_attention_for_cpu_backward "
        "_scaled_dot_product_efficient_attention_backward "
        "_scaled_dot_product_cudnn_attention_backward "
        "_scaled_dot_product_fused_attention_overrideable_backward"),
    **Rule("matmul", "each weight matrix once a step; 13, 10 or 2 FLOP a unit (LSTM, GRU, RNN)",
           _recurrent(1)).of("mkldnn_rnn_layer _cudnn_rnn miopen_rnn"),
    **Rule("matmul", "twice the forward pass", _recurrent(2)).of(
        "mkldnn_rnn_layer_backward _cudnn_rnn_backward miopen_rnn_backward"),
    **Rule("pointwise", "13 FLOP a unit", _fused_cell(4)).of("_thnn_fused_lstm_cell"),
    **Rule("pointwise", "10 FLOP a unit", _fused_cell(3)).of("_thnn_fused_gru_cell"),
    **Rule("fft", "1.25 n log2 n MAC a transform", _fft(real=True)).of("_fft_r2c"),
    **Rule("fft", "2.5 n log2 n MAC a transform", _fft(real=False)).of("_fft_c2c"),
    **Rule("fft", "1.25 n log2 n MAC a transform", _fft_c2r).of("_fft_c2r"),
}  # fmt: skip
