"""Loops over numbers that count the products they take part in: networks run number by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import singledispatch
from itertools import product
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from neuroconv.layers.dendrite import DendriticConv
from neuroconv.layers.soma import SomaFilter
from neuroconv.layers.synapse import SparseSynapses
from neuroconv.layers.threshold import ThresholdNorm
from neuroconv.neurons import GranuleConv2d
from neuroconv.neurons.population import Population
from neuroconv.neurons.stages import is_absent


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
    for index in np.ndindex(values.shape):
        result[index] = Number(float(values[index]))
    return result


def zeros(*shape: int) -> Array:
    return np.full(shape, ZERO, object)


def total(terms: Array, start: Number = ZERO) -> Number:
    for term in terms.flat:
        start = start + term
    return start


def padded(x: Array, before: list[int], after: list[int]) -> Array:
    """With zeros around the last axes."""
    leading = x.ndim - len(before)
    sizes = [n + a + b for n, a, b in zip(x.shape[leading:], before, after, strict=True)]
    result = zeros(*x.shape[:leading], *sizes)
    inner = (slice(a, a + n) for n, a in zip(x.shape[leading:], before, strict=True))
    result[(..., *inner)] = x
    return result


def windows(
    room: tuple[int, ...], taps: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Each output position of a filter, and the indices it reads."""
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
    for stage in layer:
        x = run(stage, x)
    return x


@run.register(nn.Conv1d)
@run.register(nn.Conv2d)
@run.register(nn.Conv3d)
def _(layer: nn.Conv2d, x: Array) -> Array:
    weight, x = numbers(layer.weight), padded(x, *padding_of(layer))
    bias = zeros(layer.out_channels) if layer.bias is None else numbers(layer.bias)
    fan_in, fan_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    positions = list(windows(x.shape[2:], layer.kernel_size, layer.stride, layer.dilation))
    y = zeros(x.shape[0], layer.out_channels, *(n + 1 for n in positions[-1][0]))
    with work("convolution"):
        for sample, unit in np.ndindex(y.shape[:2]):
            first = unit // fan_out * fan_in
            for position, reads in positions:
                patch = x[(sample, slice(first, first + fan_in), *reads)]
                y[(sample, unit, *position)] = total(weight[unit] * patch, bias[unit])
    return y


@run.register(nn.ConvTranspose1d)
@run.register(nn.ConvTranspose2d)
@run.register(nn.ConvTranspose3d)
def _(layer: nn.ConvTranspose2d, x: Array) -> Array:
    weight = numbers(layer.weight)
    bias = zeros(layer.out_channels) if layer.bias is None else numbers(layer.bias)
    fan_in, fan_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    steps = list(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True))
    room = zip(x.shape[2:], steps, strict=True)
    spread = tuple((n - 1) * s + d * (k - 1) + 1 for n, (k, s, d) in room)
    sizes = (n + extra for n, extra in zip(spread, layer.output_padding, strict=True))
    y = zeros(x.shape[0], layer.out_channels, *sizes)
    y[:] = bias.reshape(-1, *[1] * len(steps))
    with work("convolution"):
        for sample, channel in np.ndindex(x.shape[:2]):
            units = slice(channel // fan_in * fan_out, (channel // fan_in + 1) * fan_out)
            for position, writes in windows(spread, *zip(*steps, strict=True)):
                value = x[(sample, channel, *position)]
                y[(sample, units, *writes)] += weight[channel] * value
    inner = (slice(p, n - p) for p, n in zip(layer.padding, y.shape[2:], strict=True))
    return y[(..., *inner)]


@run.register(nn.Linear)
def _(layer: nn.Linear, x: Array) -> Array:
    weight = numbers(layer.weight)
    bias = zeros(layer.out_features) if layer.bias is None else numbers(layer.bias)
    y = zeros(*x.shape[:-1], layer.out_features)
    with work("matmul"):
        for index in np.ndindex(y.shape):
            y[index] = total(weight[index[-1]] * x[index[:-1]], bias[index[-1]])
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
    def per_axis(value: int | tuple[int, ...]) -> tuple[int, ...]:
        axes = x.ndim - 2
        value = (value,) * axes if isinstance(value, int) else tuple(value)
        return value * axes if len(value) < axes else value

    taps = per_axis(layer.kernel_size)
    for position, reads in windows(x.shape[2:], taps, per_axis(layer.stride), (1,) * len(taps)):
        yield (slice(None), slice(None), *position), x[(slice(None), slice(None), *reads)]


def pool(layer: Any, x: Array, reduce: Any) -> Array:
    patches = list(pooled(layer, x))
    y = zeros(*x.shape[:2], *(n + 1 for n in patches[-1][0][2:]))
    for index, window in patches:
        for sample, channel in np.ndindex(x.shape[:2]):
            y[(sample, channel, *index[2:])] = reduce(window[sample, channel])
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
    flat = sheet.swapaxes(3, 4).reshape(*sheet.shape[:3], -1)
    occupied = flat.shape[-1] - layer.empty_positions
    potential = run(layer.norm, flat[..., :occupied].reshape(*sheet.shape[:2], -1))
    limited = np.minimum(np.maximum(potential, ZERO), Number(layer.threshold))
    result = zeros(*flat.shape)
    result[..., :occupied] = limited.reshape(*flat.shape[:3], occupied)
    return result.reshape(sheet.swapaxes(3, 4).shape).swapaxes(3, 4)


@run.register(DendriticConv)
def _(layer: DendriticConv, sheet: Array) -> Array:
    branches, across, kernel_t = layer.tree.filter
    weight = numbers(layer.weight)
    before, after = [kernel_t - 1, 0, 0], [0, 0, 0]
    if layer.mode == "same":
        before[1:], after[1:] = (
            [(branches - 1) // 2, (across - 1) // 2],
            [branches // 2, across // 2],
        )
    sheet = padded(sheet, before, after)
    taps = (kernel_t, branches, 1 if layer.mode == "per_dendrite" else across)
    positions = list(windows(sheet.shape[2:], taps, (1, 1, 1), (1, 1, 1)))
    potential = zeros(*sheet.shape[:2], *(n + 1 for n in positions[-1][0]))
    with work("convolution"):
        for sample, neuron in np.ndindex(sheet.shape[:2]):
            for position, reads in positions:
                dendrite = position[2] if layer.mode == "per_dendrite" else slice(None)
                filtered = (
                    weight[neuron][:, :, dendrite].reshape(taps) * sheet[(sample, neuron, *reads)]
                )
                potential[(sample, neuron, *position)] = total(filtered)
    if layer.bias is not None:
        potential = potential + numbers(layer.bias)[:, None, None, :]
    return potential


@run.register(SomaFilter)
def _(layer: SomaFilter, current: Array) -> Array:
    """Every step meets every step, by a zero where no tap reaches."""
    taps, steps = numbers(layer.weight), current.shape[2]
    potential = zeros(*current.shape)
    with work("matmul"):
        for index in np.ndindex(potential.shape):
            cell, now, pixel = index[:2], index[2], index[3:]
            lags = [now - step for step in range(steps)]
            row = np.array([taps[-1 - lag] if 0 <= lag < len(taps) else ZERO for lag in lags])
            potential[index] = total(row * current[(*cell, slice(None), *pixel)])
    return potential


@run.register(Population)
def _(layer: Population, activity: Array) -> Array:
    sheet = run(layer.synapses, activity)
    if not is_absent(layer.threshold_norm):
        sheet = run(layer.threshold_norm, sheet)
    potential = run(layer.dendrites, sheet)
    sites = potential.shape[3]
    rate = np.maximum(potential, ZERO).sum(3) * Number(1 / sites)
    current = rate.sum(-1) * Number(layer.summation.scale)
    return np.maximum(run(layer.soma, current) + numbers(layer.bias)[:, None], ZERO)


@run.register(GranuleConv2d)
def _(layer: GranuleConv2d, frames: Array) -> Array:
    weight = numbers(layer.weight)  # (U, C / groups, K_T, K_H, K_W)
    units, fan_in, kernel_t, height, width = weight.shape
    top, bottom, left, right = layer.padding
    x = padded(frames, [top, left], [bottom, right])
    steps = x.shape[2]
    positions = list(windows(x.shape[3:], (height, width), layer.stride, layer.dilation))
    current = zeros(x.shape[0], units, steps, *(n + 1 for n in positions[-1][0]))
    for sample, unit, now in np.ndindex(current.shape[:3]):
        first = unit // (units // layer.groups) * fan_in
        for position, reads in positions:
            for dendrite in range(width):
                bias = Number(float(layer.dendritic_bias[dendrite, unit]))
                with work("convolution"):  # where time folds, every step meets every step
                    for step in range(steps) if kernel_t > 1 else [now]:
                        patch = x[(sample, slice(first, first + fan_in), step, *reads)]
                        taps = zeros(fan_in, height)
                        if 0 <= now - step < kernel_t:
                            taps = weight[unit, :, kernel_t - 1 - (now - step), :, dendrite]
                        bias = total(taps * patch[..., dendrite], bias)
                index = (sample, unit, now, *position)
                current[index] = current[index] + max(bias, ZERO)
    potential = current if isinstance(layer.soma, nn.Identity) else run(layer.soma, current)
    return np.maximum(potential + numbers(layer.bias)[:, None, None, None], ZERO)


def gradients(layer: nn.Module, x: Array, grad: Array, to_input: bool) -> tuple[Array, Array]:
    """Differentiates a convolution or a linear layer by the padded input and the weight: each
    product of the forward pass has one in either, of its other factor and the gradient at its
    sum."""
    weight = numbers(layer.weight)
    to_x, to_weight = zeros(*x.shape), zeros(*weight.shape)
    if isinstance(layer, nn.Linear):
        family, fan_in, fan_out = "matmul", layer.in_features, layer.out_features
        positions = [((), ())]
    else:
        family = "convolution"
        fan_in, fan_out = weight.shape[1], weight.shape[0] // layer.groups
        positions = list(windows(x.shape[2:], layer.kernel_size, layer.stride, layer.dilation))
    with work(family):
        for sample, unit in np.ndindex(grad.shape[:2]):
            first = unit // fan_out * fan_in
            for position, reads in positions:
                read = (sample, slice(first, first + fan_in), *reads)
                value = grad[(sample, unit, *position)]
                to_weight[unit] = to_weight[unit] + x[read] * value
                if to_input:
                    to_x[read] = to_x[read] + weight[unit] * value
    return to_x, to_weight
