"""The cost of populations and image layers, stage by stage, from their sizes alone."""

from dataclasses import replace
from typing import Any

import torch

from neuroconv.core.cost import Cost
from neuroconv.kernels.image import norms_fused, present_norms, reads_channels
from neuroconv.kernels.norms import SCALE_FLOPS
from neuroconv.kernels.population import fuses, tree_spec
from neuroconv.kernels.tree_costs import tree_costs
from neuroconv.neurons.stages import is_absent, stage_costs


def population_costs(
    cells: Any, activity: torch.Size, *, resumed: bool, streamed: bool
) -> tuple[Cost, ...]:
    """Counts the stages for `Population.closed_form`."""
    steps = cells.time_steps if len(activity) == 2 else activity[2]
    batch, neurons = activity[0], cells.share.local
    recalled = cells.soma.time_steps - 1 if resumed else 0
    somata = torch.Size((batch, neurons, steps))
    somatic = 1 if is_absent(cells.soma_norm) else 2  # a resting potential, or a norm
    window = not (resumed or streamed)  # run by `forward`
    fused = window and fuses(cells, batch, steps, evaluation=True)
    return (
        *(_fused_costs(cells, batch, steps) if fused else _costs(cells, batch, steps, resumed)),
        *cells.soma.closed_form(torch.Size((batch, neurons, steps + recalled))),
        Cost("somatic potential", pointwise=somata.numel() * somatic),
        *cells.firing.closed_form(somata),
        *cells.output.closed_form(torch.Size((batch, cells.out_features, steps))),
    )


def _costs(cells: Any, batch: int, steps: int, resumed: bool) -> tuple[Cost, ...]:
    """Counts the stages from synapses to summation, run one after another."""
    neurons, trees = cells.share.local, cells.dendrites.neurons
    recalled = cells.time_steps - 1 if resumed else 0
    sheet, (rows, columns) = cells.dendrites.sheet_shape, cells.dendrites.tree.out
    branches = torch.Size((batch, neurons, steps, rows, columns))
    window = torch.Size((batch, trees, steps + recalled, *sheet))
    (trees_cost,) = cells.dendrites.closed_form(window, cells.synapses.synapses, steps)
    potentials = _potential_flops(cells, batch * trees * steps * rows * columns, branches.numel())
    return (
        *cells.synapses.closed_form(torch.Size((batch, cells.in_features, steps))),
        *stage_costs(cells.threshold_norm, (batch, trees, steps, *sheet)),
        replace(trees_cost, neurons=neurons),
        Cost("dendritic potential", pointwise=potentials),
        *stage_costs(cells.spike, branches),
        *cells.dendritic_rate.closed_form(branches),
        *cells.summation.closed_form(torch.Size((batch, neurons, steps, columns))),
    )


def _fused_costs(cells: Any, batch: int, steps: int) -> tuple[Cost, ...]:
    """Counts the same stages fused: weights and taps are merged once for the whole batch."""
    neurons, synapses = cells.share.local, cells.synapses.synapses
    rows, columns = cells.dendrites.tree.out
    currents = batch * neurons * steps
    potentials = currents * rows * columns
    products, merges, sums = tree_costs(
        batch, steps, cells.dendrites.weight.shape, synapses, tree_spec(cells)
    )
    window = torch.Size((batch, neurons, steps, *cells.dendrites.sheet_shape))
    (trees_cost,) = cells.dendrites.closed_form(window, synapses)
    weights = cells.synapses.weight_flops() * neurons * synapses
    sums += currents + cells.summation.law_flops(currents)
    return (
        Cost("synapses", pointwise=weights + merges, synapses=neurons * synapses),
        replace(trees_cost, macs={"matmul": products}, pointwise=0),
        Cost("dendritic potential", pointwise=_potential_flops(cells, potentials, potentials)),
        Cost("dendritic rate", pointwise=potentials * (not cells.dendritic_rate.linear)),
        Cost("dendritic summation", pointwise=sums),
    )


def _potential_flops(cells: Any, filtered: int, potentials: int) -> int:
    """Counts tap units, bias, sum of transmitters and norm; sizes before and after the sum."""
    dendrites, kinds = cells.dendrites, cells.transmitters.kinds
    flops = dendrites.weight.numel() if dendrites.tap_unit != 1 else 0
    flops += filtered if dendrites.bias is not None else 0
    flops += potentials * kinds if kinds > 1 else 0
    return flops + (0 if is_absent(cells.dendritic_norm) else 2 * potentials)


def image_layer_costs(layer: Any, image: torch.Size) -> tuple[Cost, ...]:
    """Counts the stages for `GranuleConv2d.closed_form`."""
    batch, (height, width) = image[0], layer.window.output_size(*image[-2:])
    steps = image[2] if len(image) == 5 else layer.time_steps
    units, fan_in, kernel_t, rows, columns = layer.weight.shape
    neurons, synapses = units * height * width, fan_in * rows * columns
    maps = torch.Size((batch, units, steps, height, width))
    outputs, rates = maps.numel(), maps.numel() * columns
    products, zeros = layer_products(layer, outputs, steps)
    spikes = [replace(s, pointwise=columns * s.pointwise) for s in stage_costs(layer.spike, maps)]
    fused, somatic_norm = norms_fused(layer), not is_absent(layer.soma_norm)
    normal = 2 * rates if present_norms(layer.dendritic_norms) else 0
    if normal and fused and not spikes:
        normal += SCALE_FLOPS * units * columns
    sums = outputs * (columns - 1) + layer.summation.law_flops(outputs)
    somatic = outputs * (2 * somatic_norm + (layer.bias is not None))
    if fused and somatic_norm:
        somatic += SCALE_FLOPS * units
    taps = synapses * kernel_t
    essay, direct = outputs * synapses * taps, outputs * taps
    return (
        Cost("synapses", synapses=neurons * synapses),
        *stage_costs(layer.threshold_norm, (batch, layer.in_channels, steps, *image[-2:])),
        Cost(
            "dendrites", {"convolution": products}, neurons=neurons,
            essay=essay, direct=direct, zeros=zeros,
        ),
        Cost("dendritic potential", pointwise=normal),
        *spikes,
        Cost("dendritic rate", pointwise=0 if layer.linear_dendrites else rates),
        Cost("dendritic summation", pointwise=sums),
        *stage_costs(layer.soma, maps),
        Cost("somatic potential", pointwise=somatic),
        *layer.firing.closed_form(maps),
        *layer.output.closed_form(maps),
    )  # fmt: skip


def layer_products(layer: Any, outputs: int, steps: int) -> tuple[int, int]:
    """Counts the multiply-adds of an image layer's filters, and those with zeros off the wiring."""
    _, fan_in, kernel_t, rows, columns = layer.weight.shape
    lags = 1 if layer.time_steps == 1 else steps
    wired = outputs * rows * columns * fan_in * min(lags, kernel_t)
    if reads_channels(layer):
        return wired, 0
    channels = layer.in_channels if layer.channels is not None else fan_in
    products = outputs * rows * columns * channels * lags
    return products, products - wired
