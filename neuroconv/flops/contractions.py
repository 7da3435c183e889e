"""Rules of the exact counter for convolutions, matrix products and Fourier transforms.

A rule takes one call and returns multiply-adds (MAC) from the sizes of its tensors; the rule of a
fused operator returns its other FLOPs too. A product of complex numbers is four of real ones.
"""

from collections.abc import Callable
from math import prod

from torch import Tensor
from torch.utils._pytree import tree_leaves

from neuroconv.core.cost import fft_macs
from neuroconv.flops.calls import Amounts, Call


def _complex(call: Call) -> int:
    return 4 if call.results[0].is_complex() else 1


def convolution(call: Call) -> Amounts:
    x, weight, out = call.tensor(0), call.tensor(1), call.results[0]
    # An element of the smaller map meets each tap of its unit, or of its channel, once.
    positions = x if call.arguments.get("transposed") else out
    points = out.shape[0] * prod(positions.shape[2:])
    return {"convolution": _complex(call) * weight.numel() * points}


def convolution_backward(call: Call) -> Amounts:
    # Each gradient is a convolution as large as the forward one, grouped or not; torch's own
    # formula takes the weight gradient of a grouped one too high by the number of groups.
    grad, x, weight = call.tensor(0), call.tensor(1), call.tensor(2)
    to_input, to_weight, to_bias = call.arguments["output_mask"]
    positions = x if call.arguments["transposed"] else grad
    forward = _complex(call) * x.shape[0] * weight.numel() * prod(positions.shape[2:])
    amounts = {"convolution": forward * (to_input + to_weight)}
    return amounts | ({"reduction": grad.numel()} if to_bias else {})


def product(first: int) -> Callable[[Call], Amounts]:
    """Counts output elements times the last axis of the operand at position `first`."""
    return lambda call: {"matmul": _complex(call) * call.written * call.tensor(first).shape[-1]}


def dot(call: Call) -> Amounts:
    return {"matmul": _complex(call) * call.tensor(0).numel()}


def addbmm(call: Call) -> Amounts:
    return {"matmul": _complex(call) * call.tensor(1).numel() * call.tensor(2).shape[-1]}


def distances(call: Call) -> Amounts:
    # The square of a difference by the product of (-2 a, |a|^2, 1) and (b, 1, |b|^2).
    left, right, out = call.tensor(0), call.tensor(1), call.written
    return {
        "matmul": out * (left.shape[-1] + 2),
        "pointwise": 2 * left.numel() + right.numel() + 2 * out,
        "reduction": left.numel() + right.numel(),
    }


def trilinear(call: Call) -> Amounts:
    factors = [call.tensor(position) for position in range(3)]
    axes = factors[0].dim() + len(call.arguments["expand1"])
    sizes = [1] * axes
    for number, factor in enumerate(factors, start=1):
        inserted = set(call.arguments[f"expand{number}"])
        present = (axis for axis in range(axes) if axis not in inserted)
        for axis, size in zip(present, factor.shape, strict=True):
            sizes[axis] = sizes[axis] if size == 1 else size
    return {"matmul": prod(sizes), "pointwise": prod(sizes)}  # a product, and a multiply-add


def attention(products: int) -> Callable[[Call], Amounts]:
    """Counts two products forward (query x key, weights x value), five backward."""

    def amounts(call: Call) -> Amounts:
        query, key, value = (call.arguments[name] for name in ("query", "key", "value"))
        scores = prod(query.shape[:-1]) * key.shape[-2]
        narrow, wide = query.shape[-1], value.shape[-1]
        if products == 2:
            masks = (call.arguments.get(name) for name in ("attn_mask", "attn_bias"))
            masked = any(mask is not None for mask in masks)
            return {
                "matmul": scores * (narrow + wide),
                "pointwise": scores * (1 + masked),
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


def recurrent(passes: int) -> Callable[[Call], Amounts]:
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


def fused_cell(gates: int) -> Callable[[Call], Amounts]:
    return lambda call: {"pointwise": call.written * _CELL_FLOPS[gates]}


def fft(real: bool) -> Callable[[Call], Amounts]:
    def amounts(call: Call) -> Amounts:
        x = call.tensor(0)
        points = prod(x.shape[axis] for axis in call.arguments["dim"])
        return {"fft": fft_macs(points, real=real) * (x.numel() // max(points, 1))}

    return amounts


def fft_c2r(call: Call) -> Amounts:
    x, axes, last = call.tensor(0), call.arguments["dim"], call.arguments["last_dim_size"]
    points = prod(x.shape[axis] for axis in axes[:-1]) * last  # the input holds half of the axis
    transforms = x.numel() // prod(x.shape[axis] for axis in axes)
    return {"fft": fft_macs(points, real=True) * transforms}
