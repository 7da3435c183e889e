"""Threshold normalisation against clamp(F.batch_norm(x), 0, threshold) and a slow loop."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.layers.threshold import ThresholdNorm


def batch_innermost(sheet: Tensor) -> Tensor:
    return sheet.permute(1, 4, 3, 2, 0).contiguous().permute(4, 0, 3, 2, 1)


LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "batch_innermost": batch_innermost,
    "features_innermost": lambda x: x.to(memory_format=torch.channels_last_3d),
}


def trained(layer: ThresholdNorm) -> ThresholdNorm:
    """Gain, shift and running statistics of no special value."""
    for tensor in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean):
        torch.nn.init.normal_(tensor)
    torch.nn.init.uniform_(layer.norm.running_var, 0.5, 2.0)
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_a_clamped_batch_norm(layout: str, training: bool) -> None:
    layer = trained(ThresholdNorm(3, 1.5, momentum=0.3, eps=1e-3).double()).train(training)
    norm = layer.norm
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    for _ in range(2):
        x = LAYOUTS[layout](torch.randn(4, 3, 5, 6, 2, dtype=torch.float64) * 3 + 1)
        result = layer(x)
        plain = F.batch_norm(x, mean, var, norm.weight, norm.bias, training, 0.3, 1e-3)
        torch.testing.assert_close(result, plain.clamp(0, 1.5), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(norm.running_var, var, rtol=1e-12, atol=1e-12)
        assert result.stride() == x.stride()
        assert (result == 0).any()
        assert (result == 1.5).any()


@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 4), (2, 3, 4, 5), (1, 3, 4)])
def test_any_axes_after_the_neurons(shape: tuple[int, ...]) -> None:
    layer, x = ThresholdNorm(3), torch.randn(shape)
    expected = F.batch_norm(x, None, None, training=True).clamp(0, 3)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x).stride() == x.stride()


@pytest.mark.parametrize("empty", [0, 1, 4, 9])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_slow_loop_with_empty_positions(layout: str, training: bool, empty: int) -> None:
    """Place d * P + p of the last `empty` is left out and stays zero, whatever stands there."""
    neurons, sites, dendrites, momentum, eps = 2, 4, 3, 0.1, 1e-5
    layer = trained(ThresholdNorm(neurons, 1.2, empty_positions=empty).double()).train(training)
    norm = layer.norm
    x = LAYOUTS[layout](torch.randn(3, neurons, 2, sites, dendrites, dtype=torch.float64) * 2)
    filled = [
        (p, d)
        for d in range(dendrites)
        for p in range(sites)
        if d * sites + p < sites * dendrites - empty
    ]
    before = norm.running_mean.tolist(), norm.running_var.tolist()
    result = layer(x)
    assert result.stride() == x.stride() or layout == "features_innermost"
    for n in range(neurons):
        at = [(b, t, p, d) for b in range(3) for t in range(2) for p, d in filled]
        values = [x[b, n, t, p, d].item() for b, t, p, d in at]
        mean, var = before[0][n], before[1][n]
        if training:
            mean = sum(values) / len(values)
            squares = sum((v - mean) ** 2 for v in values)
            var = squares / len(values)
            unbiased = squares / (len(values) - 1)
            running = 0.9 * before[0][n] + momentum * mean
            assert norm.running_mean[n].item() == pytest.approx(running, abs=1e-12)
            running = 0.9 * before[1][n] + momentum * unbiased
            assert norm.running_var[n].item() == pytest.approx(running, abs=1e-12)
        expected = torch.zeros(3, 2, sites, dendrites, dtype=torch.float64)
        gain, shift = norm.weight[n].item(), norm.bias[n].item()
        for (b, t, p, d), value in zip(at, values, strict=True):
            normal = (value - mean) / math.sqrt(var + eps) * gain + shift
            expected[b, t, p, d] = min(max(normal, 0.0), 1.2)
        torch.testing.assert_close(result[:, n].detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 0}, "features=0; expected an integer"),
        ({"threshold": 0.0}, "threshold=0.0; expected a finite number above 0"),
        ({"threshold": True}, "threshold=True; expected a finite"),
        ({"empty_positions": -1}, "empty_positions=-1; expected an integer of at least 0"),
    ],
)
def test_constructor_errors(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ThresholdNorm(**{"features": 3, **arguments})


def test_call_errors() -> None:
    for shape in [(3,), (2, 4, 5)]:
        with pytest.raises(ValueError, match=r"expected \(batch, 3 neurons, \.\.\.\)"):
            ThresholdNorm(3)(torch.zeros(shape))
    for shape in [(2, 3, 5), (2, 3, 2, 2, 2)]:
        with pytest.raises(ValueError, match=r"empty_positions=4 needs a sheet .* of more pos"):
            ThresholdNorm(3, empty_positions=4)(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"one value for each neuron.*enlarge the batch or call"):
        ThresholdNorm(3)(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="one value for each neuron"):
        ThresholdNorm(3, empty_positions=3)(torch.zeros(1, 3, 1, 2, 2))
    assert not ThresholdNorm(3).eval()(torch.zeros(1, 3)).any()
