"""The three workloads that a GPU is asked: as modules with their inputs, by size."""

from collections.abc import Callable, Mapping

import torch
from recording import Bench
from torch import Tensor, nn
from workloads import CLAW, FULL, PURKINJE

from neuroconv.layers import DendriticConv, TreeShape
from neuroconv.neurons import Granule, GranuleConv2d

Load = Callable[[], tuple[nn.Module, Tensor]]


def purkinje(bench: Bench, batch: int, neurons: int) -> tuple[nn.Module, Tensor]:
    """Returns dendrites of full Purkinje cells (quick: small ones), and their sheets."""
    sheet, taps = bench.pick((PURKINJE, FULL), ((5, 10, 60), (5, 4, 60)))
    tree = TreeShape(sheet[1:], (*taps[1:], taps[0]), mode="same")
    dendrites = bench.build(DendriticConv, neurons, tree, bias=False)
    return dendrites, bench.randn(batch, neurons, *sheet)


def granule(bench: Bench, batch: int, neurons: int) -> tuple[nn.Module, Tensor]:
    """Returns granule cells with a norm at the soma and Poisson dropout, and their activity."""
    axons = min(neurons, 4096)  # to draw the wiring from more of them takes seconds
    cells = bench.build(Granule, axons, neurons, norm="soma")
    return cells, bench.rand(batch, axons, CLAW[0])


def image_layer(
    bench: Bench, batch: int, channels: int, units: int, pixels: int, **keywords: str
) -> tuple[nn.Module, Tensor]:
    """Returns a granule image layer, and its frames."""
    layer = bench.build(GranuleConv2d, channels, units, padding="same", **keywords)
    return layer, bench.rand(batch, channels, 5, pixels, pixels)


def loads(bench: Bench) -> Mapping[str, Load]:
    """Returns the three workloads at one size each."""
    cells, granules, images = bench.pick(
        ((32, 64), (32, 4096), (128, 16, 16, 112)), ((2, 2), (2, 64), (2, 2, 3, 12))
    )
    return {
        "Purkinje dendrites, {} x {}".format(*cells): lambda: purkinje(bench, *cells),
        "granule cells, {} x {}".format(*granules): lambda: granule(bench, *granules),
        "image layer, {} x {} to {} at {}".format(*images): lambda: image_layer(bench, *images),
    }


def compulsory(module: nn.Module, inputs: Tensor) -> tuple[int, int]:
    """Returns what a forward pass executes, in FLOP of linear stages, and the bytes that it cannot
    avoid: inputs, parameters and results, once each in the precision of the inputs."""
    with torch.no_grad():
        result = module(inputs)
    with torch.device("meta"):
        costs = module.closed_form(inputs.shape)
    numbers = inputs.numel() + result.numel() + sum(p.numel() for p in module.parameters())
    return sum(cost.executed_flop for cost in costs), inputs.element_size() * numbers
