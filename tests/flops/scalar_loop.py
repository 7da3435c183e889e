"""Networks run number by number, in numbers that count the products they take part in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import singledispatch, total_ordering
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


@total_ordering
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


Array = np.ndarray[Any, Any]  # of Numbers
ZERO = Number(0.0)


@contextmanager
def work(kind: str) -> Iterator[None]:
    Number.work, before = kind, Number.work
    yield
    Number.work = before


def numbers(tensor: Tensor) -> Array:
    return np.vectorize(Number, otypes=[object])(tensor.detach().numpy())


def zeros(*shape: int) -> Array:
    return np.full(shape, ZERO, object)


def total(terms: Array, start: Number = ZERO) -> Number:
    for term in terms.flat:
        start = start + term
    return start


def padded(x: Array, before: list[int], after: list[int]) -> Array:
    """With zeros around the last axes."""
    around = [(0, 0)] * (x.ndim - len(before)) + list(zip(before, after, strict=True))
    return np.pad(x, around, constant_values=ZERO)


def windows(
    room: tuple[int, ...], taps: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Each output position of a filter, and the indices it reads."""
    spans = [d * (k - 1) + 1 for k, d in zip(taps, dilation, strict=True)]
    counts = [(n - span) // s + 1 for n, span, s in zip(room, spans, stride, strict=True)]
    for position in product(*map(range, counts)):
        axes = zip(position, stride, spans, dilation, strict=True)
        yield position, tuple(slice(p * s, p * s + span, d) for p, s, span, d in axes)


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


@run.register(nn.Conv1d | nn.Conv2d | nn.Conv3d)
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


@run.register(nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
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


@run.register(nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
def _(layer: nn.BatchNorm2d, x: Array) -> Array:
    gain = (layer.running_var + layer.eps).rsqrt() * (1 if layer.weight is None else layer.weight)
    shift = (0 if layer.bias is None else layer.bias) - layer.running_mean * gain
    axes = (-1, *[1] * (x.ndim - 2))
    with work("normalisation"):
        return x * numbers(gain).reshape(axes) + numbers(shift).reshape(axes)


def pool(layer: Any, x: Array, reduce: Any) -> Array:
    axes = x.ndim - 2
    taps, stride = (
        (size,) * axes if isinstance(size, int) else (*size,) * (axes // len(size))
        for size in (layer.kernel_size, layer.stride)
    )
    positions = list(windows(x.shape[2:], taps, stride, (1,) * axes))
    y = zeros(*x.shape[:2], *(n + 1 for n in positions[-1][0]))
    for position, reads in positions:
        for map_index in np.ndindex(x.shape[:2]):
            y[(*map_index, *position)] = reduce(x[(*map_index, *reads)])
    return y


@run.register(nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d)
def _(layer: nn.MaxPool2d, x: Array) -> Array:
    return pool(layer, x, lambda window: window.max())


@run.register(nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d)
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
    around = (branches - 1, across - 1) if layer.mode == "same" else (0, 0)
    before = [kernel_t - 1, *(span // 2 for span in around)]
    sheet = padded(sheet, before, [0, *(span - span // 2 for span in around)])
    taps = (kernel_t, branches, 1 if layer.mode == "per_dendrite" else across)
    positions = list(windows(sheet.shape[2:], taps, (1, 1, 1), (1, 1, 1)))
    potential = zeros(*sheet.shape[:2], *(n + 1 for n in positions[-1][0]))
    with work("convolution"):
        for sample, neuron in np.ndindex(sheet.shape[:2]):
            for position, reads in positions:
                dendrite = position[2] if layer.mode == "per_dendrite" else slice(None)
                filters = weight[neuron][:, :, dendrite].reshape(taps)
                filtered = filters * sheet[(sample, neuron, *reads)]
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
    """Differentiates a convolution or a linear layer by the padded input and the weight."""
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
