"""The zoo's registry, and the contract of its networks.

A builder takes keywords alone, among them image_shape, num_classes and time_steps, and returns a
network from images (B, C, H, W) or frames (B, C, T, H, W) to logits (B, num_classes).
"""

import fnmatch
import inspect
import typing
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from neuroconv.core.checks import expected_one_of
from neuroconv.core.renamed import renamed
from neuroconv.neurons.stages import merge
from neuroconv.zoo.legacy import new_keywords

Builder = Callable[..., nn.Module]
_REGISTRY: dict[str, Builder] = {}


def register_model(builder: Builder) -> Builder:
    """Adds a builder under the function's name, as a decorator; ValueError if it is taken."""
    name = builder.__name__
    if name in _REGISTRY:
        raise ValueError(f"a model {name!r} is registered already; give the builder another name")
    _REGISTRY[name] = renamed(new_keywords(name))(builder)
    return _REGISTRY[name]


def register_preset(name: str, builder: Builder, doc: str, **defaults: Any) -> Builder:
    """Registers a builder under another name, with other defaults for some of its keywords.

    A default that is a table is merged over the builder's, and a caller's table over both.
    """
    signature = inspect.signature(builder)
    parameters = signature.parameters
    for keyword in defaults:
        if keyword not in parameters:
            raise TypeError(f"{builder.__name__} has no keyword {keyword!r}; preset {name!r}")

    def preset(**keywords: Any) -> nn.Module:
        return builder(**merge(defaults, keywords))

    preset.__name__, preset.__doc__ = name, doc
    preset.__annotations__ = typing.get_type_hints(builder)
    merged = merge({key: parameter.default for key, parameter in parameters.items()}, defaults)
    preset.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[parameter.replace(default=merged[key]) for key, parameter in parameters.items()]
    )
    return register_model(preset)


def list_models(pattern: str = "*") -> list[str]:
    """Returns the zoo's names that match a wildcard pattern, such as "granule*", sorted."""
    return sorted(fnmatch.filter(_REGISTRY, pattern))


def get_builder(name: str) -> Builder:
    """Returns the builder of a name; ValueError for an unknown one."""
    if name not in _REGISTRY:
        raise ValueError(f"unknown model {name!r}; {expected_one_of(name, list_models())}")
    return _REGISTRY[name]


def default_keywords(name: str) -> dict[str, Any]:
    """Returns the keywords that `create_model` takes with a name, and their defaults."""
    parameters = inspect.signature(get_builder(name)).parameters
    return {keyword: parameter.default for keyword, parameter in parameters.items()}


def create_model(name: str, **keywords: Any) -> nn.Module:
    """Builds a network of the zoo; its builder's docstring explains the keywords.

    All take image_shape (C, H, W), num_classes and time_steps.

    Raises:
        ValueError: an unknown name, or a value that the builder refuses.
        TypeError: a keyword that the builder does not have.
    """
    builder, known_keywords = get_builder(name), default_keywords(name)
    for keyword in keywords:
        if keyword not in known_keywords:
            new = new_keywords(name).get(keyword)
            hint = f"it is now {new}" if new else expected_one_of(keyword, known_keywords)
            raise TypeError(f"model {name!r} has no keyword {keyword!r}; {hint}")
    try:
        return builder(**keywords)
    except (TypeError, IndexError, AttributeError):
        # Sizes and choices are checked where they are used; what is left is a value's type.
        hints = typing.get_type_hints(builder)
        for keyword, value in keywords.items():
            _check_type(name, keyword, value, hints.get(keyword, Any))
        raise


def count_parameters(model: nn.Module) -> int:
    """Returns the number of trained floats."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def as_frames(images: Tensor, time_steps: int) -> Tensor:
    """Returns images (B, C, H, W) as a constant window (B, C, T, H, W), and frames as they are."""
    if images.dim() == 4:
        return images.unsqueeze(2).expand(-1, -1, time_steps, -1, -1)
    if images.dim() != 5:
        raise ValueError(
            f"images have shape {tuple(images.shape)}; expected (batch, channels, height, width) "
            "or (batch, channels, time_steps, height, width)"
        )
    return images


def _check_type(name: str, keyword: str, value: Any, hint: Any) -> None:
    """Raises ValueError for a value that is not of the annotated type; a list may be a tuple."""
    checked = tuple(value) if isinstance(value, list) else value
    try:
        check_type(checked, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        form = inspect.formatannotation(hint).replace("collections.abc.", "")
        raise ValueError(f"model {name!r}: {keyword}={value!r}; expected {form}") from None
