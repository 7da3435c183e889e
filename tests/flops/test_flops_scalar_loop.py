"""The exact counter beside plain loops over numbers that count their own products.

A network runs a second time in Python, one number at a time. The numbers that come out are torch's,
and the products that were made on the way are what the exact counter says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import singledispatch
from itertools import product
from math import prod
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuroconv.flops import count_exact
from neuroconv.layers.dendrite import DendriticConv
from neuroconv.layers.soma import SomaFilter
from neuroconv.layers.synapse import SparseSynapses
from neuroconv.layers.threshold import ThresholdNorm
from neuroconv.neurons import Granule, GranuleConv2d, Purkinje
from neuroconv.neurons.population import Population


class Number:
    """A float that counts the products and sums it takes part in, by the work that goes on."""

    products: ClassVar[Counter[str]] = Counter()
    sums: ClassVar[Counter[str]] = Counter()
    work: ClassVar[str] = "none"
    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value

    def __mul__(self, other: Number) -> Number:
        Number.products[Number.work] += 1
        return Number(self.value * other.value)

    def __add__(self, other: Number) -> Number:
        Number.sums[Number.work] += 1
        return Number(self.value + other.value)

    def __lt__(self, other: Number) -> bool:
        return self.value < other.value

    def __ge__(self, other: Number) -> bool:
        return self.value >= other.value

    def __le__(self, other: Number) -> bool:
        return self.value <= other.value


Array = np.ndarray[Any, Any]  # of Numbers
ZERO = Number(0.0)


@contextmanager
def work(kind: str) -> Iterator[None]:
    Number.work, before = kind, Number.work
    yield
    Number.work = before


def numbers(tensor: Tensor) -> Array:
    values = tensor.detach().numpy()
    result = np.empty(values.shape, object)
    for place in np.ndindex(values.shape):
        result[place] = Number(float(values[place]))
    return result


def zeros(*shape: int) -> Array:
    return np.full(shape, ZERO, object)


def total(terms: Array, start: Number = ZERO) -> Number:
    for term in terms.flat:
        start = start + term
    return start


def padded(x: Array, before: list[int], after: list[int]) -> Array:
    """With zeros around the last axes."""
    whole = x.ndim - len(before)
    sizes = [n + a + b for n, a, b in zip(x.shape[whole:], before, after, strict=True)]
    result = zeros(*x.shape[:whole], *sizes)
    inner = (slice(a, a + n) for n, a in zip(x.shape[whole:], before, strict=True))
    result[(..., *inner)] = x
    return result


def windows(
    room: tuple[int, ...], taps: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Each output position of a filter, and the places it reads."""
    spans = [d * (k - 1) + 1 for k, d in zip(taps, dilation, strict=True)]
    counts = [(n - span) // s + 1 for n, span, s in zip(room, spans, stride, strict=True)]
    for position in product(*map(range, counts)):
        starts = [p * s for p, s in zip(position, stride, strict=True)]
        yield (
            position,
            tuple(
                slice(start, start + span, d)
                for start, span, d in zip(starts, spans, dilation, strict=True)
            ),
        )


def padding_of(layer: Any) -> tuple[list[int], list[int]]:
    if layer.padding == "same":
        spans = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        return [span // 2 for span in spans], [span - span // 2 for span in spans]
    return list(layer.padding), list(layer.padding)


@singledispatch
def run(layer: nn.Module, x: Array) -> Array:
    """The layer in evaluation, number by number."""
    raise NotImplementedError(type(layer).__name__)


@run.register(nn.Sequential)
def _(layer: nn.Sequential, x: Array) -> Array:
    for each in layer:
        x = run(each, x)
    return x


@run.register(nn.Conv1d)
@run.register(nn.Conv2d)
@run.register(nn.Conv3d)
def _(layer: nn.Conv2d, x: Array) -> Array:
    weight, x = numbers(layer.weight), padded(x, *padding_of(layer))
    bias = zeros(layer.out_channels) if layer.bias is None else numbers(layer.bias)
    heard, made = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    places = list(windows(x.shape[2:], layer.kernel_size, layer.stride, layer.dilation))
    y = zeros(x.shape[0], layer.out_channels, *(n + 1 for n in places[-1][0]))
    with work("convolution"):
        for sample, unit in np.ndindex(y.shape[:2]):
            first = unit // made * heard
            for position, reads in places:
                patch = x[(sample, slice(first, first + heard), *reads)]
                y[(sample, unit, *position)] = total(weight[unit] * patch, bias[unit])
    return y


@run.register(nn.ConvTranspose1d)
@run.register(nn.ConvTranspose2d)
@run.register(nn.ConvTranspose3d)
def _(layer: nn.ConvTranspose2d, x: Array) -> Array:
    weight = numbers(layer.weight)
    bias = zeros(layer.out_channels) if layer.bias is None else numbers(layer.bias)
    heard, made = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    steps = list(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True))
    spread = [
        (n - 1) * s + d * (k - 1) + 1 for n, (k, s, d) in zip(x.shape[2:], steps, strict=True)
    ]
    y = zeros(
        x.shape[0], layer.out_channels, *(n + o for n, o in zip(spread, layer.output_padding))
    )
    y[:] = bias.reshape(-1, *[1] * len(steps))
    with work("convolution"):
        for sample, channel in np.ndindex(x.shape[:2]):
            units = slice(channel // heard * made, (channel // heard + 1) * made)
            for position, writes in windows(spread, *zip(*steps, strict=True)):
                given = x[(sample, channel, *position)]
                y[(sample, units, *writes)] += weight[channel] * given
    inner = (slice(p, n - p) for p, n in zip(layer.padding, y.shape[2:], strict=True))
    return y[(..., *inner)]


@run.register(nn.Linear)
def _(layer: nn.Linear, x: Array) -> Array:
    weight = numbers(layer.weight)
    bias = zeros(layer.out_features) if layer.bias is None else numbers(layer.bias)
    y = zeros(*x.shape[:-1], layer.out_features)
    with work("matmul"):
        for place in np.ndindex(y.shape):
            y[place] = total(weight[place[-1]] * x[place[:-1]], bias[place[-1]])
    return y


@run.register(nn.ReLU)
def _(layer: nn.ReLU, x: Array) -> Array:
    return np.maximum(x, ZERO)


@run.register(nn.Flatten)
def _(layer: nn.Flatten, x: Array) -> Array:
    return x.reshape(x.shape[0], -1)


@run.register(nn.BatchNorm1d)
@run.register(nn.BatchNorm2d)
@run.register(nn.BatchNorm3d)
def _(layer: nn.BatchNorm2d, x: Array) -> Array:
    gain = (layer.running_var + layer.eps).rsqrt()
    gain = gain if layer.weight is None else gain * layer.weight
    shift = -layer.running_mean * gain
    shift = shift if layer.bias is None else shift + layer.bias
    axes = (-1, *[1] * (x.ndim - 2))
    with work("normalisation"):
        return x * numbers(gain).reshape(axes) + numbers(shift).reshape(axes)


def pooled(layer: Any, x: Array) -> Iterator[tuple[tuple[Any, ...], Array]]:
    def each(value: int | tuple[int, ...]) -> tuple[int, ...]:
        axes = x.ndim - 2
        value = (value,) * axes if isinstance(value, int) else tuple(value)
        return value * axes if len(value) < axes else value

    taps = each(layer.kernel_size)
    for position, reads in windows(x.shape[2:], taps, each(layer.stride), (1,) * len(taps)):
        yield (slice(None), slice(None), *position), x[(slice(None), slice(None), *reads)]


def pool(layer: Any, x: Array, reduce: Any) -> Array:
    found = list(pooled(layer, x))
    y = zeros(*x.shape[:2], *(n + 1 for n in found[-1][0][2:]))
    for place, window in found:
        for sample, channel in np.ndindex(x.shape[:2]):
            y[(sample, channel, *place[2:])] = reduce(window[sample, channel])
    return y


@run.register(nn.MaxPool1d)
@run.register(nn.MaxPool2d)
@run.register(nn.MaxPool3d)
def _(layer: nn.MaxPool2d, x: Array) -> Array:
    return pool(layer, x, lambda window: window.max())


@run.register(nn.AvgPool1d)
@run.register(nn.AvgPool2d)
@run.register(nn.AvgPool3d)
def _(layer: nn.AvgPool2d, x: Array) -> Array:
    with work("pooling"):
        return pool(layer, x, lambda window: total(window) * Number(1 / window.size))


@run.register(SparseSynapses)
def _(layer: SparseSynapses, activity: Array) -> Array:
    weight, wiring = numbers(layer.effective_weight()), layer.wiring.numpy()
    sites, dendrites = layer.sheet_shape
    sheet = zeros(activity.shape[0], layer.neurons, activity.shape[2], sites, dendrites)
    with work("synapses"):
        for neuron, synapse in np.ndindex(wiring.shape):  # they fill dendrite after dendrite
            dendrite, site = divmod(synapse, sites)
            released = activity[:, wiring[neuron, synapse]] * weight[neuron, synapse]
            sheet[:, neuron, :, site, dendrite] = released
    return sheet


@run.register(ThresholdNorm)
def _(layer: ThresholdNorm, sheet: Array) -> Array:
    places = sheet.swapaxes(3, 4).reshape(*sheet.shape[:3], -1)
    held = places.shape[-1] - layer.empty_places
    potential = run(layer.norm, places[..., :held].reshape(*sheet.shape[:2], -1))
    limited = np.minimum(np.maximum(potential, ZERO), Number(layer.threshold))
    result = zeros(*places.shape)
    result[..., :held] = limited.reshape(*places.shape[:3], held)
    return result.reshape(sheet.swapaxes(3, 4).shape).swapaxes(3, 4)


@run.register(DendriticConv)
def _(layer: DendriticConv, sheet: Array) -> Array:
    branches, across, k_time = layer.filter_shape
    weight = numbers(layer.weight)
    before, after = [k_time - 1, 0, 0], [0, 0, 0]
    if layer.mode == "same":
        before[1:], after[1:] = (
            [(branches - 1) // 2, (across - 1) // 2],
            [branches // 2, across // 2],
        )
    sheet = padded(sheet, before, after)
    taps = (k_time, branches, 1 if layer.mode == "per_dendrite" else across)
    places = list(windows(sheet.shape[2:], taps, (1, 1, 1), (1, 1, 1)))
    potential = zeros(*sheet.shape[:2], *(n + 1 for n in places[-1][0]))
    with work("convolution"):
        for sample, neuron in np.ndindex(sheet.shape[:2]):
            for position, reads in places:
                own = position[2] if layer.mode == "per_dendrite" else slice(None)
                filtered = weight[neuron][:, :, own].reshape(taps) * sheet[(sample, neuron, *reads)]
                potential[(sample, neuron, *position)] = total(filtered)
    if layer.bias is not None:
        potential = potential + numbers(layer.bias)[:, None, None, :]
    return potential


@run.register(SomaFilter)
def _(layer: SomaFilter, current: Array) -> Array:
    """Every step meets every step, by a zero where no tap reaches."""
    taps, steps = numbers(layer.weight), current.shape[2]
    potential = zeros(*current.shape)
    with work("matmul" if current.ndim == 3 else "convolution"):
        for place in np.ndindex(potential.shape):
            here, now, there = place[:2], place[2], place[3:]
            lags = [now - step for step in range(steps)]
            row = np.array([taps[-1 - lag] if 0 <= lag < len(taps) else ZERO for lag in lags])
            potential[place] = total(row * current[(*here, slice(None), *there)])
    return potential


@run.register(Population)
def _(layer: Population, activity: Array) -> Array:
    sheet = run(layer.synapses, activity)
    if layer.threshold_norm is not None:
        sheet = run(layer.threshold_norm, sheet)
    potential = run(layer.dendrites, sheet)
    sites = potential.shape[3]
    rate = np.maximum(potential, ZERO).sum(3) * Number(1 / sites)
    current = rate.sum(-1) * Number(layer.summation.scale)
    return np.maximum(run(layer.soma, current) + numbers(layer.bias)[:, None], ZERO)


@run.register(GranuleConv2d)
def _(layer: GranuleConv2d, frames: Array) -> Array:
    weight = numbers(layer.weight)  # (U, C / groups, K_T, K_H, K_W)
    units, heard, k_time, height, width = weight.shape
    top, bottom, left, right = layer.padding
    x = padded(frames, [top, left], [bottom, right])
    steps = x.shape[2]
    places = list(windows(x.shape[3:], (height, width), layer.stride, layer.dilation))
    current = zeros(x.shape[0], units, steps, *(n + 1 for n in places[-1][0]))
    for sample, unit, now in np.ndindex(current.shape[:3]):
        first = unit // (units // layer.groups) * heard
        for position, reads in places:
            for dendrite in range(width):
                bias = Number(float(layer.dendritic_bias[dendrite, unit]))
                with work("convolution"):  # where time folds, every step meets every step
                    for step in range(steps) if k_time > 1 else [now]:
                        patch = x[(sample, slice(first, first + heard), step, *reads)]
                        taps = zeros(heard, height)
                        if 0 <= now - step < k_time:
                            taps = weight[unit, :, k_time - 1 - (now - step), :, dendrite]
                        bias = total(taps * patch[..., dendrite], bias)
                place = (sample, unit, now, *position)
                current[place] = current[place] + max(bias, ZERO)
    potential = current if isinstance(layer.soma, nn.Identity) else run(layer.soma, current)
    return np.maximum(potential + numbers(layer.bias)[:, None, None, None], ZERO)


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
    contractions = {
        family: amount
        for family, amount in Number.products.items()
        if family in ("convolution", "matmul", "fft")
    }
    assert counts.macs == contractions
    norms = Number.products["normalisation"]
    assert norms == Number.sums["normalisation"]  # of running statistics: a product and a sum
    assert counts.flops.get("normalisation", 0) == 2 * norms
    return Number.products


CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAXIMA = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGES = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


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
    return CONVOLUTIONS[axes](
        channels, units, kernel, stride, padding, dilation, groups, draw(st.booleans())
    )


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
    return TRANSPOSED[axes](
        channels, groups * draw(st.integers(1, 2)), kernel, stride, cut, longer, groups,
        draw(st.booleans()),
    )  # fmt: skip


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
        kind = draw(st.sampled_from(["conv", "conv", "spread", "relu", "norm", "max", "mean"]))
        if kind == "conv" or (kind in ("max", "mean") and min(size) < 2):
            layer = draw(convolutions(axes, channels, size))
        elif kind == "spread":
            layer = draw(spreading(axes, channels, size))
        elif kind == "norm":
            layer = NORMS[axes](channels, affine=draw(st.booleans()))
        elif kind in ("max", "mean"):
            layer = (MAXIMA if kind == "max" else AVERAGES)[axes](2, draw(st.integers(1, 2)))
        else:
            layer = nn.ReLU()
        layers.append(layer)
        with torch.no_grad():
            now = layer.eval()(now)
    if draw(st.booleans()):
        layers += [nn.Flatten(), nn.Linear(prod(now.shape[1:]), draw(st.integers(1, 3)))]
    return nn.Sequential(*layers), x


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_random_networks(network: tuple[nn.Module, Tensor]) -> None:
    agree(*network)


def population(kind: type[Population], **settings: Any) -> Population:
    settings = {"threshold": 1.0, "backend": "direct", "soma_time_steps": 2} | settings
    return kind(7, 2, **settings)


CELLS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "granule": (population(Granule, threshold=None), (2, 7, 3)),  # the essay's 4 x 4 sheet
    "granule_linear_window": (population(Granule, filter_shape=(2, 2, 4)), (1, 7, 2)),
    "purkinje": (
        population(Purkinje, sheet_shape=(3, 4), filter_shape=(2, 3, 2), synapses=10), (2, 7, 3)
    ),
    "purkinje_valid": (
        population(Purkinje, sheet_shape=(3, 4), filter_shape=(2, 3, 2), mode="valid"), (1, 7, 4)
    ),
    "purkinje_per_dendrite": (
        population(Purkinje, sheet_shape=(4, 3), filter_shape=(2, 3, 2), mode="per_dendrite"),
        (2, 7, 2),
    ),
    "image_of_granule_cells": (
        GranuleConv2d(4, 2, (3, 2), (2, 1), "valid", (1, 2), groups=2, time_steps=1),
        (2, 4, 1, 5, 4),
    ),
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


def gradients(layer: nn.Module, x: Array, grad: Array, to_input: bool) -> tuple[Array, Array]:
    """Of a convolution or a linear layer, to the padded input and to the weight: each product of
    the forward pass has one in either, of its other factor and of the gradient at its sum."""
    weight = numbers(layer.weight)
    to_x, to_weight = zeros(*x.shape), zeros(*weight.shape)
    if isinstance(layer, nn.Linear):
        family, heard, made = "matmul", layer.in_features, layer.out_features
        places = [((), ())]
    else:
        family = "convolution"
        heard, made = weight.shape[1], weight.shape[0] // layer.groups
        places = list(windows(x.shape[2:], layer.kernel_size, layer.stride, layer.dilation))
    with work(family):
        for sample, unit in np.ndindex(grad.shape[:2]):
            first = unit // made * heard
            for position, reads in places:
                read = (sample, slice(first, first + heard), *reads)
                given = grad[(sample, unit, *position)]
                to_weight[unit] = to_weight[unit] + x[read] * given
                if to_input:
                    to_x[read] = to_x[read] + weight[unit] * given
    return to_x, to_weight


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
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
    assert counts.backward is not None
    assert counts.backward.macs == Number.products
    assert counts.backward.mac == (1 + to_input) * counts.mac
