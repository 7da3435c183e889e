"""Recurrent networks on frames: each step's pixels are one vector, and the last step is read out.

Shapes: B batch, C channels, T time steps, F numbers of a frame, U units.
"""

from math import prod
from typing import Any

from torch import Tensor, nn

from neuroconv.core.arguments import ImageShape, Size, checked
from neuroconv.zoo.baselines import GREY
from neuroconv.zoo.registry import ImageNetwork, register_model


def frame_size(image_shape: ImageShape, block: int) -> int:
    """Returns F, the numbers of a frame averaged over blocks of block x block pixels."""
    channels, *sides = image_shape
    return channels * prod(-(-side // block) for side in sides)


def default_block(image_shape: ImageShape) -> int:
    """Returns 1 for frames that are one pixel wide or high, and 4 for other ones."""
    return 1 if min(image_shape[1:]) == 1 else 4


@checked
class SequenceNet(ImageNetwork):
    """Layers over a sequence of vectors, and a linear read-out of their last step.

    Args:
        layers: from (B, T, F) to (B, T, U), or to a tuple that begins with it, as of nn.LSTM.
        units: U.
        block: pixels of a side that are averaged before the layers see them; 1 leaves them apart.

    Shape:
        (B, C, H, W), taken as constant over the window, or (B, C, T, H, W) -> logits (B, classes)
    """

    def __init__(
        self,
        layers: nn.Module,
        units: Size,
        num_classes: Size,
        time_steps: Size,
        image_shape: ImageShape,
        block: Size = 1,
    ) -> None:
        super().__init__(time_steps, image_shape)
        height, width = (min(block, side) for side in image_shape[1:])
        blocks = nn.AvgPool2d((height, width), ceil_mode=True)
        self.average = nn.Identity() if block == 1 else blocks
        self.layers = layers
        self.classifier = nn.Linear(units, num_classes)

    def as_sequence(self, images: Tensor) -> Tensor:
        """Returns frames as vectors (B, T, F)."""
        frames = self.as_frames(images).transpose(1, 2)
        return self.average(frames.flatten(0, 1)).flatten(1).unflatten(0, frames.shape[:2])

    def forward_features(self, images: Tensor) -> Tensor:
        outputs: Any = self.layers(self.as_sequence(images))
        steps: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
        return steps[:, -1]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features if pre_logits else self.classifier(features)


@register_model
def lstm(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 10,
    width: Size = 14,
    block: Size | None = None,
    num_layers: Size = 1,
) -> SequenceNet:
    """An LSTM (`nn.LSTM`) on frames: `num_layers` layers of `width` units, and a linear read-out.

    Frames are averaged over blocks of `block` x `block` pixels, None for 4, or 1 where a frame is
    one pixel wide or high: of 28x28 pixels apart 4,000 parameters would be a single unit.
    """
    block = default_block(image_shape) if block is None else block
    layers = nn.LSTM(frame_size(image_shape, block), width, num_layers, batch_first=True)
    return SequenceNet(layers, width, num_classes, time_steps, image_shape, block)


@register_model
def gru(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 10,
    width: Size = 18,
    block: Size | None = None,
    num_layers: Size = 1,
) -> SequenceNet:
    """A GRU (`nn.GRU`) on frames: `num_layers` layers of `width` units, and a linear read-out.

    Frames are averaged over blocks of `block` x `block` pixels, as for `lstm`.
    """
    block = default_block(image_shape) if block is None else block
    layers = nn.GRU(frame_size(image_shape, block), width, num_layers, batch_first=True)
    return SequenceNet(layers, width, num_classes, time_steps, image_shape, block)
