"""The zoo's registry, and the contract of its networks.

A builder takes keywords alone, among them image_shape, num_classes and time_steps, and returns a
network from images (B, C, H, W) or frames (B, C, T, H, W) to logits (B, num_classes).
"""

import fnmatch
import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import Count, ImageShape, Size, buildable, checked
from neuroconv.core.checks import expected_one_of
from neuroconv.neurons.stages import merge
from neuroconv.zoo.pretrained import get_weights, list_weights

Builder = Callable[..., nn.Module]
_REGISTRY: dict[str, Builder] = {}
_PACKAGES: dict[str, str] = {}  # optional ones, by the entry that needs them


@checked
class ImageNetwork(nn.Module):
    """A network that holds its images to the shape that it was built for.

    A network for other sizes has the same keywords but `image_shape` or `time_steps`, and where its
    maps are pooled the same weights: `load_state_dict` takes them over.

    A subclass defines `forward_features` and `forward_head`. Its last layer is `classifier`, or
    what `classifier_path` names. These methods and sizes have timm's names and meaning.

    Args:
        time_steps: T of its window.
        image_shape: (C, H, W); None for any.

    Shape:
        (B, C, H, W), taken as constant over the window, or (B, C, T, H, W) -> logits (B, classes)

    Raises:
        ValueError: at the call, images of another shape, or that are not floating point.
    """

    classifier_path = "classifier"

    def __init__(self, time_steps: Size, image_shape: ImageShape | None = None) -> None:
        super().__init__()
        self.time_steps, self.image_shape = time_steps, image_shape

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Returns what the head receives, with F `num_features`: maps (B, F, H', W') before
        pooling, vectors (B, F), or a transformer's tokens (B, N, F)."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Returns the logits (B, num_classes) of features, or with `pre_logits` what the classifier
        receives (B, head_hidden_size)."""
        raise NotImplementedError

    def extract_features(self, images: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """Returns what those of some submodules that run put out, by their names, as torchvision's
        feature extraction does, which cannot trace these networks."""
        outputs: dict[str, Any] = {}

        def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
            outputs[name] = output

        with ExitStack() as stack:
            for name in names:
                hook = self.get_submodule(name).register_forward_hook(partial(keep, name))
                stack.callback(hook.remove)
            self(images)
        return outputs

    def get_classifier(self) -> nn.Module:
        """Returns the last linear layer, or the identity that stands for it."""
        return self.get_submodule(self.classifier_path)

    def reset_classifier(self, num_classes: Count) -> None:
        """Replaces the classifier by an untrained one; with 0 classes by the identity."""
        before: Any = self.get_classifier()
        layer: Any = nn.Identity()
        if num_classes:
            like = next(self.parameters(), torch.empty(()))
            layer = nn.Linear(before.in_features, num_classes).to(like)
        layer.in_features = before.in_features
        self.set_submodule(self.classifier_path, layer)

    @property
    def head_hidden_size(self) -> int:
        """The number of values that the classifier receives."""
        classifier: Any = self.get_classifier()
        return classifier.in_features

    @property
    def num_features(self) -> int:
        """The channels of what `forward_features` returns."""
        return self.head_hidden_size

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 without a classifier."""
        return getattr(self.get_classifier(), "out_features", 0)

    def as_frames(self, images: Tensor) -> Tensor:
        """Checks images (B, C, H, W) or frames (B, C, T, H, W), and returns them as frames."""
        if not torch.jit.is_tracing():  # a tracer has no numbers to compare
            self._check(images)
        if images.dim() == 5:
            return images
        return images.unsqueeze(2).expand(-1, -1, self.time_steps, -1, -1)

    def _check(self, images: Tensor) -> None:
        if not images.is_floating_point():
            raise ValueError(
                f"images are {images.dtype}; expected floating point: images.float() / 255 for "
                "bytes"
            )
        shape = tuple(images.shape)
        stills = (*shape[1:2], *shape[3:]) if len(shape) == 5 else shape[1:]
        steps = shape[2] if len(shape) == 5 else self.time_steps
        wrong = []  # and how to build the network for it
        if self.image_shape is not None and stills != self.image_shape:
            wrong.append(f"image_shape={stills}")
        if steps != self.time_steps:
            wrong.append(f"time_steps={steps}")
        if len(shape) not in (4, 5) or wrong:
            channels, height, width = self.image_shape or ("channels", "height", "width")
            remedy = f"; or build the network with {', '.join(wrong)}" if len(stills) == 3 else ""
            raise ValueError(
                f"images have shape {shape}; expected (batch, {channels}, {height}, {width}), or "
                f"frames (batch, {channels}, {self.time_steps}, {height}, {width}){remedy}"
            )


def register_model(builder: Builder, *, package: str | None = None) -> Builder:
    """Adds a builder under the function's name, as a decorator; ValueError if it is taken.

    Keywords are held to their annotations; see `neuroconv.core.arguments.checked`. `package` names
    an optional package without which the builder raises ImportError.
    """
    name = builder.__name__
    if not re.fullmatch(r"\w[\w.+-]{0,79}", name):
        text = "expected 1 to 80 letters, digits and _ . + -, as in the names of run folders"
        raise ValueError(f"a builder's __name__ is {name!r}; {text}")
    if name in _REGISTRY:
        raise ValueError(f"a model {name!r} is registered already; give the builder another name")
    if package is not None:
        _PACKAGES[name] = package
    _REGISTRY[name] = checked(builder)
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

    preset.__name__ = preset.__qualname__ = name
    preset.__doc__, preset.__annotations__ = doc, get_type_hints(builder, include_extras=True)
    merged = merge({key: parameter.default for key, parameter in parameters.items()}, defaults)
    preset.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[parameter.replace(default=merged[key]) for key, parameter in parameters.items()]
    )
    return register_model(preset)


@checked
def list_models(
    pattern: str = "*", *, installed: bool = False, pretrained: bool = False
) -> list[str]:
    """Returns the zoo's names that match a wildcard pattern, such as "granule*", sorted.

    With `installed` without those that need an optional package that is not there; with
    `pretrained` the weights that come with the package, as NAME.TAG.
    """
    names = sorted(fnmatch.filter(list_weights() if pretrained else _REGISTRY, pattern))
    if not installed:
        return names
    return [name for name in names if name not in _PACKAGES or find_spec(_PACKAGES[name])]


@checked
def get_builder(name: str) -> Builder:
    """Returns the builder of a name; ValueError for an unknown one."""
    if name not in _REGISTRY:
        raise ValueError(f"unknown model {name!r}; {expected_one_of(name, list_models())}")
    return _REGISTRY[name]


def default_keywords(name: str) -> dict[str, Any]:
    """Returns the keywords that `create_model` takes with a name, and their defaults."""
    parameters = inspect.signature(get_builder(name)).parameters
    return {keyword: parameter.default for keyword, parameter in parameters.items()}


@checked
def create_model(name: str, pretrained: bool | str = False, **keywords: Any) -> nn.Module:
    """Builds a network of the zoo; its builder's docstring explains the keywords.

    All take image_shape (C, H, W), num_classes and time_steps.

    Args:
        pretrained: a tag of trained weights that come with the package, such as "mnist", or True
            for the network's default ones. They fix the keywords; another num_classes replaces the
            classifier by an untrained one. `get_weights` tells how to prepare images for them.

    Raises:
        ValueError: an unknown name or tag, or a value that the builder or the weights refuse.
        TypeError: a keyword that the builder does not have.
    """
    if pretrained is False:
        with buildable(name, keywords):
            return get_builder(name)(**keywords)
    weights = get_weights(name, pretrained)
    fixed = weights.record["keywords"]
    classes = keywords.pop("num_classes", fixed["num_classes"])
    for key, value in keywords.items():
        if (list(value) if isinstance(value, tuple) else value) != fixed.get(key):
            raise ValueError(f"{key}={value!r}: {weights.title} has {key}={fixed.get(key)!r}")
    model: Any = create_model(name, **fixed)
    weights.load(model)
    if classes != fixed["num_classes"]:
        model.reset_classifier(classes)
    return model


@checked
def count_parameters(model: nn.Module) -> int:
    """Returns the number of trained floats."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
