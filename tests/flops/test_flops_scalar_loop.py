"""The exact counter beside plain loops in Python over numbers that count their own products."""

from collections import Counter
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuroconv.flops import count_exact
from neuroconv.flops.rules import CONTRACTIONS
from neuroconv.neurons import Granule, GranuleConv2d, Purkinje
from neuroconv.neurons.population import Population
from tests.flops.scalar_loop import Array, Number, gradients, numbers, padded, padding_of, run


def shuffled(model: nn.Module) -> nn.Module:
    """With random parameters and statistics in double precision, in evaluation."""
    model = model.double().eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5)
    return model


def same(looped: Array, expected: Tensor) -> None:
    values = np.vectorize(lambda number: number.value, otypes=[float])(looped)
    assert values.shape == tuple(expected.shape)
    np.testing.assert_allclose(values, expected.detach().numpy(), rtol=0, atol=1e-10)


def agree(model: nn.Module, x: Tensor) -> Counter[str]:
    """The loop's output is torch's, its products are the exact counter's; the products by work."""
    model, x = shuffled(model), x.double()
    Number.products, Number.sums = Counter(), Counter()
    with torch.no_grad():
        same(run(model, numbers(x)), model(x))
    counts = count_exact(model, x)
    assert counts.uncounted == {}
    assert counts.macs == {f: n for f, n in Number.products.items() if f in CONTRACTIONS}
    norms = Number.products["normalisation"]
    assert norms == Number.sums["normalisation"]  # of running statistics: a product and a sum
    assert counts.flops.get("normalisation", 0) == 2 * norms
    return Number.products


def layer_type(kind: str, axes: int) -> type[nn.Module]:
    return getattr(nn, f"{kind}{axes}d")


@st.composite
def convolutions(draw: st.DrawFn, axes: int, channels: int, size: tuple[int, ...]) -> nn.Module:
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    units = groups * draw(st.integers(1, 2))
    same = draw(st.booleans())
    padding: Any = "same" if same else tuple(draw(st.integers(0, 1)) for _ in size)
    around = (0,) * axes if same else padding
    dilation = tuple(draw(st.integers(1, 2)) for _ in size)
    kernel = tuple(
        draw(st.integers(1, max(1, min(3, 1 + (n + 2 * p - 1) // d))))
        for n, p, d in zip(size, around, dilation, strict=True)
    )
    stride = tuple(1 if same else draw(st.integers(1, 2)) for _ in size)
    layout = (channels, units, kernel, stride, padding, dilation, groups)
    return layer_type("Conv", axes)(*layout, draw(st.booleans()))


@st.composite
def spreading(draw: st.DrawFn, axes: int, channels: int, size: tuple[int, ...]) -> nn.Module:
    groups = draw(st.sampled_from([g for g in (1, 2) if channels % g == 0]))
    stride = tuple(draw(st.integers(1, 2)) for _ in size)
    kernel = tuple(draw(st.integers(1, 3)) for _ in size)
    longer = tuple(draw(st.integers(0, s - 1)) for s in stride)
    cut = tuple(
        draw(st.integers(0, max(0, min(1, ((n - 1) * s + k - 1) // 2))))
        for n, s, k in zip(size, stride, kernel, strict=True)
    )
    layout = (channels, groups * draw(st.integers(1, 2)), kernel, stride, cut, longer, groups)
    return layer_type("ConvTranspose", axes)(*layout, draw(st.booleans()))


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    axes = draw(st.integers(1, 3))
    sizes = st.integers(2, {1: 9, 2: 6, 3: 3}[axes])
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 4)), *(draw(sizes) for _ in range(axes)))
    layers: list[nn.Module] = []
    x = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31))))
    now = x
    for _ in range(draw(st.integers(1, 3))):
        channels, size = now.shape[1], tuple(now.shape[2:])
        kinds = ["conv", "conv", "spread", "relu", "BatchNorm", "MaxPool", "AvgPool"]
        kind = draw(st.sampled_from(kinds))
        if kind == "conv" or (kind.endswith("Pool") and min(size) < 2):
            layer = draw(convolutions(axes, channels, size))
        elif kind == "spread":
            layer = draw(spreading(axes, channels, size))
        elif kind == "BatchNorm":
            layer = layer_type(kind, axes)(channels, affine=draw(st.booleans()))
        elif kind.endswith("Pool"):
            layer = layer_type(kind, axes)(2, draw(st.integers(1, 2)))
        else:
            layer = nn.ReLU()
        layers.append(layer)
        with torch.no_grad():
            now = layer.eval()(now)
    if draw(st.booleans()):
        layers += [nn.Flatten(), nn.Linear(prod(now.shape[1:]), draw(st.integers(1, 3)))]
    return nn.Sequential(*layers), x


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_random_networks(network: tuple[nn.Module, Tensor]) -> None:
    agree(*network)


def population(kind: type[Population], threshold: float | None = 1.0, **tree: Any) -> Population:
    taps, soma = {"backend": "direct"}, {"time_steps": 2}
    return kind(7, 2, tree=tree or None, threshold=threshold, taps=taps, soma=soma)


PURKINJE = {"sheet": (3, 4), "filter": (2, 3, 2)}
CELLS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "granule": (population(Granule, None), (2, 7, 3)),  # the essay's 4 x 4 sheet
    "granule_linear_window": (population(Granule, filter=(2, 2, 4)), (1, 7, 2)),
    "purkinje": (population(Purkinje, **PURKINJE, synapses=10), (2, 7, 3)),
    "purkinje_valid": (population(Purkinje, **PURKINJE, mode="valid"), (1, 7, 4)),
    "purkinje_per_dendrite": (
        population(Purkinje, sheet=(4, 3), filter=(2, 3, 2), mode="per_dendrite"), (2, 7, 2)),
    "image_of_granule_cells": (
        GranuleConv2d(4, 2, (3, 2), (2, 1), "valid", (1, 2), groups=2, time_steps=1),
        (2, 4, 1, 5, 4)),
    "image_padded": (GranuleConv2d(2, 3, (2, 3), padding="same", time_steps=1), (1, 2, 2, 3, 4)),
    "film_of_granule_cells": (GranuleConv2d(2, 2, (2, 3), time_steps=2), (1, 2, 3, 3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
def test_cells(name: str) -> None:
    cell, shape = CELLS[name]
    x = torch.rand(shape)
    products = agree(cell, x)
    assert products["convolution"] > 0
    if isinstance(cell, Population):
        (dendrites,) = (c for c in cell.closed_form(x.shape) if c.direct is not None)
        assert products["convolution"] == dendrites.direct
        (synapses,) = (c for c in cell.closed_form(x.shape) if c.synapses)
        assert products["synapses"] == synapses.pointwise


@st.composite
def single_layers(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    if draw(st.integers(0, 3)) == 0:
        layer = nn.Linear(draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.booleans()))
        return layer, torch.rand(draw(st.integers(1, 3)), layer.in_features)
    axes = draw(st.integers(1, 3))
    size = tuple(draw(st.integers(2, {1: 9, 2: 5, 3: 3}[axes])) for _ in range(axes))
    channels = draw(st.integers(1, 4))
    layer = draw(convolutions(axes, channels, size))
    return layer, torch.rand(draw(st.integers(1, 2)), channels, *size)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(single_layers(), st.booleans())
def test_backward(case: tuple[nn.Module, Tensor], to_input: bool) -> None:
    layer, x = shuffled(case[0]), case[1].double().requires_grad_(to_input)
    y = layer(x)
    grad = torch.rand_like(y)
    y.backward(grad)
    before, after = ([], []) if isinstance(layer, nn.Linear) else padding_of(layer)
    Number.products = Counter()
    given = padded(numbers(x), before, after)
    to_x, to_weight = gradients(layer, given, numbers(grad), to_input)
    same(to_weight, layer.weight.grad)
    if to_input:
        inner = tuple(slice(a, a + n) for a, n in zip(before, x.shape[2:], strict=True))
        same(to_x[(..., *inner)], x.grad)
    counts = count_exact(layer, x, backward=True)
    assert counts.backward.macs == Number.products
    assert counts.backward.mac == (1 + to_input) * counts.mac
