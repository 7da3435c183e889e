"""Opponents of equal size: the free width of a network, chosen for a given parameter count."""

import inspect
from typing import Any

import torch
from torch import nn

from neuroconv.zoo.registry import create_model, get_builder


def count_parameters(model: nn.Module) -> int:
    """Trained floats."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


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
    if "width" not in inspect.signature(get_builder(name)).parameters:
        raise ValueError(f"model {name!r} has no keyword 'width' to match by; try 'plain_cnn'")
    if target_parameters < 1:
        raise ValueError(f"target_parameters={target_parameters}; expected a positive integer")

    def parameters(width: int) -> int:
        with torch.device("meta"):
            return count_parameters(create_model(name, **{**keywords, "width": width}))

    if parameters(1) > target_parameters:
        raise ValueError(
            f"model {name!r} has {parameters(1):,} parameters at width 1, more than the "
            f"{target_parameters:,} to match"
        )
    low, high = 1, 2
    while parameters(high) <= target_parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(middle) <= target_parameters else (low, middle)
    return {**keywords, "width": low}
