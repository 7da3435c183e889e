"""Purkinje cells that classify by themselves: no trained layer follows them.

Shapes: B batch, C channels, T time steps, F mossy or parallel fibres, N Purkinje cells, K classes.
"""

from collections.abc import Callable
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import ImageShape, Positive, Seed, Size, argument, checked
from neuroconv.layers import Cost
from neuroconv.neurons import Granule, Purkinje
from neuroconv.neurons.stages import Table, merge
from neuroconv.zoo.cerebellum import complete
from neuroconv.zoo.registry import ImageNetwork, register_model

PURKINJE_CELLS: Table = {
    "tree": {"sheet": (32, 60), "mode": "per_dendrite"},
    "wiring": {"kind": "random"},
    "taps": {"trainable": False},
    "soma": {"time_steps": 1},
    "output": {"mean_wait": 0.0},
}
# Without a norm over the batch each sample can be learned by itself.
GRANULE_CELLS: Table = {
    "cells": 1000,
    "tree": {"sheet": (4, 4), "mode": "per_dendrite"},
    "wiring": {"kind": "receptive_field", "patch": (5, 5)},
    "norm": "none",
    "output": {"mean_wait": 0.0},
}


@checked
class MossyFibres(nn.Module):
    """Images as the activity of mossy fibres: each frame has mean 0 and variance 1 over its pixels.

    It stands for the inhibition in the granular layer that takes the level of all fibres from each.
    With `normalise=False` pixels pass as they are. With `on_off` a pixel has two fibres, for what
    is above and what is below zero, so that no activity is negative.

    Shape:
        frames (B, C, T, H, W) -> (B, F, T), F = C * H * W, or twice as many
    """

    def __init__(self, on_off: bool = False, normalise: bool = True) -> None:
        super().__init__()
        self.on_off, self.normalise = on_off, normalise

    def forward(self, frames: Tensor) -> Tensor:
        pixels = frames.transpose(2, 1).flatten(2)  # (B, T, F)
        level = F.layer_norm(pixels, pixels.shape[2:]) if self.normalise else pixels
        level = level.transpose(1, 2)
        return torch.cat([level.relu(), (-level).relu()], 1) if self.on_off else level

    def closed_form(self, frames: torch.Size) -> tuple[Cost, ...]:
        """Counts four operations a pixel, as of any layer norm without parameters."""
        flops = 4 * self.normalise + 3 * self.on_off
        return (Cost("mossy fibres", pointwise=frames.numel() * flops),)


@checked
class NuclearReadout(nn.Module):
    """Deep nuclei as a read-out without parameters: Purkinje cells inhibit the nucleus of a class.

    The first cell of a class inhibits its nucleus. The second, if there is one, inhibits the first
    one's effect: their difference counts. Nuclei average over the window.

    Args:
        classes: K.
        cells_per_class: 1, or 2 for a pair that works against one another.
        gain: logits for a mean rate of 1.

    Attributes:
        effects: (N,) the sign of a cell's effect on the logit of its class.

    Shape:
        mean rates (B, N) -> logits (B, K)
    """

    effects: Tensor

    def __init__(self, classes: Size, cells_per_class: Literal[1, 2], gain: Positive) -> None:
        super().__init__()
        self.out_features, self.gain = classes, gain
        self.in_features = classes * cells_per_class
        effects = torch.tensor([-1.0, 1.0][:cells_per_class]).repeat(classes)
        self.register_buffer("effects", effects, persistent=False)

    def forward(self, rates: Tensor) -> Tensor:
        signed = rates * (self.effects * self.gain)
        return signed.unflatten(1, (self.out_features, -1)).sum(2)

    def to_cells(self, error: Tensor) -> Tensor:
        """Returns the error of each cell (B, N): that of its class, and the sign of its effect."""
        cells = self.in_features // self.out_features
        return error.repeat_interleave(cells, 1) * (self.effects * self.gain)

    def closed_form(self, rates: torch.Size) -> tuple[Cost, ...]:
        """Counts a product for each cell, and the difference of a pair."""
        pairs = rates[0] * (self.in_features - self.out_features)
        return (Cost("nuclei", pointwise=rates.numel() + pairs),)

    def trace_axons(self, layer: Callable[..., Tensor], rates: Tensor) -> Tensor:
        """States which cells each nucleus reads; see `neuroconv.flops.count_axons`."""
        index = torch.arange(self.in_features).view(self.out_features, -1)
        return layer(rates.unsqueeze(2), self.out_features, index).squeeze(2)

    def extra_repr(self) -> str:
        return f"cells={self.in_features}, classes={self.out_features}, gain={self.gain:g}"


@checked
class PurkinjeClassifier(ImageNetwork):
    """Image -> mossy fibres (-> granule cells) -> Purkinje cells, one or two for a class -> nuclei.

    `reset_classifier` replaces the nuclei by an nn.Linear, after which no cell knows its own error:
    autograd trains the network, or the delta rule its last layer.

    Shape:
        (B, C, H, W), taken as constant over the window, or (B, C, T, H, W) -> logits (B, K)
    """

    def __init__(
        self,
        mossy: MossyFibres,
        granule: Granule | None,
        purkinje: Purkinje,
        readout: NuclearReadout,
        steps: Size,
        image_shape: ImageShape | None = None,
    ) -> None:
        super().__init__(steps, image_shape)
        self.mossy, self.purkinje, self.classifier = mossy, purkinje, readout
        self.granule: nn.Module = nn.Identity() if granule is None else granule

    def parallel_fibres(self, images: Tensor) -> Tensor:
        """Returns the activity that the Purkinje cells receive (B, F, T)."""
        return self.granule(self.mossy(self.as_frames(images)))

    def forward_features(self, images: Tensor) -> Tensor:
        return self.purkinje(self.parallel_fibres(images)).mean(2)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features if pre_logits else self.classifier(features)


@register_model
def purkinje_classifier(
    *,
    image_shape: ImageShape = (1, 28, 28),
    num_classes: Size = 10,
    time_steps: Size = 1,
    cells_per_class: Literal[1, 2] = 1,
    on_off: bool = False,
    normalise: bool = True,
    gain: Positive = 8.0,
    granule: Table | None = None,
    purkinje: Table = PURKINJE_CELLS,
    seed: Seed = 0,
) -> PurkinjeClassifier:
    """A Purkinje cell for each class, and nothing trained behind it: 19,810 parameters on MNIST.

    A cell's branches each rectify the weighted sum of 32 fibres and add up; the more a cell fires,
    the less likely is its class, since Purkinje cells inhibit their nucleus. No neuron is hidden
    and no norm joins samples, so that the gradient at a synapse is what it knows by itself and the
    one error of its cell: see `neuroconv.learning`.

    Synapses begin normal with variance 2 / sites (under Dale's law their magnitudes are a normal
    number's). Filters are the mean over the window's steps, unless `purkinje.taps` has a cable, and
    the soma's filter is the present step: both stay, so that a synapse has one trained number. With
    `purkinje={"taps": {"trainable": True}}` each has a filter in time to learn.

    Args:
        cells_per_class: 2 adds a cell for each class that excites where the first inhibits.
        on_off: two fibres for each pixel, above and below the mean of the image, none negative: for
            Dale's law, `purkinje={"synapse": {"excitatory": 1.0}}`.
        normalise: whether an image has mean 0 and variance 1 over its pixels; False where their
            level tells something, as in a population code of movements.
        gain: logits for a mean rate of 1 over a cell's branches.
        granule: of `Granule`, and its number of `cells`; by default there are none, and pixels are
            the parallel fibres. No norm is among them. Of the local rules Hebb's alone trains them.
        purkinje: of `Purkinje`; its tree's `sheet` is (synapses of a branch, branches).
        seed: of all that is drawn before the weights; a table's `wiring` or `synapse` may have one.

    The filter of a tree spans its sheet, if the table has none.
    """
    channels, *sides = image_shape
    fibres = channels * (1 + on_off), sides[0], sides[1]
    pixels, task = prod(fibres), (fibres, time_steps)
    axons, granule_cells = pixels, None
    if granule is not None:
        granule = _whole_dendrites(merge(GRANULE_CELLS, granule))
        axons, granule = complete("granule", granule, task, seed)
        with argument("granule"):
            granule_cells = Granule(pixels, axons, **granule)
    purkinje = merge({"cells": num_classes * cells_per_class}, PURKINJE_CELLS, purkinje)
    cells, purkinje = complete("purkinje", _whole_dendrites(purkinje), task, seed + 1)
    with argument("purkinje"):
        purkinje_cells = Purkinje(axons, cells, **purkinje)
    dendrites, taps = purkinje_cells.dendrites, purkinje["taps"]
    for parameter in purkinje_cells.synapses.parameters():
        nn.init.normal_(parameter, std=(2 / dendrites.sheet_shape[0]) ** 0.5)
    if (taps.get("cable") if isinstance(taps, dict) else taps.cable) is None:
        nn.init.constant_(dendrites.weight, 1 / (dendrites.tree.kernel[0] * dendrites.tap_unit))
    purkinje_cells.soma.requires_grad_(False)
    readout = NuclearReadout(num_classes, cells_per_class, gain)
    return PurkinjeClassifier(
        MossyFibres(on_off, normalise),
        granule_cells,
        purkinje_cells,
        readout,
        time_steps,
        image_shape,
    )


def _whole_dendrites(cells: dict[str, Any]) -> dict[str, Any]:
    """Completes a tree's table by a filter of the sheet's size."""
    tree = cells["tree"]
    whole = {"filter": (*tree["sheet"],)} if isinstance(tree, dict) else {}
    return {**cells, "tree": {**whole, **tree}} if whole else cells
