"""Opponents of equal size or cost: the free width of a network, chosen for a given count."""

from collections.abc import Callable
from typing import Any

import torch

from neuroconv.flops import count_exact
from neuroconv.zoo import count_parameters, create_model, default_keywords


def count_flops(name: str, **keywords: Any) -> int:
    """Counts the FLOPs of one image's forward pass through a network of the zoo.

    Two for each multiply-add of convolutions, matrix products and Fourier transforms, by the exact
    counter on meta tensors; pointwise work is left out. Arguments as for `create_model`.
    """
    task = default_keywords(name) | keywords
    channels, *sides = task["image_shape"]
    steps = () if task["time_steps"] == 1 else (task["time_steps"],)
    with torch.device("meta"):
        model = create_model(name, **keywords)
        image = torch.empty(1, channels, *steps, *sides)
    return 2 * count_exact(model, image).mac


def parameter_count(name: str, **keywords: Any) -> int:
    """Counts the trained floats of a network of the zoo, without allocating them."""
    with torch.device("meta"):
        return count_parameters(create_model(name, **keywords))


def match_parameters(name: str, target_parameters: int, **keywords: Any) -> dict[str, Any]:
    """Chooses `width` so that a network has as many parameters as possible, but no more.

    Args:
        name: a zoo name whose builder has a keyword `width` that parameters grow with.
        **keywords: of the builder, held fixed.

    Returns:
        keywords with `width` added: `create_model(name, **result)` builds the network.

    Raises:
        ValueError: the builder has no free width, the target is not positive, or even width 1 is
            larger than the target.
    """
    return _match(name, parameter_count, "parameters", target_parameters, keywords)


def match_flops(name: str, target_flop: int, **keywords: Any) -> dict[str, Any]:
    """Chooses `width` like `match_parameters`, for FLOPs per image as `count_flops` counts."""
    return _match(name, count_flops, "flop", target_flop, keywords)


def _match(
    name: str, count: Callable[..., int], what: str, target: int, keywords: dict[str, Any]
) -> dict[str, Any]:
    """Returns the keywords with the largest width whose count is not above the target."""

    def amount(width: int) -> int:
        return count(name, **{**keywords, "width": width})

    if "width" not in default_keywords(name):
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
    return {**keywords, "width": low}
