"""Opponents of equal size or cost: width and depth of a network, chosen for a given count."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from neuroconv.core.arguments import Size, checked
from neuroconv.flops import axons, count_exact
from neuroconv.zoo import count_parameters, create_model, default_keywords

_DEPTHS = range(1, 9)  # layers that are tried


def count_flops(name: str, **keywords: Any) -> int:
    """Counts the FLOPs of one image's forward pass through a network of the zoo.

    Two for each multiply-add of convolutions, matrix products and Fourier transforms, by the exact
    counter on meta tensors; pointwise work is left out. Arguments as for `create_model`.
    """
    with torch.device("meta"):
        model = create_model(name, **keywords)
    return 2 * count_exact(model, _image(name, keywords)).mac


def count_axons(name: str, **keywords: Any) -> int:
    """Counts the values that units of a network of the zoo send one another for one image.

    See `neuroconv.flops.count_axons`. Arguments as for `create_model`.
    """
    return axons.count_axons(create_model(name, **keywords), _image(name, keywords)).axons


def _image(name: str, keywords: dict[str, Any]) -> Tensor:
    """Returns one image, or window of frames, on meta."""
    task = default_keywords(name) | keywords
    channels, *sides = task["image_shape"]
    steps = () if task["time_steps"] == 1 else (task["time_steps"],)
    return torch.empty(1, channels, *steps, *sides, device="meta")


def parameter_count(name: str, **keywords: Any) -> int:
    """Counts the trained floats of a network of the zoo, without allocating them."""
    with torch.device("meta"):
        return count_parameters(create_model(name, **keywords))


class Matched(dict[str, Any]):
    """The keywords of a matched network: `create_model(name, **matched)` builds it.

    Attributes:
        amount: its parameters, FLOPs or axons.
        target: those to match.
    """

    def __init__(self, keywords: dict[str, Any], amount: int, target: int) -> None:
        super().__init__(keywords)
        self.amount, self.target = amount, target

    @property
    def ratio(self) -> float:
        """The network's amount over the target, 1 for a perfect match."""
        return self.amount / self.target

    @property
    def is_close(self) -> bool:
        """Whether the amount is within 2 % of the target."""
        return 50 * self.mismatch <= self.target

    @property
    def mismatch(self) -> int:
        return abs(self.amount - self.target)


@checked
def match_parameters(
    name: str, target_parameters: Size, *, at_most: bool = False, **keywords: Any
) -> Matched:
    """Chooses `width`, and `depth` if need be, for a network of about as many parameters.

    The width alone if that comes within 2 % of the target, from either side; else the depth nearest
    to the default that does; else what comes nearest.

    Args:
        name: a zoo name whose builder has a keyword `width` that parameters grow with.
        at_most: choose the largest width, at the default depth, that is not above the target.
        **keywords: of the builder, held fixed.

    Returns:
        the keywords and what was chosen; their `ratio` says how near it comes.

    Raises:
        ValueError: the builder has no free width, the target is not a positive integer, or the
            smallest network has more than twice as many (with `at_most`, more).
    """
    return _match(name, parameter_count, "parameters", target_parameters, at_most, keywords)


@checked
def match_flops(name: str, target_flop: Size, *, at_most: bool = False, **keywords: Any) -> Matched:
    """Chooses like `match_parameters`, for FLOPs per image as `count_flops` counts."""
    return _match(name, count_flops, "FLOPs", target_flop, at_most, keywords)


@checked
def match_axons(
    name: str, target_axons: Size, *, at_most: bool = False, **keywords: Any
) -> Matched:
    """Chooses like `match_parameters`, for axons per image as `count_axons` counts."""
    return _match(name, count_axons, "axons", target_axons, at_most, keywords)


# By the name of what is equal: how it is counted, and how it is matched.
MATCHES: dict[str, tuple[Callable[..., int], Callable[..., Matched]]] = {
    "parameters": (parameter_count, match_parameters),
    "flops": (count_flops, match_flops),
    "axons": (count_axons, match_axons),
}


def _match(
    name: str,
    count: Callable[..., int],
    unit: str,
    target: int,
    at_most: bool,
    keywords: dict[str, Any],
) -> Matched:
    defaults = default_keywords(name)
    if "width" not in defaults:
        raise ValueError(f"model {name!r} has no keyword 'width' to match by; try 'plain_cnn'")
    best = _match_width(partial(count, name), target, at_most, keywords)
    if "depth" in defaults and "depth" not in keywords and not at_most and not best.is_close:
        amounts = {depth: count(name, **best, depth=depth) for depth in _DEPTHS}
        default = next((depth for depth in _DEPTHS if amounts[depth] == best.amount), max(_DEPTHS))
        for depth in sorted(_DEPTHS, key=lambda depth: (abs(depth - default), -depth)):
            fixed = {**keywords, "depth": depth}
            other = _match_width(partial(count, name), target, at_most, fixed)
            best = min(best, other, key=lambda matched: matched.mismatch)
            if best.is_close:
                break
    if best.ratio > (1 if at_most else 2):
        raise ValueError(
            f"model {name!r} has {best.amount:,} {unit} at width {best['width']}, more than the "
            f"{target:,} to match"
        )
    return best


def _match_width(
    count: Callable[..., int], target: int, at_most: bool, keywords: dict[str, Any]
) -> Matched:
    """Returns the width that comes nearest, or the largest whose count is not above the target; 1
    where even that is above it."""

    def matched(width: int) -> Matched:
        keywords_of_width = {**keywords, "width": width}
        return Matched(keywords_of_width, count(**keywords_of_width), target)

    low = high = smallest = matched(1)
    while high.amount <= target:
        low, high = high, matched(2 * high["width"])
        if high["width"] > 2 and high.amount <= smallest.amount:
            raise ValueError(
                f"keywords {keywords}: width {high['width']} counts {high.amount:,}, and width 1 "
                f"{smallest.amount:,}; expected a builder of networks that grow with `width`"
            )
    while high["width"] - low["width"] > 1:
        middle = matched((low["width"] + high["width"]) // 2)
        low, high = (middle, high) if middle.amount <= target else (low, middle)
    return low if at_most or low.mismatch <= high.mismatch else high
