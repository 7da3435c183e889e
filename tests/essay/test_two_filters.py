"""Filters of rank 1 against sums written out, and the best linear filter against a known one."""

from pathlib import Path

import torch

from neuroconv.neurons import GranuleConv2d
from tests.scripts import loaded

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "two_filters"
SEPARABLE = loaded(FOLDER / "separable.py")


def test_two_filters_in_turn_are_their_product() -> None:
    layer = SEPARABLE.Network((2, 2), "two", "nothing").cells[0]
    images = torch.rand(2, 1, 8, 8)
    assert SEPARABLE.composition_error(layer, images) < 1e-14
    pair, window = layer.parametrizations.weight, images[0, 0, :3, :4].double()
    along_branches = [(window[:, d] * pair.original0[0, 0, 0, :, 0]).sum() for d in range(4)]
    in_turn = sum(x * w for x, w in zip(along_branches, pair.original1[0, 0, 0, 0], strict=True))
    torch.testing.assert_close(in_turn, (window * layer.weight[0, 0, 0].double()).sum())


def test_the_first_pair_is_the_nearest_of_rank_1() -> None:
    taps = torch.randn(5, 3, 4, dtype=torch.float64)
    u, s, v = torch.linalg.svd(taps)
    nearest = s[:, :1, None] * u[..., :1] * v[..., :1, :]
    missed = (taps - nearest).square().sum((1, 2)) / taps.square().sum((1, 2))
    torch.testing.assert_close(SEPARABLE.first_pair(taps), 1 - missed)
    product = SEPARABLE.Product()
    start = product(*product.right_inverse(taps))
    torch.testing.assert_close(start / start.norm(dim=(1, 2), keepdim=True),
                               nearest / s[:, :1, None])  # fmt: skip
    torch.testing.assert_close(start.norm(dim=(1, 2)), taps.norm(dim=(1, 2)))


def test_a_linear_cell_is_a_convolution_and_one_with_a_rectifier_is_not() -> None:
    images = torch.randn(2, 8, 1, 28, 28)
    shares = []
    for linear in (True, False):
        torch.manual_seed(0)
        cell = GranuleConv2d(1, 2, (3, 4), 2, 1, time_steps=1, linear_dendrites=linear)
        shares.append(SEPARABLE.nonlinear_share(cell, *images))
    assert shares[0] < 1e-8
    # Of noise, a rectified Gaussian's: 1 - (1/4) / (1/2 - 1/(2 pi)) of the variance is beyond it.
    assert abs(shares[1] - (1 - 0.25 / (0.5 - 1 / (2 * torch.pi)))) < 0.03
