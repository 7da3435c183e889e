"""The dendritic spike: its two ends to the bit, what is between, and who learns."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.layers.spike import DendriticSpike, dendritic_spike
from tests.layers.test_layers_threshold import batch_innermost

OPEN = -1e9  # a threshold that every potential passes


def bits(x: Tensor) -> Tensor:
    return x.view(torch.int32)


@pytest.mark.parametrize("signal", ["max", "essay"])
@pytest.mark.parametrize("temperature", [0.0, 1e-3])
def test_pull_one_with_an_open_gate_is_max_pooling_to_the_bit(
    temperature: float, signal: Any
) -> None:
    x = (torch.randn(4, 3, 2, 6, 5) * 1e3).requires_grad_()
    x = torch.cat([x, -x.relu()])  # negative zeros among them
    result = DendriticSpike(1.0, OPEN, temperature=temperature, signal=signal)(x)
    pooled = F.max_pool1d(x.movedim(3, 4).flatten(0, 3), 6).view(8, 3, 2, 1, 5).expand_as(x)
    assert torch.equal(result, pooled)
    for window in (1, 3, 5):
        layer = DendriticSpike(1.0, OPEN, temperature=temperature, window=window, signal=signal)
        pooled = F.max_pool2d(x.flatten(0, 2), (window, 1), 1, (window // 2, 0)).view_as(x)
        assert torch.equal(layer(x), pooled)
        if not temperature:
            assert torch.equal(bits(layer(x)), bits(pooled))


@pytest.mark.parametrize("signal", ["max", "essay"])
@pytest.mark.parametrize("window", [None, 2, 3])
def test_pull_zero_and_closed_gates_are_the_identity_to_the_bit(
    window: int | None, signal: Any
) -> None:
    x = (torch.randn(4, 3, 2, 6, 5) * 1e3).requires_grad_()
    x = torch.cat([x, -x.relu()])
    for temperature in (0.0, 0.5):
        layer = DendriticSpike(0.0, OPEN, temperature=temperature, window=window, signal=signal)
        assert torch.equal(bits(layer(x)), bits(x))
    assert torch.equal(bits(DendriticSpike(0.7, 1e9, window=window, signal=signal)(x)), bits(x))
    half_open = DendriticSpike(1.0, 500.0, window=window, signal=signal)(x)
    closed = (half_open == x) | (half_open > 500)
    assert closed.all()
    assert (half_open > x).any()


def test_the_gate_needs_more_than_the_threshold() -> None:
    x = torch.tensor([[2.0], [1.0]])
    assert DendriticSpike(1.0, 2.0)(x).tolist() == [[2.0], [1.0]]
    assert DendriticSpike(1.0, 1.99)(x).tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize("window", [None, 2])
def test_learned_strength_and_threshold_start_as_fixed_ones(window: int | None) -> None:
    layer = DendriticSpike(
        0.7, 0.3, temperature=0.8, window=window, learn_strength=True, learn_threshold=True
    )
    fixed = DendriticSpike(0.7, 0.3, temperature=0.8, window=window)
    x = torch.randn(2, 3, 4, 2)
    torch.testing.assert_close(layer(x), fixed(x))
    assert (len(list(layer.parameters())), len(list(fixed.parameters()))) == (2, 0)
    for parameter in layer.parameters():
        torch.nn.init.constant_(parameter, 9.0)
    layer.reset_parameters()
    torch.testing.assert_close(layer(x), fixed(x))


def jacobian_of(layer: DendriticSpike, sites: list[float]) -> list[list[float]]:
    """Row p: how much of output p's gradient each site receives."""
    x = torch.tensor(sites, dtype=torch.float64).view(-1, 1).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(layer, x)
    return jacobian[:, 0, :, 0].tolist()


def test_who_receives_the_gradient() -> None:
    sites = [1.0, 3.0, 2.0]
    # As max-pooling: all of every output's goes to the largest; at half the strength half of it.
    assert jacobian_of(DendriticSpike(), sites) == [[0, 1, 0]] * 3
    half = [[0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5]]
    assert jacobian_of(DendriticSpike(0.5), sites) == half
    # As the essay: the site that spiked hears nothing, every other hears its own output cleanly.
    for strength in (0.0, 0.5, 1.0):
        essay = jacobian_of(DendriticSpike(strength, signal="essay"), sites)
        assert essay == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    # A closed gate is the identity under both.
    for signal in ("max", "essay"):
        closed = jacobian_of(DendriticSpike(1.0, 5.0, signal=signal), sites)
        assert closed == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    # A gate that is half open holds back half.
    soft = jacobian_of(DendriticSpike(1.0, 3.0, temperature=0.5, signal="essay"), sites)
    assert soft == [[1, 0, 0], [0, 0.5, 0], [0, 0, 1]]


def test_ties_go_to_the_first_and_silence_passes() -> None:
    for sites in ([0.0, 0.0, 0.0], [1.0, 2.0, 2.0]):
        first = sites.index(max(sites))
        pooled = [[float(q == first) for q in range(3)]] * 3
        assert jacobian_of(DendriticSpike(1.0, -1.0), sites) == pooled
        essay = jacobian_of(DendriticSpike(1.0, -1.0, signal="essay"), sites)
        assert essay == [[float(p == q != first) for q in range(3)] for p in range(3)]
    for signal in ("max", "essay"):  # a silent dendrite does not spike past a threshold of zero
        silent = jacobian_of(DendriticSpike(signal=signal), [0.0] * 3)
        assert silent == torch.eye(3).tolist()
    tied = [2.0, 2.0, 1.0]
    assert jacobian_of(DendriticSpike(window=3), tied) == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    # The second is not the first largest of its own window: it hears.
    essay = jacobian_of(DendriticSpike(window=3, signal="essay"), tied)
    assert essay == [[0, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("window", [None, 3, 4])
@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("signal", ["max", "essay"])
def test_layout_in_memory_is_kept(signal: Any, temperature: float, window: int | None) -> None:
    sheet = torch.randn(4, 3, 5, 6, 2)
    layer = DendriticSpike(0.8, 0.2, temperature=temperature, window=window, signal=signal)
    expected = layer(sheet)
    assert expected.is_contiguous()
    inner = batch_innermost(sheet).requires_grad_()
    result = layer(inner)
    # A sigmoid may round its last bit by its place in memory; nothing else differs.
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6 if temperature else 0)
    assert result.stride() == inner.stride()
    (gradient,) = torch.autograd.grad(result.square().sum(), inner)
    assert gradient.stride() == inner.stride()
    torch.testing.assert_close(layer(sheet.expand(2, *sheet.shape))[1], expected)
    torch.testing.assert_close(layer(sheet[:, :, 1::2])[:, :, 0], expected[:, :, 1])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"strength": 1.1}, r"strength=1.1; expected a finite number from 0"),
        ({"strength": "half"}, "strength='half'; expected"),
        ({"threshold": float("inf")}, "threshold=inf; expected a finite"),
        ({"temperature": -1.0}, "temperature=-1.0; expected a finite"),
        ({"window": 0}, "window=0; expected an integer"),
        ({"signal": "mean"}, "signal='mean'; .*expected one of max, essay"),
        ({"learn_strength": True}, "strength=1.0 with learn_strength=True; expected a start"),
        ({"learn_threshold": True}, "hard gate passes no gradient.*set temperature above 0"),
    ],
)
def test_constructor_errors(keywords: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DendriticSpike(**keywords)


def test_call_errors() -> None:
    for shape in [(5,), (3, 0, 2)]:
        with pytest.raises(ValueError, match=r"expected \(\.\.\., sites, dendrites\)"):
            DendriticSpike()(torch.zeros(shape))
    with pytest.raises(TypeError, match="strength=2; expected a finite number from 0"):
        dendritic_spike(torch.zeros(2, 3), 2)


@pytest.mark.parametrize("window", [None, 3])
def test_a_branch_without_neighbours_learns_as_it_is(window: int | None) -> None:
    x = torch.randn(2, 3, 1, 4, dtype=torch.float64, requires_grad=True)
    result = DendriticSpike(1.0, -9.0, window=window, signal="essay")(x)
    assert torch.equal(result, x)
    (gradient,) = torch.autograd.grad(result.sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))
