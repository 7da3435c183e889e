"""Opponents of equal size or cost: the free width of a network, chosen for a given count."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from neuroconv.core.cost import fft_macs
from neuroconv.zoo.registry import create_model, get_builder


def count_parameters(model: nn.Module) -> int:
    """Trained floats."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_flops(name: str, **keywords: Any) -> int:
    """FLOPs of one image's forward pass through a network of the zoo, from shapes alone.

    What is counted are contractions, two FLOPs for each multiply-add that executes: convolutions
    and matrix products by torch's FlopCounterMode on meta tensors, and Fourier transforms by the
    usual 5 n log2 n model. Norms, activations and all else that is pointwise are not.

    Args:
        name: a name of the zoo.
        **keywords: of its builder.
    """
    image_shape, time_steps = _task(name, keywords)
    aten = torch.ops.aten
    counted = {
        aten._fft_r2c: _real_transform,
        aten._fft_c2r: _real_inverse,
        aten._fft_c2c: _complex_transform,
        aten.mm: _product,
        aten.bmm: _product,
    }
    with torch.device("meta"):
        model = create_model(name, **keywords).eval()
        channels, *sides = image_shape
        steps = () if time_steps == 1 else (time_steps,)
        image = torch.empty(1, channels, *steps, *sides)
    counter = FlopCounterMode(display=False, custom_mapping=counted)
    with torch.no_grad(), counter:
        model(image)
    return counter.get_total_flops()


def match_parameters(name: str, target_parameters: int, **keywords: Any) -> dict[str, Any]:
    """Chooses `width` so that a network has as many parameters as possible, but no more.

    Args:
        name: a zoo name whose builder has a keyword `width` that parameters grow with.
        target_parameters: the count to reach.
        **keywords: of the builder, held fixed.

    Returns:
        keywords with `width` added: `create_model(name, **result)` builds the network.

    Raises:
        ValueError: the builder has no free width, the target is not positive, or even width 1 is
            larger than the target.
    """

    def parameters(width: int) -> int:
        with torch.device("meta"):
            return count_parameters(create_model(name, **{**keywords, "width": width}))

    width = _widest(name, parameters, "parameters", target_parameters)
    return {**keywords, "width": width}


def match_flops(name: str, target_flop: int, **keywords: Any) -> dict[str, Any]:
    """Chooses `width` so that a network costs as many FLOPs an image as possible, but no more.

    FLOPs are those of `count_flops`: the contractions of one image's forward pass.

    Args:
        name: a zoo name whose builder has a keyword `width` that FLOPs grow with.
        target_flop: the count to reach, such as `count_flops` of another network.
        **keywords: of the builder, held fixed.

    Returns:
        keywords with `width` added: `create_model(name, **result)` builds the network.

    Raises:
        ValueError: the builder has no free width, the target is not positive, or even width 1
            costs more than the target.
    """

    def flop(width: int) -> int:
        return count_flops(name, **{**keywords, "width": width})

    return {**keywords, "width": _widest(name, flop, "flop", target_flop)}


def _widest(name: str, amount: Callable[[int], int], what: str, target: int) -> int:
    """The largest width whose amount is not above the target."""
    if "width" not in inspect.signature(get_builder(name)).parameters:
        raise ValueError(f"model {name!r} has no keyword 'width' to match by; try 'plain_cnn'")
    if target < 1:
        raise ValueError(f"target_{what}={target}; expected a positive integer")
    if amount(1) > target:
        unit = "FLOPs" if what == "flop" else what
        raise ValueError(
            f"model {name!r} has {amount(1):,} {unit} at width 1, more than the {target:,} to match"
        )
    low, high = 1, 2
    while amount(high) <= target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if amount(middle) <= target else (low, middle)
    return low


def _task(name: str, keywords: dict[str, Any]) -> tuple[tuple[int, int, int], int]:
    """The image's shape and the time steps that a builder is called with."""
    known = inspect.signature(get_builder(name)).parameters
    shape, steps = (keywords.get(key, known[key].default) for key in ("image_shape", "time_steps"))
    return shape, steps


def _transforms(shape: Any, dim: Any, real: bool) -> int:
    """FLOPs of the transforms over axes `dim` of a tensor of this shape."""
    points = math.prod(shape[axis] for axis in dim)
    return 2 * fft_macs(points, real=real) * (math.prod(shape) // points)


def _product(left: Tensor, right: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    """FLOPs of a matrix product: torch's own formula takes complex numbers for real ones."""
    return 2 * out_val.numel() * left.shape[-1] * (4 if out_val.is_complex() else 1)


_product._get_raw = True  # type: ignore[attr-defined]  # to see tensors, not their shapes


def _real_transform(shape: Any, dim: Any, *_: Any, **__: Any) -> int:
    return _transforms(shape, dim, real=True)


def _complex_transform(shape: Any, dim: Any, *_: Any, **__: Any) -> int:
    return _transforms(shape, dim, real=False)


def _real_inverse(shape: Any, dim: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return _transforms(out_shape, dim, real=True)
