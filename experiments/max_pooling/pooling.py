"""The network of granule cells, its spikes, its moved images and what its responses are like.

Shapes: B batch, N images, U units.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import affine

from neuroconv.data.frames import Frames
from neuroconv.data.perturbation import rotate, shift
from neuroconv.layers import DendriticSpike
from neuroconv.neurons import GranuleConv2d


class WindowSpike(nn.Module):
    """A `DendriticSpike` in windows of 3 x 3 positions of a map, over branches and dendrites.

    It is the formula of `neuroconv.layers.dendritic_spike` with its learning signals.

    Shape:
        potential (B, U, 1, H, W) -> the same
    """

    def __init__(self, pull: float, signal: str) -> None:
        super().__init__()
        self.pull, self.signal = pull, signal

    def forward(self, potential: Tensor) -> Tensor:
        sites = potential.squeeze(2)
        source = sites.detach() if self.signal == "essay" else sites
        largest, argmax = F.max_pool2d(source, 3, 1, 1, return_indices=True)
        spikes = largest > 0
        target = largest if self.pull == 1 else torch.lerp(source, largest, self.pull)
        lifted = torch.where(spikes, target, source)
        if self.signal == "essay":
            index = torch.arange(argmax[0, 0].numel()).view_as(argmax[0, 0])
            lifted = lifted - (source - sites) * ~((argmax == index) & spikes)
        return lifted.unsqueeze(2)


class Network(nn.Module):
    """Two layers of granule cells, each followed by pooling, and a linear read-out."""

    def __init__(self, widths: tuple[int, int], pooling: str, pull: float, signal: str) -> None:
        super().__init__()
        spike: nn.Module | None = None
        if pooling == "spike" and (pull or signal == "essay"):
            spike = WindowSpike(pull, signal)
        elif pooling == "column":
            spike = DendriticSpike(pull, window=3)
        build = partial(GranuleConv2d, time_steps=1, norm="both", spike=spike)
        self.first = build(1, widths[0], (3, 4), stride=2, padding=1)
        self.second = build(*widths, (3, 4), padding="same")
        self.classifier = nn.Linear(16 * widths[1], 10)
        self.pooling = pooling

    def pool(self, rates: Tensor) -> Tensor:
        if self.pooling == "max":
            return F.max_pool2d(rates, 3, 1, 1)
        return F.avg_pool2d(rates, 3, 1, 1) if self.pooling == "average" else rates

    def forward(self, images: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            images = self.pool(layer(images))[..., ::2, ::2]
        logits: Tensor = self.classifier(images.flatten(1))
        return logits

    def responses(self, images: Tensor, spikes: bool = True) -> Tensor:
        """Returns what the first layer's dendrites send to the soma, (B, U, 14, 14), unpooled."""
        layer, spike = self.first, self.first.spike
        layer.spike = spike if spikes else nn.Identity()
        sent: Tensor = layer.dendrites(layer.as_frames(images)).squeeze(2)
        layer.spike = spike
        return sent


def perturbations(images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yields the test images as they are, shifted, turned and scaled: (N, 1, 28, 28)."""

    def moved(function: Any, amount: float) -> Tensor:
        return torch.stack([function(amount, image, i) for i, image in enumerate(images)])

    def scale(factor: float, image: Tensor, seed: int) -> Tensor:
        return affine(image, 0.0, [0, 0], factor, [0.0, 0.0], InterpolationMode.BILINEAR)

    yield "still", images
    yield from ((f"shift_{pixels}", moved(shift, pixels)) for pixels in (1, 2, 3, 4))
    yield from ((f"rotate_{angle}", moved(rotate, angle)) for angle in (15, 30))
    yield from ((f"scale_{factor}", moved(scale, factor)) for factor in (0.8, 1.2))


def framed(frames: Frames, limit: int) -> tuple[Tensor, Tensor]:
    """Returns images (N, 1, 28, 28), small ones framed as MNIST's digits are, and labels (N,)."""
    images, labels = frames.images(range(min(limit, len(frames))))
    images = images.float() / (1 if images.is_floating_point() else 255)
    if images.shape[-1] < 28:
        images = F.pad(F.interpolate(images, (20, 20), mode="bilinear"), (4, 4, 4, 4))
    return images, labels


def gratings() -> Tensor:
    """Returns waves of 7 pixels' length, in 8 orientations and 4 phases: (8, 4, 1, 28, 28)."""
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    angle = torch.arange(8)[:, None, None, None] * math.pi / 8
    phase = torch.arange(4)[:, None, None] * math.pi / 2
    wave = (x * angle.cos() + y * angle.sin()) * 2 * math.pi / 7 + phase
    return (0.5 + 0.5 * wave.cos()).unsqueeze(2)


def selectivity(network: Network, spikes: bool) -> float:
    """Returns the orientation selectivity of the first layer: 1 minus the circular variance."""
    sent = network.responses(gratings().flatten(0, 1), spikes)[..., 2:-2, 2:-2]
    tuning = sent.mean((2, 3)).unflatten(0, (8, 4)).mean(1)  # (orientations, U)
    turns = torch.exp(2j * torch.arange(8) * math.pi / 8)
    return float(((turns @ tuning.to(turns.dtype)).abs() / tuning.sum(0).clamp(min=1e-9)).mean())


def correlation(first: Tensor, second: Tensor) -> float:
    """Returns Pearson's correlation over images and positions (B, U, H, W), mean over units."""
    a, b = (x.transpose(0, 1).flatten(1).double() for x in (first, second))
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    norms = (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-12)
    return float(((a * b).sum(1) / norms).mean())
