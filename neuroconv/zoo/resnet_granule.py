"""A residual network whose units are granule cells.

Shapes: B batch, C channels, U units, T time steps.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

from torch import Tensor, nn

from neuroconv.core.arguments import ImageShape, Seed, Size, argument, checked
from neuroconv.layers import LastStep
from neuroconv.neurons import GranuleConv2d
from neuroconv.neurons.stages import Table, merge
from neuroconv.zoo.registry import ImageNetwork, register_model

UNIT: Table = {"wiring": "dense", "norm": "dendrites"}
BLOCKS = (2, 2, 2, 2)  # residual blocks in each of the four stages


class Residual(nn.Module):
    """A residual block: the rates of two granule layers, added to their input or its projection.

    Both terms are rates, so their sum is one, and no rectifier follows.

    Shape:
        (B, C, T, H, W) -> (B, U, T, H', W')
    """

    def __init__(self, branch: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.branch, self.skip = branch, skip

    def forward(self, rates: Tensor) -> Tensor:
        return self.skip(rates) + self.branch(rates)


@checked
class GranuleResNet(ImageNetwork):
    """Stem, max pooling, residual blocks, and a read-out of the last step's averaged maps.

    Shape:
        (B, C, H, W), taken as constant over the window, or (B, C, T, H, W) -> logits (B, classes)
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        units: Size,
        num_classes: Size,
        steps: Size,
        image_shape: ImageShape | None = None,
    ) -> None:
        super().__init__(steps, image_shape)
        self.stem = stem
        self.max_pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.Sequential(*blocks)
        self.last_step = LastStep()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(units, num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        rates = self.stem(self.as_frames(images))
        steps_first = rates.transpose(1, 2)  # as granule layers keep their maps: nothing is copied
        pooled = self.max_pool(steps_first.flatten(0, 1))
        rates = self.blocks(pooled.unflatten(0, steps_first.shape[:2]).transpose(1, 2))
        return self.last_step(rates)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.average(features).flatten(1)
        return pooled if pre_logits else self.classifier(pooled)


@register_model
def resnet18_granule(
    *,
    image_shape: ImageShape = (3, 224, 224),
    num_classes: Size = 1000,
    time_steps: Size = 1,
    width: Size = 64,
    unit: Table = UNIT,
    seed: Seed = 0,
) -> GranuleResNet:
    """ResNet-18 of granule cells: its sizes, its connections, and a dendrite for each column.

    A 7x7 stem of stride 2, a 3x3 max pooling of stride 2, and four stages of two blocks with 64,
    128, 256 and 512 units, each block of two 3x3 layers: He et al., "Deep Residual Learning for
    Image Recognition", CVPR 2016, table 1 (doi:10.1109/CVPR.2016.90). With time_steps=1 it has
    ResNet-18's taps one for one, and multiplies as often.

    Where a stage halves the maps, He's projection (their option B: 1x1, stride 2, batch norm) is a
    granule cell of one dendrite with one branch, which has no memory and rests at zero: it adds
    rates too. The price is that a block cannot take away from its input, which He et al. hold
    against rectifying before the sum ("Identity Mappings in Deep Residual Networks", ECCV 2016,
    section 4.1, doi:10.1007/978-3-319-46493-0_38).

    Args:
        time_steps: 1 is for still images.
        width: units of the first stage; every stage doubles them.
        unit: further arguments of every `GranuleConv2d`, merged over the defaults; projections take
            its wiring and whether it normalises, and have neither memory nor dropout. By default
            each dendrite is normalised, and each soma learns its resting potential, from zero:
            norm "both" would cut off half of every soma's sum, and so deep a network learns slowly.
            `linear_dendrites = true` is the control, as in `granule_convnet`.
        seed: of the claw wiring.
    """
    channels = image_shape[0]
    seeds = count(seed)
    unit = merge(UNIT, unit)

    def layer(units_in: int, units: int, side: int, stride: int) -> GranuleConv2d:
        keywords = {"time_steps": time_steps, "seed": next(seeds), **unit}
        with argument("unit"):
            return GranuleConv2d(units_in, units, side, stride, side // 2, **keywords)

    def projection(units_in: int, units: int) -> GranuleConv2d:
        norm = "none" if unit["norm"] == "none" else "dendrites"
        keywords: Any = {"wiring": unit["wiring"], "norm": norm, "seed": next(seeds)}
        keywords["norm_over"] = unit.get("norm_over", "window")
        return GranuleConv2d(units_in, units, 1, 2, bias=False, time_steps=1, **keywords)

    stem = layer(channels, width, 7, 2)
    blocks: list[nn.Module] = []
    units = width
    for stage, depth in enumerate(BLOCKS):
        for block in range(depth):
            units_in, units = units, width * 2**stage
            stride = 2 if stage > 0 and block == 0 else 1
            branch = nn.Sequential(layer(units_in, units, 3, stride), layer(units, units, 3, 1))
            skip = nn.Identity() if stride == 1 else projection(units_in, units)
            blocks.append(Residual(branch, skip))
    return GranuleResNet(stem, blocks, units, num_classes, time_steps, image_shape)
