"""Opponents of equal size or cost: the free width of a network, chosen for a given count."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from neuroconv.flops import count_exact
from neuroconv.zoo import count_parameters, create_model, get_builder


def count_flops(name: str, **keywords: Any) -> int:
    """Counts the FLOPs of one image's forward pass through a network of the zoo.

    Two for each multiply-add of the contractions (convolutions, matrix products and Fourier
    transforms), by the exact counter on meta tensors. Norms, activations and all else that is
    pointwise are left out.

    Args:
        name, **keywords: as for `create_model`.
    """
    defaults = inspect.signature(get_builder(name)).parameters
    (channels, *sides), time_steps = (
        keywords.get(key, defaults[key].default) for key in ("image_shape", "time_steps")
    )
    steps = () if time_steps == 1 else (time_steps,)
    with torch.device("meta"):
        model = create_model(name, **keywords)
        image = torch.empty(1, channels, *steps, *sides)
    return 2 * count_exact(model, image).mac


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

    Args:
        name, **keywords: as for `match_parameters`, which returns and raises the same.
        target_flop: the count to reach, such as `count_flops` of another network.
    """

    def flop(width: int) -> int:
        return count_flops(name, **{**keywords, "width": width})

    return {**keywords, "width": _widest(name, flop, "flop", target_flop)}


def _widest(name: str, amount: Callable[[int], int], what: str, target: int) -> int:
    """Returns the largest width whose amount is not above the target."""
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
