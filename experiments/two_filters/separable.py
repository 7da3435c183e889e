"""Filters that are products of two, the network that has them, and how near it is a convolution.

Shapes: B batch, N images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from neuroconv.layers import DendriticSpike
from neuroconv.neurons import GranuleConv2d


class Product(nn.Module):
    """Filters (..., 3, 4) as the product of one along the branches and one along the dendrites."""

    def forward(self, branches: Tensor, dendrites: Tensor) -> Tensor:
        return branches * dendrites

    def right_inverse(self, taps: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (..., 3, 1) and (..., 1, 4): the taps' first singular pair, at their norm."""
        u, _, v = torch.linalg.svd(taps)
        root = torch.linalg.matrix_norm(taps, keepdim=True).sqrt()
        return u[..., :1] * root, v[..., :1, :] * root


class Network(nn.Module):
    """Two layers of granule cells for still images (B, 1, 28, 28), and a linear read-out."""

    def __init__(self, widths: tuple[int, int], filters: str, between: str) -> None:
        super().__init__()
        cells = [
            GranuleConv2d(
                *channels, (3, 4), 2, 1, time_steps=1, norm="soma",
                linear_dendrites=between != "rectifier",
                spike=DendriticSpike(window=3) if between == "spike" else None,
            )
            for channels in ((1, widths[0]), widths)
        ]  # fmt: skip
        if filters == "two":
            for layer in cells:
                parametrize.register_parametrization(layer, "weight", Product())
        self.cells = nn.Sequential(*cells)
        self.classifier = nn.Linear(49 * widths[1], 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.cells(images).flatten(1))
        return logits


def first_pair(taps: Tensor) -> Tensor:
    """Returns the share of the squared norm of filters (..., 3, 4) in the first singular pair."""
    squares = torch.linalg.svdvals(taps.double()) ** 2
    return squares[..., 0] / squares.sum(-1)


@torch.no_grad()
def composition_error(layer: nn.Module, images: Tensor) -> float:
    """Returns the relative error, in float64, of one convolution for two one after the other."""
    pair = layer.parametrizations.weight
    first, second = (x.double().squeeze(2) for x in (pair.original0, pair.original1))
    images = images.double().expand(-1, len(first), -1, -1)
    two = F.conv2d(F.conv2d(images, first, groups=len(first)), second, groups=len(first))
    one = F.conv2d(images, first * second, groups=len(first))
    return float((two - one).abs().max() / two.abs().max())


@torch.no_grad()
def nonlinear_share(layer: GranuleConv2d, fitted: Tensor, tested: Tensor) -> float:
    """Returns the share of a layer's variance that the best linear filter of 7 x 4 taps misses.

    It is fitted to one set of images (N, C, H, W) and tested on another; mean over the units.
    """

    def problem(images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = F.unfold(F.pad(images, (1, 1, 3, 3)), (7, 4), stride=2).transpose(1, 2)
        sent = layer.dendrites(layer.as_frames(images)).flatten(2).transpose(1, 2)
        with_constant = F.pad(pixels.flatten(0, 1), (0, 1), value=1.0)
        return with_constant.double(), sent.flatten(0, 1).double()

    x, y = problem(fitted)
    square = x.T @ x
    ridge = 1e-9 * square.trace() * torch.eye(len(square), dtype=square.dtype)
    taps = torch.linalg.solve(square + ridge, x.T @ y)
    x, y = problem(tested)
    return float(((y - x @ taps).square().mean(0) / y.var(0, correction=0).clamp(min=1e-12)).mean())


@torch.no_grad()
def nonlinear_shares(network: Network, fitted: Tensor, tested: Tensor) -> list[float]:
    """Returns `nonlinear_share` of each layer, on what it receives for these images."""
    shares = []
    for cell in network.cells:
        shares.append(nonlinear_share(cell, fitted, tested))
        fitted, tested = cell(fitted), cell(tested)
    return shares
