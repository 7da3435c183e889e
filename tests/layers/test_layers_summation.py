"""Dendritic summation: the sign that each law is named after, its start and its parameters."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroconv.layers import DendriticSummation

LAWS: list[Any] = ["linear", "sublinear", "supralinear", "sigmoidal"]


def makes(law: str, **keywords: Any) -> DendriticSummation:
    if law == "linear":
        keywords.pop("knee", None)
    return DendriticSummation(law, **keywords).double()


def current(layer: DendriticSummation, *rates: float) -> float:
    """What the soma receives from dendrites of these rates."""
    return layer(torch.tensor([[[rates]]], dtype=torch.float64)).item()


def test_linear_is_the_scaled_sum() -> None:
    rate = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    layer = DendriticSummation(scale=0.2)
    result = layer(rate)
    assert result.shape == (2, 3, 4)
    assert result[1, 2, 3].item() == pytest.approx(sum(rate[1, 2, 3].tolist()) / 5)
    assert torch.equal(result, rate.sum(-1) * 0.2)
    assert torch.equal(layer(-rate), -result)
    assert not list(layer.parameters())


@pytest.mark.parametrize("law", LAWS)
def test_every_law_starts_at_zero_with_a_finite_gradient(law: str) -> None:
    rate = torch.zeros(2, 3, 4, 5, requires_grad=True)
    layers = [makes(law, knee=2.0).float()]
    if law != "linear":
        layers.append(makes(law, knee=2.0, learnable=True).float())
    for layer in layers:
        result = layer(rate)
        assert not result.any()
        gradients = torch.autograd.grad(result.sum(), [rate, *layer.parameters()])
        assert all(gradient.isfinite().all() for gradient in gradients)
        (slope,) = torch.autograd.grad(layer(rate + 1e-6).sum(), rate)
        expected = torch.full_like(slope, law in ("linear", "sublinear"))
        torch.testing.assert_close(slope, expected, rtol=0, atol=1e-4)


positive = st.floats(0.01, 100)
knees = st.floats(0.1, 10)
exponents = st.floats(1.1, 6)


@settings(deadline=None)
@given(positive, positive, knees, exponents)
def test_together_against_apart(a: float, b: float, knee: float, exponent: float) -> None:
    """f(a + b) against f(a) + f(b), of two dendrites active together and one at a time."""

    def compare(law: str, first: float, second: float, **keywords: Any) -> tuple[float, float]:
        layer = makes(law, knee=knee, **keywords)
        assert current(layer, 0) == 0
        return current(layer, first, second), current(layer, first) + current(layer, second)

    together, apart = compare("linear", a, b)
    assert together == pytest.approx(apart, rel=1e-12)
    together, apart = compare("sublinear", a, b)
    assert together < apart
    together, apart = compare("supralinear", a, b, exponent=exponent)
    assert together > apart
    # Sigmoidal: together stronger below the inflection, weaker where the line from 0 has touched.
    inflection = knee * ((exponent - 1) / (exponent + 1)) ** (1 / exponent)
    touch = knee * (exponent - 1) ** (1 / exponent)
    share = a / (a + b)
    small = (inflection * share, inflection * (1 - share))
    together, apart = compare("sigmoidal", *small, exponent=exponent)
    assert together > apart
    together, apart = compare("sigmoidal", touch * (1 + a), touch * (1 + b), exponent=exponent)
    assert together < apart


@pytest.mark.parametrize(
    ("exponent", "low", "high"),
    [  # the roots of u^n - 2 u^(n-1) + 1, with u = s / k: u = 1 is one of them
        (1.5, ((math.sqrt(5) - 1) / 2) ** 2, 1.0),
        (2.0, 1.0, 1.0),  # (u - 1)^2: nowhere above
        (3.0, 1.0, (1 + math.sqrt(5)) / 2),  # (u - 1) (u^2 - u - 1)
        (4.0, 1.0, 1.8392867552),  # (u - 1) (u^3 - u^2 - u - 1): the tribonacci constant
    ],
)
def test_where_the_sigmoidal_law_is_above_the_sum(exponent: float, low: float, high: float) -> None:
    knee = 0.7
    sums = torch.arange(1, 40_000, dtype=torch.float64) / 10_000 * knee
    above = makes("sigmoidal", knee=knee, exponent=exponent).law_of(sums) > sums * (1 + 1e-12)
    assert torch.equal(above, (sums > low * knee + 1e-9) & (sums < high * knee - 1e-9))


def test_the_old_name_of_the_sigmoidal_law_is_taken() -> None:
    old, new = DendriticSummation("bistable", 0.5), DendriticSummation("sigmoidal", 0.5)
    assert repr(old) == repr(new)


@pytest.mark.parametrize("rate", [1e-30, 1e5, 1e30])
def test_extreme_rates_keep_finite_gradients(rate: float) -> None:
    for law in ("sublinear", "sigmoidal"):
        layer = DendriticSummation(law, learnable=True)
        x = torch.full((1, 1, 1, 1), rate, requires_grad=True)
        result = layer(x)
        assert 0 <= result.item() <= 2
        gradients = torch.autograd.grad(result, [x, *layer.parameters()])
        assert all(gradient.isfinite() for gradient in gradients)


@pytest.mark.parametrize("law", LAWS[1:])
def test_parameters_start_at_their_values_and_are_reset_to_them(law: str) -> None:
    exponent = None if law == "sublinear" else 1.001
    layer = makes(law, knee=0.02, exponent=exponent, learnable=True)
    expected = makes(law, knee=0.02, exponent=exponent)
    for parameter in layer.parameters():
        torch.nn.init.constant_(parameter, 3.0)
    assert layer.knee.item() == pytest.approx(math.exp(3))
    layer.reset_parameters()
    assert current(layer, 0.03) == pytest.approx(current(expected, 0.03), rel=1e-6)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"law": "cubic"}, "law='cubic'; expected one of linear, sublinear"),
        ({"scale": 0.0}, "scale=0.0; expected a finite number above 0"),
        ({"law": "sublinear", "knee": 0}, "knee=0; expected a finite number above 0"),
        ({"law": "sublinear", "knee": "one"}, "knee='one'; expected a finite"),
        ({"law": "supralinear", "exponent": 1.0}, "exponent=1.0; expected a finite number above 1"),
        ({"law": "sublinear", "exponent": 2.0}, "exponent=2.0 with law='sublinear'.*leave it out"),
        ({"learnable": True}, "law='linear' with knee=1.0, learnable=True; a sum has no knee"),
    ],
)
def test_constructor_errors(keywords: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DendriticSummation(**keywords)
