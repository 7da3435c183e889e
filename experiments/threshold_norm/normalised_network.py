"""Networks of the four arms, and what is measured of them."""

import copy
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroconv.data import load_data
from neuroconv.essay.networks import Split, fit, passes, right
from neuroconv.layers import FiringRate, ThresholdNorm

ARMS = ("none", "initial", "batch", "threshold")


@lru_cache(maxsize=1)
def splits(name: str, images: int | None) -> list[Split]:
    """Returns pixels (N, F) and labels (N,) for training, validation and test."""
    data = load_data(name, encoding="none", train_limit=images)
    batches = (part.batch(range(len(part))) for part in (data.train, data.val, data.test))
    return [(pixels.flatten(1), labels) for pixels, labels in batches]


class InitialNorm(ThresholdNorm):
    """Threshold norm whose statistics are those of some images before training, for good.

    A unit's potential is then relative to its initial one and knows nothing of the batch.
    """

    def train(self, mode: bool = True) -> "InitialNorm":
        super().train(False)
        return self

    def fix(self, potential: Tensor) -> None:
        self.norm.running_mean.copy_(potential.mean(0))
        self.norm.running_var.copy_(potential.var(0))


class Network(nn.Sequential):
    def __init__(self, features: int, units: int, arm: str) -> None:
        norm = {
            "none": nn.Identity, "initial": InitialNorm, "batch": nn.BatchNorm1d,
            "threshold": ThresholdNorm,
        }[arm]  # fmt: skip
        widths = [features, units, units, units]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), norm(after), FiringRate()]
        super().__init__(*layers, nn.Linear(units, 10))

    @torch.no_grad()
    def fix_norms(self, pixels: Tensor) -> None:
        """Gives each `InitialNorm` the statistics of these images (B, F), layer by layer."""
        for module in self:
            if isinstance(module, InitialNorm):
                module.fix(pixels)
            pixels = module(pixels)

    def rates(self, pixels: Tensor) -> list[Tensor]:
        """Returns the rates (B, N) of each layer."""
        sent = []
        for module in self:
            pixels = module(pixels)
            if isinstance(module, FiringRate):
                sent.append(pixels)
        return sent


def trained(arm: str, batch: int, rate: float, training: Split, size: Any, seed: int) -> Network:
    """Trains a network; all arms begin with the same weights and see the images in one order."""
    (pixels, labels), generator = training, torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = Network(pixels.shape[1], size.units, arm).train()
    if arm == "initial":
        network.fix_norms(pixels[:256])
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, fused=True)
    fit(network, training, passes(len(labels), batch, size.epochs, generator), optimizer)
    return network.eval()


def right_by_batch(network: Network, pixels: Tensor, labels: Tensor, batch: int) -> float:
    """Returns the accuracy with the statistics of each test batch, over 2,000 images at most.

    A rest of one image, which has no statistics, is left out.
    """
    pixels, labels = pixels[:2000], labels[:2000]
    own = copy.deepcopy(network).train()
    parts = [
        right(own, *part)
        for part in zip(pixels.split(batch), labels.split(batch), strict=True)
        if len(part[0]) > 1
    ]
    return float(np.concatenate(parts).mean())


def constant(rates: Tensor) -> tuple[float, float]:
    """Returns the shares of units (B, N) that never fire, and that always send the same above 0."""
    fixed = (rates == rates[0]).all(0)
    dead = fixed & (rates[0] == 0)
    return float(dead.float().mean()), float((fixed & ~dead).float().mean())
