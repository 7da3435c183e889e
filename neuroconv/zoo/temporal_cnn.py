"""A CNN whose features of a frame meet in time through depthwise causal filters."""

import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import Depth, ImageShape, Size, Sizes
from neuroconv.zoo.baselines import GREY
from neuroconv.zoo.granule_convnet import FrameNet
from neuroconv.zoo.registry import register_model


class CausalFilters(nn.Conv2d):
    """Filters of taps x 1 over steps and positions (B, C, T, H * W)."""

    def trace_axons(self, _: object, frames: Tensor) -> Tensor:
        """States what units read: the first axis of a convolution in three dimensions is time."""
        weight = self.weight.unsqueeze(-1)
        return F.conv3d(frames.unsqueeze(-1), weight, groups=self.groups).squeeze(-1)


@register_model
def temporal_cnn(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 10,
    width: Size = 16,
    strides: Sizes = (2, 2, 1),
    taps: Size = 5,
    pool: Size = 2,
    depth: Depth | None = None,
) -> FrameNet:
    """A CNN over time: in each layer a convolution of frames, then a causal filter of each channel.

    Both have batch norm and ReLU. The read-out receives the last step. Where a frame is one pixel
    wide or high, the first convolution spans all of it and others are pointwise, as is usual for
    spectrograms (Choi et al. 2019, doi:10.21437/Interspeech.2019-1363).

    Args:
        width: channels of a layer; the first on maps has half as many, rounded up.
        strides: of each layer's 3x3 convolution.
        taps: of the causal filters, in steps.
        pool: the read-out receives maps averaged over pool x pool regions.
        depth: layers; of another number than strides the last strides are left out, or 1 follow.
    """
    channels, *sides = image_shape
    vectors = min(sides) == 1
    sides = sides[::-1] if sides[1] == 1 else sides  # as FrameNet turns them
    depth = len(strides) if depth is None else depth
    layers = list[nn.Module]()
    for layer, stride in enumerate([*strides, *[1] * depth][:depth]):
        out = (width + 1) // 2 if layer == 0 and not vectors else width
        rows, columns = sides
        sides = [1, 1] if vectors else [-(-side // stride) for side in sides]
        layers += [
            nn.Conv3d(channels, out, (1, rows, columns), bias=False) if vectors else
            nn.Conv3d(channels, out, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(out), nn.ReLU(),
            nn.Flatten(3),  # a depthwise Conv3d takes several times longer
            nn.ConstantPad2d((0, 0, taps - 1, 0), 0.0),
            CausalFilters(out, out, (taps, 1), groups=out, bias=False),
            nn.BatchNorm2d(out), nn.ReLU(), nn.Unflatten(3, sides),
        ]  # fmt: skip
        channels = out
    regions = (min(pool, sides[0]), min(pool, sides[1]))
    return FrameNet(layers, channels, regions, num_classes, time_steps, image_shape)
