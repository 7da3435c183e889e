"""Rules of the exact counter for operators that are no contractions: FLOP from a call's shapes."""

import math
from collections.abc import Callable
from math import prod

import torch

from neuroconv.flops.calls import Amounts, Call

Count = Callable[[Call], Amounts]


def _scales_and_adds(call: Call) -> bool:
    """Whether each element is a product or a quotient, and then a sum."""
    name = call.operator.removeprefix("_foreach_").rstrip("_")
    scaled = name in ("add", "sub", "rsub") and call.arguments.get("alpha", 1) != 1
    return scaled or name in ("addcmul", "addcdiv")


def pointwise(call: Call) -> Amounts:
    is_complex = call.results[0].is_complex()
    if _scales_and_adds(call):
        weight = 8 if is_complex else 2
    elif is_complex and call.operator == "mul":
        factors = sum(tensor.is_complex() for tensor in call.operands)
        factors += sum(isinstance(value, complex) for value in call.arguments.values())
        weight = 6 if factors == 2 else 2
    else:
        weight = 2 if is_complex else 1
    return {"pointwise": weight * call.written}


def read(family: str, weight: int = 1) -> Count:
    return lambda call: {family: weight * call.read}


def written(family: str) -> Count:
    return lambda call: {family: call.written}


def elements_of(name: str, family: str) -> Count:
    return lambda call: {family: call.arguments[name].numel()}


def rows_of(name: str, family: str) -> Count:
    """Counts the elements of the rows of an argument that `indices` names."""
    return lambda call: {family: call.arguments["indices"].numel() * call.arguments[name].shape[-1]}


def lists(call: Call) -> Amounts:
    elements = sum(t.numel() for t in call.results or call.arguments["self"])
    return {"pointwise": (1 + _scales_and_adds(call)) * elements}


def batch_norm(passes: int) -> Count:
    def amounts(call: Call) -> Amounts:
        arguments = call.arguments
        by_name = arguments.get("train", "with_update" in call.operator)
        batch_statistics = arguments.get("training", by_name)
        x = arguments.get("input", arguments.get("self"))
        affine = arguments.get("weight") is not None
        return {"normalisation": passes * x.numel() * (4 + affine if batch_statistics else 2)}

    return amounts


def norm(base: int, passes: int) -> Count:
    def amounts(call: Call) -> Amounts:
        weight = call.arguments.get("weight", call.arguments.get("gamma"))
        elements = call.arguments["input"].numel()
        return {"normalisation": passes * elements * (base + (weight is not None))}

    return amounts


def _output(call: Call) -> torch.Tensor:
    """Returns the output of a forward pass, or the gradient to it that a backward pass is given."""
    gradient = call.arguments.get("grad_output")
    return call.results[0] if gradient is None else gradient


def pool(call: Call) -> Amounts:
    window, axes = call.arguments["kernel_size"], 3 if "3d" in call.operator else 2
    taps = window[0] ** axes if len(window) == 1 else prod(window)
    return {"pooling": _output(call).numel() * taps}


def interpolation(call: Call) -> Amounts:
    neighbours = {"linear1d": 2, "bilinear2d": 4, "trilinear3d": 8, "bicubic2d": 16}
    taps = next(n for kind, n in neighbours.items() if kind in call.operator)
    return {"pooling": _output(call).numel() * taps}


def grid_sampler(call: Call) -> Amounts:
    axes = 3 if "3d" in call.operator else 2
    neighbours = {0: 2**axes, 1: 0, 2: 4**axes}  # linear, nearest, cubic
    taps = neighbours[call.arguments["interpolation_mode"]]
    gradients = sum(call.arguments.get("output_mask", [True]))
    return {"pooling": _output(call).numel() * taps * gradients}


def pairs(call: Call) -> Amounts:
    return {"reduction": 3 * call.written * call.tensor(0).shape[-1]}


def scatter(call: Call) -> Amounts:
    return {"scatter": call.arguments["index"].numel()} if call.arguments.get("reduce") else {}


def put(call: Call) -> Amounts:
    if not call.arguments["accumulate"]:
        return {}
    x, indices = call.tensor(0), call.arguments["indices"]
    tensors = [index for index in indices if index is not None]
    if any(index.dtype is torch.bool for index in tensors):
        # The number of elements that a mask selects is not in its shape.
        return {"scatter": call.arguments["values"].numel()}
    # The indices, broadcast, replace the axes that they index.
    chosen = prod(torch.broadcast_shapes(*(index.shape for index in tensors)))
    axes = (axis for axis in range(x.dim()) if axis >= len(indices) or indices[axis] is None)
    return {"scatter": chosen * prod(x.shape[axis] for axis in axes)}


def dropout(call: Call) -> Amounts:
    drops = call.arguments["train"] is not False
    return {"random": call.written, "pointwise": 2 * call.written} if drops else {}


def noisy_rectifier(call: Call) -> Amounts:
    drawn = call.written if call.arguments["training"] else 0
    return {"random": drawn, "pointwise": call.written}


def sorting(call: Call) -> Amounts:
    x = call.tensor(0)
    length = x.shape[call.arguments.get("dim", -1)] if x.dim() else 1
    return {"sorting": x.numel() * math.ceil(math.log2(max(length, 1)))}


def search(call: Call) -> Amounts:
    boundaries = call.arguments.get("boundaries", call.arguments.get("sorted_sequence"))
    return {"sorting": call.written * math.ceil(math.log2(max(boundaries.shape[-1], 1)))}
