"""Threshold norm beside batch norm: statistics of the batch, and constant units, the slow way."""

from pathlib import Path

import pytest
import torch

from tests.scripts import loaded

FOLDER = Path(__file__).parents[2] / "experiments" / "threshold_norm"
NETWORK = loaded(FOLDER / "normalised_network.py")


def test_batch_statistics_are_those_of_each_batch() -> None:
    torch.manual_seed(0)
    network = NETWORK.Network(5, 3, "threshold").eval()
    pixels, labels = torch.rand(9, 5), torch.randint(10, (9,))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    right = 0
    for start in (0, 4):  # the ninth image is alone, and has no statistics
        sent = pixels[start : start + 4]
        for linear in (network[0], network[3], network[6]):
            x = linear(sent)
            sent = ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()).clamp(0, 3)
        right += int((network[9](sent).argmax(1) == labels[start : start + 4]).sum())
    assert NETWORK.right_by_batch(network, pixels, labels, 4) == pytest.approx(right / 8)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])  # the running statistics stay


def test_constant_units_are_dead_or_at_the_threshold() -> None:
    rates = torch.tensor([[0.0, 3, 0, 1], [0, 3, 2, 1], [0, 3, 0, 2]])
    assert NETWORK.constant(rates) == (0.25, 0.25)


def test_initial_statistics_are_those_before_training_and_stay() -> None:
    torch.manual_seed(0)
    network, first, pixels = NETWORK.Network(5, 3, "initial"), torch.rand(20, 5), torch.rand(9, 5)
    network.fix_norms(first)
    linear = network[0]
    x, y = linear(pixels), linear(first)
    expected = ((x - y.mean(0)) / (y.var(0) + 1e-5).sqrt()).clamp(0, 3)
    torch.testing.assert_close(network.train().rates(pixels)[0], expected)
    torch.testing.assert_close(network.train().rates(pixels[:1])[0], expected[:1])
