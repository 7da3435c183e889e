"""A convolutional network whose units are granule cells, and its control.

Shapes: B batch, C channels, T time steps.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import ImageShape, Seed, Size, Sizes, argument, checked
from neuroconv.core.checks import pair
from neuroconv.core.modules import graph_leaf
from neuroconv.kernels.image import dendrite_potentials, fused_dendrites, fused_somata
from neuroconv.layers import Cost, FiringRate, LastStep
from neuroconv.neurons import GranuleConv2d
from neuroconv.neurons.costs import layer_products
from neuroconv.neurons.image import trace_image_layer, wired_kernel
from neuroconv.neurons.stages import Table, build_norm, merge
from neuroconv.zoo.registry import ImageNetwork, register_model, register_preset

UNIT: Table = {"wiring": "claw", "norm": "both"}


@checked
class Conv3dUnit(nn.Module):
    """The control of `GranuleConv2d`: a plain Conv3d, batch norm and ReLU on the same wiring.

    It has the granule layer's taps, one for one, but no dendrites: columns are summed before they
    are rectified, none is normalised by itself, and no soma filters the sum. It runs by the granule
    layer's kernels, which leave its columns linear: a claw meets no zeros of a dense kernel, and
    other filters have time folded into channels. The numbers are those of `F.conv3d` with
    `kernel()`.

    Shape:
        (B, C, T, H, W) -> (B, U, T, H', W'), causal in time, in training with the granule layer's
        norm_over="step"
    """

    channels: Tensor | None
    # What `neuroconv.kernels.image` reads of a layer: nothing but sums before the norm.
    dendritic_norms, dendritic_bias, bias, conv_groups = (), None, None, 1
    linear_dendrites, spike, soma, firing = True, nn.Identity(), nn.Identity(), FiringRate()

    def __init__(self, granule: GranuleConv2d) -> None:
        super().__init__()
        if granule.dilation != (1, 1) or granule.groups != 1:
            raise ValueError(
                f"the granule layer has dilation={granule.dilation} and groups={granule.groups}; "
                "the control stands in for layers without either"
            )
        self.in_channels, self.out_channels = granule.in_channels, granule.out_channels
        self.time_steps, self.window = granule.time_steps, granule.window
        self.weight = nn.Parameter(torch.empty_like(granule.weight))
        self.register_buffer("channels", granule.channels, persistent=False)
        self.norm = build_norm(True, nn.BatchNorm3d, self.out_channels, granule.norm_over)
        fan_in = self.weight[0].numel()
        nn.init.normal_(self.weight, std=(2 / fan_in) ** 0.5)

    @property
    def soma_norm(self) -> nn.Module:
        return self.norm

    def kernel(self) -> Tensor:
        if self.channels is None:
            return self.weight
        return wired_kernel(self.weight, self.channels, self.in_channels)

    @graph_leaf
    def forward(self, frames: Tensor) -> Tensor:
        potential = fused_dendrites(self, frames)  # the columns' sum by one kernel, or None
        if potential is None:
            potential = torch.stack([*dendrite_potentials(self, frames)]).sum(0)
        rate = fused_somata(self, potential)
        if rate is None:  # compilers lay a norm's gradient out as its input should be
            rate = self.norm(potential.contiguous()).relu()
        return rate

    def closed_form(self, frames: torch.Size) -> tuple[Cost, ...]:
        batch, _, steps, height, width = frames
        units, fan_in, *taps = self.weight.shape
        neurons = units * prod(self.window.output_size(height, width))
        synapses = Cost("synapses", synapses=neurons * fan_in * prod(taps[1:]))
        products, zeros = layer_products(self, batch * steps * neurons, steps)
        macs = {"convolution": products}
        return synapses, Cost("convolution", macs, neurons=neurons, zeros=zeros)

    def trace_axons(self, _: object, frames: Tensor) -> Tensor:
        """States which values each unit reads; see `neuroconv.flops.count_axons`."""
        return trace_image_layer(self, frames)


@checked
class FrameNet(ImageNetwork):
    """Units over frames and a read-out of the last step.

    Frames of one column are turned: their pixels lie along the dendrites of a patch.

    Shape:
        (B, C, H, W), taken as constant over the window, or (B, C, T, H, W) -> logits (B, classes)
    """

    def __init__(
        self,
        units: Sequence[nn.Module],
        channels: Size,
        pool: Size | tuple[Size, Size],
        num_classes: Size,
        steps: Size,
        image_shape: ImageShape | None = None,
    ) -> None:
        super().__init__(steps, image_shape)
        self.units = nn.Sequential(*units)
        self.last_step = LastStep()
        self.pool, self.regions = nn.AdaptiveAvgPool2d(pool), prod(pair(pool))
        self.classifier = nn.Linear(channels * self.regions, num_classes)

    @property
    def num_features(self) -> int:
        return self.head_hidden_size // self.regions

    def forward_features(self, images: Tensor) -> Tensor:
        frames = self.as_frames(images)
        turned = self.image_shape is not None and self.image_shape[2] == 1
        return self.last_step(self.units(frames.transpose(3, 4) if turned else frames))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.pool(features).flatten(1)
        return pooled if pre_logits else self.classifier(pooled)


@register_model
def granule_convnet(
    *,
    image_shape: ImageShape = (1, 28, 28),
    num_classes: Size = 10,
    time_steps: Size = 5,
    widths: Sizes = (8, 24, 15),
    strides: Sizes = (2, 2, 1),
    kernel_size: tuple[Size, Size] = (3, 4),
    pool: Size | tuple[Size, Size] = 2,
    unit: Table = UNIT,
    control: bool = False,
    seed: Seed = 0,
) -> FrameNet:
    """A convolutional network of granule cells: four dendrites, columns of a 3x4 patch, 5 frames.

    Args:
        widths, strides: units and stride of each layer.
        kernel_size: (branches, dendrites) of a unit.
        pool: the read-out receives the last step averaged over pool x pool regions, or (rows,
            columns) of them.
        unit: further arguments of every `GranuleConv2d`, merged over the defaults: claw wiring
            (each dendrite reads one channel: 60 taps a unit) and norms at dendrites and soma. A
            spike's window is by default as long as a dendrite has branches. `linear_dendrites =
            true` is the control without dendritic rectifiers, of the same parameters.
        control: whether to build a `Conv3dUnit` for each granule layer.
        seed: of the claw wiring.
    """
    channels = [image_shape[0], *widths]
    rows, columns = kernel_size
    if len(widths) != len(strides):
        raise ValueError(
            f"widths={list(widths)} and strides={list(strides)} differ in length; expected one "
            "stride for each layer"
        )
    keywords: dict[str, Any] = {"time_steps": time_steps, **merge(UNIT, unit)}
    if isinstance(spike := keywords.get("spike"), Mapping):
        keywords["spike"] = {"window": rows, **spike}
    units = []
    for layer, stride in enumerate(strides):
        with argument("unit"):
            granule = GranuleConv2d(
                channels[layer], channels[layer + 1], (rows, columns), stride,
                (rows // 2, columns // 2), **{"seed": seed + layer, **keywords},
            )  # fmt: skip
        units.append(Conv3dUnit(granule) if control else granule)
    return FrameNet(units, widths[-1], pool, num_classes, time_steps, image_shape)


granule_convnet_conv3d = register_preset(
    "granule_convnet_conv3d",
    granule_convnet,
    """The control of `granule_convnet`: for each granule layer a plain Conv3d, norm and ReLU.

    See `Conv3dUnit`. Arguments as in `granule_convnet`.
    """,
    control=True,
)
