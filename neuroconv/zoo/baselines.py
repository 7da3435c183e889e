"""Baselines: standard networks under the zoo's contract.

With time_steps > 1 they take a window of frames (B, C, T, H, W) as C x T channels, the same pixels
as the neuron they are compared with; a still image is then repeated. With frames="mean" they see
the mean frame alone: the control of a task in time, which it can solve only where time is not
needed.
"""

from collections.abc import Iterable
from math import prod
from typing import Literal

from torch import Tensor, nn

from neuroconv.core.arguments import Depth, ImageShape, Size, Sizes, checked
from neuroconv.zoo.registry import ImageNetwork, register_model

GREY = (1, 28, 28)
Frames = Literal["channels", "mean"]


@checked
class StillNet(ImageNetwork):
    """A network of 2-D layers whose frames are channels, or are averaged.

    Its layers run one after another, as those of torchvision's CNNs. The head begins at the pooling
    to a fixed size, or without any is the last layer.

    Shape:
        (B, C, H, W) or (B, C, T, H, W) with T = time_steps -> logits (B, classes)
    """

    def __init__(
        self,
        network: nn.Module,
        time_steps: Size,
        image_shape: ImageShape | None = None,
        frames: Frames = "channels",
    ) -> None:
        super().__init__(time_steps, image_shape)
        self.network, self.frames = network, frames
        self.classifier_path, layer = "network", network
        while children := list(layer.named_children()):
            name, layer = children[-1]
            self.classifier_path += f".{name}"

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self._as_channels(images))

    def forward_features(self, images: Tensor) -> Tensor:
        return _run(self._parts()[0], self._as_channels(images))

    def _as_channels(self, images: Tensor) -> Tensor:
        frames = self.as_frames(images)
        return frames.mean(2) if self.frames == "mean" else frames.flatten(1, 2)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        *layers, last = self._parts()[1]
        *hidden, classifier = last if isinstance(last, nn.Sequential) else [last]
        values = _run(hidden, _run(layers, features).flatten(1))
        return values if pre_logits else classifier(values)

    @property
    def num_features(self) -> int:
        for layer in reversed([m for part in self._parts()[0] for m in part.modules()]):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                return len(layer.weight)
        return self.head_hidden_size

    def _parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Returns the layers of the features and those of the head."""
        layers = list(self.network.children())
        pools = [n for n, layer in enumerate(layers) if isinstance(layer, nn.AdaptiveAvgPool2d)]
        head = pools[0] if pools else len(layers) - 1
        return layers[:head], layers[head:]


def _run(layers: Iterable[nn.Module], values: Tensor) -> Tensor:
    for layer in layers:
        values = layer(values)
    return values


def frames_as_channels(
    image_shape: ImageShape, time_steps: int, frames: Frames = "channels"
) -> ImageShape:
    """Returns (C * T, H, W), the frames as channels, or (C, H, W) of the mean frame."""
    channels, height, width = image_shape
    return channels * (1 if frames == "mean" else time_steps), height, width


@register_model
def linear(
    *, image_shape: ImageShape = GREY, num_classes: Size = 10, time_steps: Size = 1
) -> StillNet:
    """A linear classifier on the pixels."""
    pixels = prod(frames_as_channels(image_shape, time_steps))
    return StillNet(
        nn.Sequential(nn.Flatten(), nn.Linear(pixels, num_classes)), time_steps, image_shape
    )


@register_model
def mlp(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 1,
    width: Size = 128,
    depth: Depth | None = None,
) -> StillNet:
    """A perceptron with `depth` hidden layers, by default one, of `width` rectified units."""
    inputs = prod(frames_as_channels(image_shape, time_steps))
    depth = 1 if depth is None else depth
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return StillNet(nn.Sequential(*layers, nn.Linear(width, num_classes)), time_steps, image_shape)


@register_model
def lenet5(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 1,
    width: Size = 120,
) -> StillNet:
    """LeNet-5 with rectifiers and max pooling: 61,706 parameters on 28x28 grey images.

    Layer sizes from LeCun et al., "Gradient-Based Learning Applied to Document Recognition",
    Proc. IEEE 86(11), 1998, figure 2 (doi:10.1109/5.726791); padding 2 stands for its 32x32 inputs.
    Images of other sizes are pooled to its 5x5 map before the dense layers.

    Args:
        width: units of the first dense layer; all others keep their ratio to it, rounded up.
    """
    channels, *sides = frames_as_channels(image_shape, time_steps)
    # Padding keeps the smallest images legal; from 14 pixels on it is the original layer.
    padding = 0 if min(sides) >= 14 else 2
    first, second, dense = (-(-size * width // 120) for size in (6, 16, 84))
    layers = nn.Sequential(
        nn.Conv2d(channels, first, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(first, second, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(5), nn.Flatten(), nn.Linear(25 * second, width), nn.ReLU(),
        nn.Linear(width, dense), nn.ReLU(), nn.Linear(dense, num_classes),
    )  # fmt: skip
    return StillNet(layers, time_steps, image_shape)


@register_model
def plain_cnn(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 1,
    width: Size = 16,
    strides: Sizes = (2, 2, 1),
    pool: Size = 2,
    depth: Depth | None = None,
    frames: Frames = "channels",
) -> StillNet:
    """A plain CNN of free width: 3x3 convolutions, batch norm, ReLU; the matcher's free opponent.

    Each layer has one of `strides` and `width` channels, the first half as many, rounded up. Of
    another `depth` the last strides are left out, or layers of stride 1 follow. The classifier sees
    maps averaged over `pool` x `pool` regions. It reads `frames` as "channels", or their "mean".
    """
    channels = frames_as_channels(image_shape, time_steps, frames)[0]
    depth = len(strides) if depth is None else depth
    layers = list[nn.Module]()
    for layer, stride in enumerate([*strides, *[1] * depth][:depth]):
        out = (width + 1) // 2 if layer == 0 else width
        conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    classifier = nn.Linear(channels * pool * pool, num_classes)
    layers += [nn.AdaptiveAvgPool2d(pool), nn.Flatten(), classifier]
    return StillNet(nn.Sequential(*layers), time_steps, image_shape, frames)
