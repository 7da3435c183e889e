"""torchvision's networks as opponents, for small images too, and of any size.

With their default width and images of 97 pixels or more they are torchvision's own. `width` is that
of a layer which the builder's docstring names; all others keep their ratio to it, rounded up. Below
97 pixels strides are left out, the first ones first, until the last map has four pixels or more.
"""

from contextlib import nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import Depth, ImageShape, Size, checked
from neuroconv.core.cost import Cost
from neuroconv.zoo.baselines import StillNet, frames_as_channels
from neuroconv.zoo.registry import ImageNetwork, register_model

PHOTOGRAPH = (3, 224, 224)


def _resized(build: Any, num_classes: int, channels: int, width: int, reference: int) -> Any:
    """Builds a network for images of any channels, with width / reference of torchvision's own.

    Its convolutions are then drawn by He's rule for a layer's outputs, as torchvision draws ResNet;
    by torch's default, as AlexNet, narrow ones often pass nothing on.
    """

    def scaled(size: int) -> int:
        return -(-size * width // reference)

    resized = width != reference
    with torch.device("meta") if resized else nullcontext():
        network = build(num_classes=num_classes)
    *_, classifier = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    for path, layer in list(network.named_modules()):
        new: Any = layer
        if isinstance(layer, nn.Conv2d) and (resized or layer.in_channels == 3 != channels):
            keep: Any = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding")}
            inputs = channels if layer.in_channels == 3 else scaled(layer.in_channels)
            keep["groups"] = 1 if layer.groups == 1 else scaled(layer.groups)
            new = nn.Conv2d(inputs, scaled(layer.out_channels), bias=layer.bias is not None, **keep)
            if resized:
                nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d) and resized:
            new = nn.BatchNorm2d(scaled(layer.num_features), layer.eps, layer.momentum)
        elif isinstance(layer, nn.Linear) and resized:
            out = num_classes if layer is classifier else scaled(layer.out_features)
            new = nn.Linear(scaled(layer.in_features), out)
        if new is not layer:
            network.set_submodule(path, new)
    return network


def _left_out(image_shape: ImageShape) -> int:
    """Returns how many of five halvings an image cannot take; see the module's docstring."""
    side = min(image_shape[1:])
    return next((n for n in range(5) if -(-side // 2 ** (5 - n)) >= 4), 4)


@register_model
def alexnet(
    *, image_shape: ImageShape = PHOTOGRAPH, num_classes: Size = 1000, time_steps: Size = 1,
    width: Size = 4096,
) -> StillNet:  # fmt: skip
    """torchvision's AlexNet: 61,100,840 parameters on photographs of 224 pixels.

    On images below 97 pixels the first layer has stride 2 and 7x7 taps (from 49), or stride 1 and
    5x5, poolings are padded, and the dense layers receive the last map as it is, up to 6x6.

    Args:
        width: units of the two hidden dense layers.
    """
    from torchvision import models  # takes longer to import than torch

    channels, *sides = frames_as_channels(image_shape, time_steps)
    network = _resized(models.alexnet, num_classes, channels, width, 4096)
    if left_out := _left_out(image_shape):
        stride = max(1, 4 >> left_out)
        kernel = 2 * stride + 3
        maps = network.features[0].out_channels
        network.features[0] = nn.Conv2d(channels, maps, kernel, stride, kernel // 2)
        rows, columns = (min(6, -(-side // (8 * stride))) for side in sides)
        network.avgpool = nn.AdaptiveAvgPool2d((rows, columns))
        for pool in (2, 5, 12):
            network.features[pool].padding = 1
    if left_out or width != 4096:
        values = network.features[10].out_channels * prod(network.avgpool.output_size)
        network.classifier[1] = nn.Linear(values, width)
    return StillNet(network, time_steps, image_shape)


@register_model
def mobilenet_v3_small(
    *, image_shape: ImageShape = PHOTOGRAPH, num_classes: Size = 1000, time_steps: Size = 1,
    width: Size = 1024,
) -> StillNet:  # fmt: skip
    """torchvision's small MobileNetV3: 2,542,856 parameters.

    Args:
        width: units of the hidden dense layer; sizes are not rounded to multiples of 8.
    """
    from torchvision import models

    channels = frames_as_channels(image_shape, time_steps)[0]
    network = _resized(models.mobilenet_v3_small, num_classes, channels, width, 1024)
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    for layer in strided[: _left_out(image_shape)]:
        layer.stride = (1, 1)
    return StillNet(network, time_steps, image_shape)


@register_model
def resnet18(
    *, image_shape: ImageShape = PHOTOGRAPH, num_classes: Size = 1000, time_steps: Size = 1,
    width: Size = 64,
) -> StillNet:  # fmt: skip
    """torchvision's ResNet-18, with its strides at all sizes, as `resnet18_granule` has them.

    Args:
        width: channels of the first stage; every stage doubles them.
    """
    from torchvision import models

    channels = frames_as_channels(image_shape, time_steps)[0]
    network = _resized(models.resnet18, num_classes, channels, width, 64)
    return StillNet(network, time_steps, image_shape)


@checked
class PatchTransformer(ImageNetwork):
    """A vision transformer of torchvision's whose frames are channels.

    Images that are no squares are filled up with zeros at the right or the bottom.

    Shape:
        as `StillNet`; its features are tokens (B, 1 + patches, width), the class token first
    """

    classifier_path = "network.heads.head"

    def __init__(
        self, network: nn.Module, time_steps: Size, image_shape: ImageShape | None = None
    ) -> None:
        super().__init__(time_steps, image_shape)
        self.network: Any = network

    def forward_features(self, images: Tensor) -> Tensor:
        maps = self.as_frames(images).flatten(1, 2)
        down, right = (self.network.image_size - side for side in maps.shape[-2:])
        if down or right:
            maps = nn.functional.pad(maps, (0, right, 0, down))
        patches = self.network.conv_proj(maps).flatten(2).transpose(1, 2)
        token = self.network.class_token.expand(len(patches), -1, -1)
        return self.network.encoder(torch.cat([token, patches], 1))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features[:, 0] if pre_logits else self.network.heads(features[:, 0])

    def closed_form(self, images: torch.Size) -> tuple[Cost, ...]:
        """States patches, blocks and head; norms, GELUs and softmaxes are in no row."""
        net, (batch, *_) = self.network, images
        tokens, width = net.seq_length, net.hidden_dim
        patches = batch * (tokens - 1) * net.conv_proj.weight.numel()
        block = tokens * width * (4 * width + 2 * tokens + 2 * net.mlp_dim)
        dense = len(net.encoder.layers) * block + self.head_hidden_size * self.num_classes
        return (
            Cost("convolution", {"convolution": patches}, neurons=(tokens - 1) * width),
            Cost("linear", {"matmul": batch * dense}),
        )


@register_model
def vit(
    *, image_shape: ImageShape = PHOTOGRAPH, num_classes: Size = 1000, time_steps: Size = 1,
    width: Size = 768, depth: Depth = 12,
) -> PatchTransformer:  # fmt: skip
    """torchvision's vision transformer: ViT-B/16 by default, 86,567,656 parameters.

    Patches have 16, 8, 4, 2 or 1 pixels a side: the most that divide the image into 7x7 or more.
    Its MLPs have 4 x width hidden units, and a head of attention 64 channels, or somewhat more.

    Args:
        width: channels of a token. With depth=2 and width 10, or depth=4 and 34, 28x28 grey images
            have 3,470 or 59,986 parameters.
        depth: blocks.
    """
    from torchvision.models import VisionTransformer

    channels, *sides = frames_as_channels(image_shape, time_steps)
    side = max(sides)
    patch = next((n for n in (16, 8, 4, 2) if side % n == 0 and side >= 7 * n), 1)
    heads = next(n for n in range(max(1, width // 64), 0, -1) if width % n == 0)
    network = VisionTransformer(
        side, patch, depth, heads, width, mlp_dim=4 * width, num_classes=num_classes
    )
    if channels != 3:
        network.conv_proj = nn.Conv2d(channels, width, patch, patch)
        nn.init.trunc_normal_(network.conv_proj.weight, std=(channels * patch**2) ** -0.5)
        nn.init.zeros_(network.conv_proj.bias)
    return PatchTransformer(network, time_steps, image_shape)
