"""The spike in windows of a map against the package's spike, window by window."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.layers import dendritic_spike
from tests.scripts import loaded

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "max_pooling"
POOLING = loaded(FOLDER / "pooling.py")


def window_by_window(potential: Tensor, pull: float, signal: str) -> Tensor:
    """Lifts the middle of each 3 x 3 window as a site of a dendrite of nine."""
    (batch, units, _, height, width), lifted = potential.shape, torch.zeros_like(potential)
    for b, u, y, x in torch.cartesian_prod(*map(torch.arange, (batch, units, height, width))):
        rows, columns = (slice(max(i - 1, 0), i + 2) for i in (y, x))
        sites = potential[b, u, 0, rows, columns]
        middle = min(int(y), 1) * sites.shape[1] + min(int(x), 1)
        spike = dendritic_spike(sites.reshape(-1, 1), pull, signal=signal)
        lifted = lifted.index_put((b, u, torch.tensor(0), y, x), spike[middle, 0])
    return lifted


@pytest.mark.parametrize("signal", ["max", "essay"])
@pytest.mark.parametrize("pull", [0.0, 0.25, 1.0])
def test_a_spike_in_windows_is_the_package_s_spike(pull: float, signal: str) -> None:
    potential = torch.randn(2, 2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(potential)
    fast = POOLING.WindowSpike(pull, signal)(potential)
    slow = window_by_window(potential, pull, signal)
    torch.testing.assert_close(fast, slow)
    gradients = (torch.autograd.grad(x, potential, upstream)[0] for x in (fast, slow))
    torch.testing.assert_close(*gradients)


def test_full_pull_and_a_rectifier_are_max_pooling() -> None:
    potential = torch.randn(2, 3, 1, 6, 6)
    lifted = POOLING.WindowSpike(1.0, "max")(potential).relu()
    assert torch.equal(lifted.squeeze(2), F.max_pool2d(potential.squeeze(2), 3, 1, 1).relu())
