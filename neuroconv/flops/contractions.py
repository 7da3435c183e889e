"""Rules of the exact counter for convolutions, matrix products and Fourier transforms.

A rule returns multiply-adds (MAC) from the sizes of a call's tensors, and a fused operator's other
FLOPs. A product of complex numbers is four of real ones.
"""

from math import prod

from neuroconv.core.cost import fft_macs
from neuroconv.flops.amounts import Count
from neuroconv.flops.calls import Amounts, Call, tensors_of


def _complex(call: Call) -> int:
    return 4 if call.results[0].is_complex() else 1


def convolution(call: Call) -> Amounts:
    x, weight, out = call.tensor(0), call.tensor(1), call.results[0]
    # An element of the smaller map meets each tap of its unit, or of its channel, once.
    positions = x if call.arguments.get("transposed") else out
    points = out.shape[0] * prod(positions.shape[2:])
    return {"convolution": _complex(call) * weight.numel() * points}


def deformable(passes: int) -> Count:
    def amounts(call: Call) -> Amounts:
        arguments = call.arguments
        x, weight = arguments["input"], arguments["weight"]
        out = arguments.get("grad", call.results[0])
        points = out.shape[0] * prod(out.shape[2:])
        samples = points * x.shape[1] * prod(weight.shape[2:])
        amounts = {
            "convolution": passes * weight.numel() * points,
            # Backward samples again, and adds to the neighbours and to their positions.
            "pooling": 4 * samples * (2 * passes - 1),
            "pointwise": passes * samples * arguments["use_mask"],
        }
        return amounts if passes == 1 else amounts | {"reduction": out.numel()}  # of the bias

    return amounts


def convolution_backward(call: Call) -> Amounts:
    # Each gradient is a convolution as large as the forward one, grouped or not; torch's own
    # formula takes the weight gradient of a grouped one too high by the number of groups.
    grad, x, weight = call.tensor(0), call.tensor(1), call.tensor(2)
    to_input, to_weight, to_bias = call.arguments["output_mask"]
    positions = x if call.arguments["transposed"] else grad
    forward = _complex(call) * x.shape[0] * weight.numel() * prod(positions.shape[2:])
    return {"convolution": forward * (to_input + to_weight), "reduction": grad.numel() * to_bias}


def product(first: int) -> Count:
    """Counts the product of the operands at positions `first` and `first` + 1."""

    def amounts(call: Call) -> Amounts:
        left, right = call.tensor(first), call.tensor(first + 1)
        columns = right.shape[-1] if right.dim() > 1 else 1
        return {"matmul": _complex(call) * left.numel() * columns}

    return amounts


def grouped_product(call: Call) -> Amounts:
    # Columns, rows or the sum are split among the groups, of which the other operand has one each.
    left, right = call.tensor(0), call.tensor(1)
    groups = left.shape[0] if left.dim() > right.dim() else 1
    return {"matmul": left.numel() // max(groups, 1) * right.shape[-1]}


def packed_product(call: Call) -> Amounts:
    return {"matmul": call.read * call.results[0].shape[-1]}


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


def _scores(call: Call) -> tuple[int, int, int]:
    """Returns the number of scores, and the features of a query and of a value."""
    query, key, value = (call.arguments[name] for name in ("query", "key", "value"))
    return prod(query.shape[:-1]) * key.shape[-2], query.shape[-1], value.shape[-1]


def attention(call: Call) -> Amounts:
    scores, narrow, wide = _scores(call)
    is_masked = any(call.arguments.get(name) is not None for name in ("attn_mask", "attn_bias"))
    return {
        "matmul": scores * (narrow + wide),  # query x key, weights x value
        "pointwise": scores * (1 + is_masked),
        "normalisation": 5 * scores,
    }


def attention_backward(call: Call) -> Amounts:
    # The scores are computed again, with the gradients to query and key, over `narrow`; the
    # gradients to the weights and to the values are over `wide`.
    scores, narrow, wide = _scores(call)
    return {
        "matmul": scores * (3 * narrow + 2 * wide),
        "pointwise": 2 * scores,
        "normalisation": (5 + 4) * scores,
    }


_GATES = {0: 1, 1: 1, 2: 4, 3: 3}  # by torch's number of a mode: ReLU, tanh, LSTM, GRU
_CELL_FLOPS = {4: 13, 3: 10, 1: 2}  # of one hidden unit and step beside the products, by gates


def recurrent(passes: int) -> Count:
    """Counts each weight matrix once for each step of each sequence; backward twice (`passes`)."""

    def amounts(call: Call) -> Amounts:
        arguments, x = call.arguments, call.tensor(0)
        gates, hidden = _GATES[arguments["mode"]], arguments["hidden_size"]
        weights = tensors_of([v for name, v in arguments.items() if name.startswith("weight")])
        matrices = [weight for weight in weights if weight.dim() == 2]
        cells = sum(w.shape[0] == gates * hidden for w in matrices) // 2  # layers, directions
        steps = x.numel() // x.shape[-1]
        return {
            "matmul": passes * steps * sum(w.numel() for w in matrices),
            "pointwise": passes * steps * cells * hidden * _CELL_FLOPS[gates],
        }

    return amounts


def fused_cell(gates: int) -> Count:
    return lambda call: {"pointwise": call.written * _CELL_FLOPS[gates]}


def fft(real: bool) -> Count:
    def amounts(call: Call) -> Amounts:
        x = call.tensor(0)
        lengths = [x.shape[axis] for axis in call.arguments["dim"]]
        transforms = x.numel() // max(prod(lengths), 1)
        if "last_dim_size" in call.arguments:  # the input holds half of the last axis
            lengths[-1] = call.arguments["last_dim_size"]
        return {"fft": fft_macs(prod(lengths), real=real) * transforms}

    return amounts
