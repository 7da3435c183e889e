"""A CNN whose features of a frame meet in time through depthwise causal filters."""

from torch import Tensor, nn

from neuroconv.core.arguments import Depth, ImageShape, Size, Sizes, checked
from neuroconv.layers import LastStep
from neuroconv.zoo.baselines import GREY
from neuroconv.zoo.registry import ImageNetwork, register_model


@checked
class TemporalCNN(ImageNetwork):
    """Layers of a convolution within each frame and a depthwise causal one across frames.

    Args:
        layers: over frames (B, C, T, H, W), or with `vectors` over (B, C * H * W, T, 1, 1).
        pooled: (rows, columns) of the regions whose averages the classifier reads.

    Shape:
        (B, C, H, W), taken as constant over the window, or (B, C, T, H, W) -> logits (B, classes)
    """

    def __init__(
        self,
        layers: nn.Module,
        width: Size,
        pooled: tuple[Size, Size],
        num_classes: Size,
        time_steps: Size,
        image_shape: ImageShape,
        vectors: bool,
    ) -> None:
        super().__init__(time_steps, image_shape)
        self.layers, self.vectors, self.width = layers, vectors, width
        self.last_step, self.pool = LastStep(), nn.AdaptiveAvgPool2d(pooled)
        self.classifier = nn.Linear(width * pooled[0] * pooled[1], num_classes)

    @property
    def num_features(self) -> int:
        return self.width

    def forward_features(self, images: Tensor) -> Tensor:
        frames = self.as_frames(images)
        if self.vectors:
            frames = frames.transpose(1, 2).flatten(2).transpose(1, 2)[..., None, None]
        return self.last_step(self.layers(frames))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.pool(features).flatten(1)
        return pooled if pre_logits else self.classifier(pooled)


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
    vectors: bool | None = None,
    depth: Depth | None = None,
) -> TemporalCNN:
    """A CNN over time: in each layer 3x3 convolutions, then a causal filter for each channel.

    Both are followed by batch norm and ReLU. With `vectors` a frame is one vector, and the first
    kind of convolution pointwise: a temporal CNN with frequencies as channels, as is usual for
    speech (Choi et al. 2019, doi:10.21437/Interspeech.2019-1363).

    Args:
        width: channels of a layer; the first on maps has half as many, rounded up.
        strides: of each layer within a frame, on maps.
        taps: of the causal filters, in steps.
        pool: the classifier reads the last step averaged over pool x pool regions.
        vectors: None for yes where a frame is one pixel wide or high.
        depth: layers; of another number than strides the last strides are left out, or 1 follow.
    """
    channels, *sides = image_shape
    vectors = min(sides) == 1 if vectors is None else vectors
    depth = len(strides) if depth is None else depth
    if vectors:
        channels, sides = channels * sides[0] * sides[1], [1, 1]
    rows, columns = (1 if side == 1 else 3 for side in sides)
    layers = list[nn.Module]()
    for layer, stride in enumerate([*strides, *[1] * depth][:depth]):
        out = (width + 1) // 2 if layer == 0 and not vectors else width
        sides = [-(-side // stride) for side in sides]
        kernel, padding = (1, rows, columns), (0, rows // 2, columns // 2)
        layers += [
            nn.Conv3d(channels, out, kernel, (1, stride, stride), padding, bias=False),
            nn.BatchNorm3d(out), nn.ReLU(),
            nn.Flatten(3),  # a depthwise Conv3d takes several times longer
            nn.ConstantPad2d((0, 0, taps - 1, 0), 0.0),
            nn.Conv2d(out, out, (taps, 1), groups=out, bias=False),
            nn.BatchNorm2d(out), nn.ReLU(), nn.Unflatten(3, sides),
        ]  # fmt: skip
        channels = out
    regions = (min(pool, sides[0]), min(pool, sides[1]))
    return TemporalCNN(
        nn.Sequential(*layers), channels, regions, num_classes, time_steps, image_shape, vectors
    )
