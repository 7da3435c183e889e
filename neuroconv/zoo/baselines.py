"""The opponents: standard networks under the zoo's contract.

They see still images (B, C, H, W). With time_steps > 1 they see a window of frames (B, C, T, H, W)
as C x T channels, so that they have the same pixels as the neuron they are compared with; a still
image is then repeated.
"""

import inspect
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import Tensor, nn

from neuroconv.core.checks import check_positive, check_task
from neuroconv.zoo.frames import as_frames
from neuroconv.zoo.registry import Builder, register_model


class StillNet(nn.Module):
    """A network of 2-D layers whose frames are channels.

    Shape:
        (B, C, H, W) or (B, C, T, H, W) with T = time_steps -> logits (B, classes)
    """

    def __init__(self, network: nn.Module, time_steps: int) -> None:
        super().__init__()
        self.network = network
        self.time_steps = time_steps

    def forward(self, images: Tensor) -> Tensor:
        frames = as_frames(images, self.time_steps)
        if frames.shape[2] != self.time_steps:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (batch, channels, height, "
                f"width) or (batch, channels, {self.time_steps} time_steps, height, width)"
            )
        return self.network(frames.flatten(1, 2))


def _register(
    image_shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10
) -> Callable[[Callable[..., nn.Module]], Builder]:
    """Registers a model, given the task's defaults and a function that builds its layers.

    The function takes the shape (C * T, H, W) of frames as channels, the number of classes, and
    keywords, which the model takes too.
    """
    default_shape, default_classes = image_shape, num_classes

    def register(layers: Callable[..., nn.Module]) -> Builder:
        def model(
            *,
            image_shape: tuple[int, int, int] = default_shape,
            num_classes: int = default_classes,
            time_steps: int = 1,
            **options: Any,
        ) -> StillNet:
            channels, height, width = check_task(image_shape, num_classes, time_steps)
            shape = (channels * time_steps, height, width)
            return StillNet(layers(shape, num_classes, **options), time_steps)

        *task, _ = inspect.signature(model).parameters.values()
        _, _, *options = inspect.signature(layers).parameters.values()
        model.__name__ = model.__qualname__ = layers.__name__
        model.__doc__ = layers.__doc__
        model.__signature__ = inspect.Signature([*task, *options])  # type: ignore[attr-defined]
        model.__annotations__ |= {option.name: option.annotation for option in options}
        return register_model(model)

    return register


@_register()
def linear(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A linear classifier on the pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), num_classes))


@_register()
def mlp(shape: tuple[int, int, int], num_classes: int, *, width: int = 128) -> nn.Module:
    """A perceptron with one hidden layer of `width` rectified units."""
    check_positive(width=width)
    hidden = nn.Linear(prod(shape), width)
    return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(width, num_classes))


@_register()
def lenet5(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """LeNet-5 with rectifiers and max pooling: 61,706 parameters on 28x28 grey images.

    Layer sizes from LeCun et al., "Gradient-Based Learning Applied to Document Recognition",
    Proc. IEEE 86(11), 1998, figure 2 (doi:10.1109/5.726791); the first layer is padded by 2, as
    for its 32x32 inputs. Images of other sizes are pooled to its 5x5 map before the dense layers.
    """
    # Padding keeps the smallest images legal; from 14 pixels on it is the original layer.
    padding = 0 if min(shape[1:]) >= 14 else 2
    return nn.Sequential(
        nn.Conv2d(shape[0], 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(6, 16, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(5), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes),
    )  # fmt: skip


@_register(image_shape=(3, 224, 224), num_classes=1000)
def resnet18(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """torchvision's ResNet-18, its first layer widened or narrowed to the channels."""
    from torchvision.models import resnet18 as build  # takes longer to import than torch

    network = build(num_classes=num_classes)
    if shape[0] != 3:
        network.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
    return network


@_register()
def plain_cnn(
    shape: tuple[int, int, int],
    num_classes: int,
    *,
    width: int = 16,
    strides: Sequence[int] = (2, 2, 1),
    pool: int = 2,
) -> nn.Module:
    """A plain CNN of free width: 3x3 convolutions, batch norm, ReLU; the matcher's free opponent.

    Args:
        width: channels of the later layers; the first has half as many, rounded up.
        strides: one for each layer.
        pool: the classifier sees maps averaged over pool x pool regions.
    """
    check_positive(width=width, strides=strides, pool=pool)
    channels, layers = shape[0], list[nn.Module]()
    for depth, stride in enumerate(strides):
        out = (width + 1) // 2 if depth == 0 else width
        conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    classifier = nn.Linear(channels * pool * pool, num_classes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(pool), nn.Flatten(), classifier)
