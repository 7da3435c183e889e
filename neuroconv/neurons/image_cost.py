"""The cost of an image layer, stage by stage, from its sizes alone; shapes as in `image`."""

from dataclasses import replace
from typing import Any

import torch

from neuroconv.core.cost import Cost
from neuroconv.kernels.image import norms_fused, present_norms
from neuroconv.kernels.norms import SCALE_FLOPS
from neuroconv.neurons.stages import is_absent, stage_costs


def image_layer_costs(layer: Any, image: torch.Size) -> tuple[Cost, ...]:
    """Counts the stages for `GranuleConv2d.closed_form`."""
    batch, (height, width) = image[0], layer.window.output_size(*image[-2:])
    steps = image[2] if len(image) == 5 else layer.time_steps
    units, fan_in, kernel_t, rows, columns = layer.weight.shape
    neurons, synapses = units * height * width, fan_in * rows * columns
    maps = torch.Size((batch, units, steps, height, width))
    outputs, rates = maps.numel(), maps.numel() * columns
    read = rows * (layer.in_channels if layer.channels is not None else fan_in)
    macs = {"convolution": rates * read * (1 if layer.time_steps == 1 else steps)}
    spikes = [replace(s, pointwise=columns * s.pointwise) for s in stage_costs(layer.spike, maps)]
    fused, somatic_norm = norms_fused(layer), not is_absent(layer.soma_norm)
    normal = 2 * rates if present_norms(layer) else 0
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
        Cost("dendrites", macs, neurons=neurons, essay=essay, direct=direct),
        Cost("dendritic potential", pointwise=normal),
        *spikes,
        Cost("dendritic rate", pointwise=0 if layer.linear_dendrites else rates),
        Cost("dendritic summation", pointwise=sums),
        *stage_costs(layer.soma, maps),
        Cost("somatic potential", pointwise=somatic),
        *layer.firing.closed_form(maps),
        *layer.output.closed_form(maps),
    )
