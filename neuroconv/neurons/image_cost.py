"""The cost of an image layer, stage by stage, from its sizes alone.

Shapes: as in `neurons.image`.
"""

from dataclasses import replace
from typing import Any

import torch

from neuroconv.core.cost import Cost
from neuroconv.kernels.image import norms_fused, present_norms
from neuroconv.kernels.norms import SCALE_FLOPS
from neuroconv.layers.soma import SomaFilter
from neuroconv.neurons.stages import is_absent


def image_layer_costs(layer: Any, image: torch.Size) -> tuple[Cost, ...]:
    """Counts the stages for `GranuleConv2d.closed_form`."""
    normalises, spikes = bool(present_norms(layer)), not is_absent(layer.spike)
    somatic_norm = not is_absent(layer.soma_norm)
    batch, (height, width) = image[0], layer.output_size(image[-2], image[-1])
    steps = image[2] if len(image) == 5 else layer.time_steps
    units, fan_in, kernel_t, rows, columns = layer.weight.shape
    neurons = units * height * width
    synapses = fan_in * rows * columns
    taps = synapses * kernel_t
    folded = 1 if layer.time_steps == 1 else steps
    read = layer.in_channels if layer.channels is not None else fan_in
    maps = torch.Size((batch, units, steps, height, width))
    outputs = maps.numel()
    stages = [Cost("synapses", synapses=neurons * synapses)]
    if not is_absent(layer.threshold_norm):
        incoming = torch.Size((batch, layer.in_channels, steps, *image[-2:]))
        stages += layer.threshold_norm.closed_form(incoming)
    macs = {"convolution": outputs * columns * read * rows * folded}
    essay, direct = outputs * synapses * taps, outputs * taps
    stages.append(Cost("dendrites", macs, neurons=neurons, essay=essay, direct=direct))
    normal = 2 * outputs * columns if normalises else 0
    fused = norms_fused(layer)
    if fused and not spikes and normalises:
        normal += SCALE_FLOPS * units * columns
    stages.append(Cost("dendritic potential", pointwise=normal))
    if spikes:
        (spike,) = layer.spike.closed_form(maps)
        stages.append(replace(spike, pointwise=columns * spike.pointwise))
    rectified = 0 if layer.linear_dendrites else outputs * columns
    stages.append(Cost("dendritic rate", pointwise=rectified))
    sums = outputs * (columns - 1) + layer.summation.law_flops(outputs)
    stages.append(Cost("dendritic summation", pointwise=sums))
    if isinstance(layer.soma, SomaFilter):
        stages += layer.soma.closed_form(maps)
    added = 2 * (somatic_norm) + (layer.bias is not None)
    scales = SCALE_FLOPS * units if fused and somatic_norm else 0
    stages.append(Cost("somatic potential", pointwise=added * outputs + scales))
    return (*stages, *layer.firing.closed_form(maps), *layer.output.closed_form(maps))
