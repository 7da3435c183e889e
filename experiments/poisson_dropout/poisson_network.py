"""The network that would overfit, the noise of each arm, and what is measured of its units."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroconv.data import load_data
from neuroconv.essay.networks import fit
from neuroconv.layers import FiringRate, PoissonDropout

POISSON = ("wait", "redraw", "independent")


@lru_cache(maxsize=1)
def splits(name: str) -> tuple[tuple[Tensor, Tensor], ...]:
    """Returns pixels (N, F) and labels (N,) for training, validation and test."""
    data = load_data(name, encoding="none")
    batches = (part.batch(range(len(part))) for part in (data.train, data.val, data.test))
    return tuple((pixels.flatten(1), labels) for pixels, labels in batches)


@lru_cache
def mean_wait(mode: Any, survival: float, window: int) -> float:
    """Returns the mean waiting period at which a unit fires in this share of a window's steps."""
    low, high = 0.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        firing = PoissonDropout(middle, mode).firing_probability(window)
        low, high = (middle, high) if np.mean(firing) > survival else (low, middle)
    return low


class GaussianDropout(nn.Module):
    """Noise of mean 1 on a unit's whole window, with the variance of a scaled Bernoulli draw."""

    def __init__(self, survival: float) -> None:
        super().__init__()
        self.deviation = ((1 - survival) / survival) ** 0.5

    def forward(self, rate: Tensor) -> Tensor:
        noise = torch.randn(*rate.shape[:2], 1) if self.training else torch.zeros(())
        return rate * (1 + self.deviation * noise)


class Network(nn.Module):
    def __init__(self, features: int, units: int, arm: str, survival: float, window: int) -> None:
        super().__init__()
        self.window = window if arm in POISSON else 1
        self.layers = nn.ModuleList([nn.Linear(features, units), nn.Linear(units, units)])
        self.readout, self.firing = nn.Linear(units, 10), FiringRate()
        self.noise: nn.Module = nn.Identity()
        if arm in POISSON:
            mode: Any = arm
            self.noise = PoissonDropout(mean_wait(mode, survival, window), mode)
        elif arm != "none":
            self.noise = {
                "bernoulli": nn.Dropout1d(1 - survival),
                "gaussian": GaussianDropout(survival),
            }[arm]

    def rates(self, pixels: Tensor) -> list[Tensor]:
        """Returns the rates (B, N, T) that each layer sends on; T = 1 without noise."""
        steps = self.window if self.training else 1
        first = self.firing(self.layers[0](pixels)).unsqueeze(2).expand(-1, -1, steps)
        sent = [self.noise(first)]
        potential = self.layers[1](sent[0].transpose(1, 2)).transpose(1, 2)
        return [*sent, self.noise(self.firing(potential))]

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.rates(pixels)[1].mean(2))
        return logits


def trained(arm: str, survival: float, rate: float, size: Any, count: int, seed: int) -> Network:
    """Trains on `count` images that the seed draws; all arms have the same weights and batches."""
    pixels, labels = splits(size.data)[0]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(labels), generator=generator)[:count]
    torch.manual_seed(seed)  # of the weights and then of the noise
    network = Network(pixels.shape[1], size.units, arm, survival, size.window).train()
    drawn = torch.randint(count, (size.steps, size.batch), generator=generator)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    fit(network, (pixels, labels), chosen[drawn].unbind(), optimizer)
    return network.eval()


def mean_correlation(rates: Tensor) -> float:
    """Returns the mean of |r| over the pairs of units (B, N) that are not constant."""
    varying = rates[:, rates.std(0) > 1e-6].double()
    normal = (varying - varying.mean(0)) / varying.std(0)
    correlation = normal.T @ normal / (len(normal) - 1)
    pairs = correlation[*torch.triu_indices(*correlation.shape, 1)]
    return float(pairs.abs().mean())
