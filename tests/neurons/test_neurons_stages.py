"""Whole neurons against slow float64 loops over scalars, written from each stage's formula."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroconv.layers import (
    DendriticRate,
    DendriticSpike,
    DendriticSummation,
    DenseSynapses,
    PoissonSpikes,
    ReleaseOrWait,
    SomaFilter,
    SparseSynapses,
)
from neuroconv.neurons import GranuleConv2d, Population
from neuroconv.neurons.stages import is_absent
from tests.neurons.conftest import AXONS, IMAGE_LAYERS, POPULATIONS

Array = NDArray[np.float64]


def numbers(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def number(value: float | Tensor) -> float:
    return value.item() if isinstance(value, Tensor) else value


def normalised(norm: Any, channel: int) -> Callable[[float], float]:
    """Batch norm by the running statistics of one channel, of one value."""
    statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, variance, gain, shift = (tensor[channel].item() for tensor in statistics)
    return lambda x: (x - mean) / math.sqrt(variance + norm.eps) * gain + shift


def clamped(threshold: float, potential: float) -> float:
    return min(max(potential, 0.0), threshold)


def scalar_weight(synapses: SparseSynapses | DenseSynapses, row: int, axon: int, at: int) -> float:
    """Weight `at` in its row: vesicles times receptors, with the sign that the axon has."""
    if synapses.vesicles is not None and synapses.receptors is not None:
        weight = abs(synapses.vesicles[row, at].item() * synapses.receptors[row, at].item())
    else:
        weight = synapses.weight[row, at].item()
    if synapses.signs is None:
        return weight
    return abs(weight) * int(synapses.signs[axon])


def scalar_sheet(cells: Population, activity: Array, neuron: int, transmitter: int) -> Array:
    """(T, P, D) of one sample's activity (F, T): synapses, then threshold normalisation."""
    sites, dendrites = cells.dendrites.sheet_shape
    axons, steps = activity.shape
    tree = neuron * cells.transmitters.kinds + transmitter
    sheet = np.zeros((steps, sites, dendrites))
    for s in range(cells.synapses.synapses):
        position = (s % sites, s // sites)  # dendrite by dendrite
        for t in range(steps):
            if isinstance(cells.synapses, SparseSynapses):
                axon = int(cells.synapses.wiring[neuron, s])
                total = scalar_weight(cells.synapses, tree, axon, s) * activity[axon, t]
            else:
                row = tree * cells.synapses.synapses + s
                total = sum(
                    scalar_weight(cells.synapses, row, axon, axon) * activity[axon, t]
                    for axon in range(axons)
                )
            if not is_absent(cells.threshold_norm):
                norm = normalised(cells.threshold_norm.norm, tree)
                total = clamped(cells.threshold_norm.threshold, norm(total))
            sheet[t, *position] = total
    return sheet


def scalar_filter(cells: Population, sheet: Array, tree: int) -> Array:
    """(T, P, D) -> (T, P', D'): a cross-correlation, causal in time, and a resting potential."""
    steps, sites, dendrites = sheet.shape
    branches, across, k_time = cells.dendrites.tree.filter
    mode, taps = cells.dendrites.mode, numbers(cells.dendrites.weight) * cells.dendrites.tap_unit
    before = ((branches - 1) // 2, (across - 1) // 2) if mode == "same" else (0, 0)
    rows = sites if mode == "same" else sites - branches + 1
    columns = dendrites - across + 1 if mode == "valid" else dendrites
    potential = np.zeros((steps, rows, columns))
    for t, p, d in np.ndindex(steps, rows, columns):
        for kt, kp, kd in np.ndindex(k_time, branches, across):
            then, site, dendrite = t - k_time + 1 + kt, p + kp - before[0], d + kd - before[1]
            if mode == "per_dendrite":
                if kd != d:
                    continue
                dendrite = d
            if then >= 0 and 0 <= site < sites and 0 <= dendrite < dendrites:
                potential[t, p, d] += taps[tree, kt, kp, kd] * sheet[then, site, dendrite]
        if cells.dendrites.bias is not None:
            potential[t, p, d] += cells.dendrites.bias[tree, d].item()
    return potential


def scalar_spike(spike: nn.Module, sites: list[float]) -> list[float]:
    """x + strength * gate(m - threshold) * (m - x), m the maximum near a site x of a dendrite."""
    if not isinstance(spike, DendriticSpike):
        return sites
    strength, threshold = number(spike.strength), number(spike.threshold)
    lifted = []
    for p, x in enumerate(sites):
        near = sites
        if spike.window is not None:
            first = p - (spike.window - 1) // 2
            near = [sites[q] for q in range(first, first + spike.window) if 0 <= q < len(sites)]
        largest = max(near)
        gate = float(largest > threshold)
        if spike.temperature:
            gate = 1 / (1 + math.exp(-(largest - threshold) / spike.temperature))
        lifted.append(x + strength * gate * (largest - x))
    return lifted


def scalar_law(summation: DendriticSummation | DendriticRate, s: float) -> float:
    k = number(summation.knee)
    if summation.law == "linear":
        return s
    s = max(0.0, s)
    if summation.law == "sublinear":
        return s / (1 + s / k)
    n = number(summation.exponent)
    return k * (s / k) ** n if summation.law == "supralinear" else 2 * k * s**n / (k**n + s**n)


def causal(taps: Array, current: Array) -> Array:
    """The last tap meets the present; nothing came before the window."""
    out = np.zeros_like(current)
    for t in range(len(current)):
        for lag in range(min(len(taps), t + 1)):
            out[t] += taps[len(taps) - 1 - lag] * current[t - lag]
    return out


def scalar_output(output: nn.Module, rates: list[float]) -> list[float]:
    """What leaves a neuron in evaluation: Poisson dropout lets everything through."""
    if isinstance(output, PoissonSpikes):
        return [rate * output.dt for rate in rates]
    if not isinstance(output, ReleaseOrWait):
        return rates
    released, awake_at = [], 0
    for t, rate in enumerate(rates):
        awake = t >= awake_at
        released.append(rate if awake and rate > 0 else 0.0)
        if awake and rate <= 0:  # it sleeps, this step included
            awake_at = t + math.ceil(output.wait_ms / output.step_ms)
    return released


def scalar_population(cells: Population, activity: Array) -> Array:
    """The neuron as its stages define it, (B, F, T) -> (B, N, T)."""
    batch, _, steps = activity.shape
    rates = np.zeros((batch, cells.out_features, steps))
    for b, n in np.ndindex(batch, cells.out_features):
        potential = sum(
            scalar_filter(
                cells, scalar_sheet(cells, activity[b], n, c), n * cells.transmitters.kinds + c
            )
            for c in range(cells.transmitters.kinds)
        )
        assert isinstance(potential, np.ndarray)
        _, rows, columns = potential.shape
        current = np.zeros(steps)
        for t in range(steps):
            total = 0.0
            for d in range(columns):
                sites = [float(potential[t, p, d]) for p in range(rows)]
                if not is_absent(cells.dendritic_norm):
                    sites = [normalised(cells.dendritic_norm, n * columns + d)(x) for x in sites]
                sites = scalar_spike(cells.spike, sites)
                if not cells.dendritic_rate.linear:
                    sites = [max(0.0, x) for x in sites]
                reduced = {"mean": sum(sites) / rows, "sum": sum(sites), "max": max(sites)}
                total += scalar_law(cells.dendritic_rate, reduced[cells.dendritic_rate.reduction])
            current[t] = scalar_law(cells.summation, total / columns)
        taps = numbers(cells.soma.weight)
        soma = causal(taps if taps.ndim == 1 else taps[n], current)
        if not is_absent(cells.soma_norm):
            soma = np.array([normalised(cells.soma_norm, n)(x) for x in soma])
        if cells.bias is not None:
            soma = soma + cells.bias[n].item()
        rates[b, n] = scalar_output(cells.output, [max(0.0, float(x)) for x in soma])
    return rates


@pytest.mark.parametrize("steps", [5, 2, 1])
def test_a_population_is_its_stages(population: Population, steps: int) -> None:
    activity = torch.randn(2, population.in_features, steps, dtype=torch.float64)
    expected = scalar_population(population, activity.numpy())
    assert steps < 5 or (expected > 0).any()
    np.testing.assert_allclose(numbers(population(activity)), expected, rtol=0, atol=1e-12)
    single = population.float()(activity.float())
    np.testing.assert_allclose(numbers(single), expected, rtol=1e-4, atol=1e-5)


# --- image layers


def channels_read(layer: GranuleConv2d, unit: int, column: int) -> list[int]:
    """The image's channels that one dendrite reads: all of its group, or the claw's."""
    if layer.wiring == "claw":
        return [int(layer.channels[unit, 0, column])]
    in_group = layer.in_channels // layer.groups
    group = unit // (layer.out_channels // layer.groups)
    return list(range(group * in_group, (group + 1) * in_group))


def scalar_column(layer: GranuleConv2d, frames: Array, unit: int, column: int) -> Array:
    """(T, H', W') potential of one dendrite at every place: a column filtered in space and time."""
    _, steps, height, width = frames.shape
    weight = numbers(layer.weight)[unit]
    _, k_time, rows, _ = weight.shape
    top, _, left, _ = layer.padding
    out = np.zeros((steps, *layer.window.output_size(height, width)))
    for t, y, x in np.ndindex(*out.shape):
        for index, channel in enumerate(channels_read(layer, unit, column)):
            for kt, row in np.ndindex(k_time, rows):
                then = t - (k_time - 1) + kt
                i = y * layer.stride[0] - top + row * layer.dilation[0]
                j = x * layer.stride[1] - left + column * layer.dilation[1]
                if then >= 0 and 0 <= i < height and 0 <= j < width:
                    out[t, y, x] += weight[index, kt, row, column] * frames[channel, then, i, j]
        if layer.dendritic_bias is not None:
            out[t, y, x] += layer.dendritic_bias[column, unit].item()
    return out


def scalar_unit(layer: GranuleConv2d, frames: Array, unit: int) -> Array:
    """(C, T, H, W) -> (T, H', W') rates of one unit."""
    current: Any = 0.0
    for column in range(layer.kernel_size[1]):
        potential = scalar_column(layer, frames, unit, column)
        steps, _, across = potential.shape
        for t, x in np.ndindex(steps, across):
            sites = [float(site) for site in potential[t, :, x]]
            if not isinstance(layer.dendritic_norms[column], nn.Identity):
                norm = normalised(layer.dendritic_norms[column], unit)
                sites = [norm(site) for site in sites]
            sites = scalar_spike(layer.spike, sites)  # along a column of the map
            potential[t, :, x] = sites if layer.linear_dendrites else np.maximum(sites, 0)
        current = current + potential
    taps = numbers(layer.soma.weight) if isinstance(layer.soma, SomaFilter) else np.ones(1)
    rates = np.zeros_like(current)
    for y, x in np.ndindex(*current.shape[1:]):
        lawful = [scalar_law(layer.summation, float(s)) for s in current[:, y, x]]
        for t, value in enumerate(causal(taps, np.array(lawful))):
            soma = float(value)
            if not is_absent(layer.soma_norm):
                soma = normalised(layer.soma_norm, unit)(soma)
            if layer.bias is not None:
                soma += layer.bias[unit].item()
            rates[t, y, x] = max(0.0, soma)
    return rates


def scalar_image(layer: GranuleConv2d, image: Array) -> Array:
    """(B, C, T, H, W) -> (B, U, T, H', W')."""
    if not is_absent(layer.threshold_norm):
        image = image.copy()
        for index in np.ndindex(*image.shape):
            norm = normalised(layer.threshold_norm.norm, index[1])
            image[index] = clamped(layer.threshold_norm.threshold, norm(float(image[index])))
    return np.stack(
        [
            np.stack([scalar_unit(layer, frames, u) for u in range(layer.out_channels)])
            for frames in image
        ]
    )


@pytest.mark.parametrize("steps", [4, 1])
def test_an_image_layer_is_its_stages(image_layer: GranuleConv2d, steps: int) -> None:
    image = torch.randn(2, image_layer.in_channels, steps, 4, 6, dtype=torch.float64)
    expected = scalar_image(image_layer, image.numpy())
    assert (expected > 0).any()
    np.testing.assert_allclose(numbers(image_layer(image)), expected, rtol=0, atol=1e-12)
    single = image_layer.float()(image.float())
    np.testing.assert_allclose(numbers(single), expected, rtol=1e-4, atol=1e-5)


# --- gradients


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("build", [*POPULATIONS.values(), *IMAGE_LAYERS.values()])
def test_gradcheck(build: Callable[[], Any], fast: bool) -> None:
    """Inputs and parameters at once, at random points: none lies on a kink."""
    neurons = build()
    for spike in neurons.modules():
        if isinstance(spike, DendriticSpike):
            spike.signal = "max"  # the essay's learning signal is no gradient, by intention
    axes = (neurons.in_channels, 2, 3, 4) if isinstance(neurons, GranuleConv2d) else (AXONS, 3)
    x = torch.rand(1, *axes, dtype=torch.float64, requires_grad=True)
    trained = {name: p for name, p in neurons.named_parameters() if p.requires_grad}
    assert (neurons(x) > 0).any()

    def run(inputs: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(trained, parameters, strict=True))
        return torch.func.functional_call(neurons, named, (inputs,))

    assert torch.autograd.gradcheck(run, (x, *trained.values()), fast_mode=fast)
