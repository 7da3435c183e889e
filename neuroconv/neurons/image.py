"""Granule cells as an image layer, under nn.Conv2d's contract.

Shapes: B batch, C channels in, U units (channels out), T time steps, K_T the filter's time steps,
K_H x K_W the patch: its columns are the K_W dendrites, its rows the K_H branches of each.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import Count, Positive, Seed, Size, checked
from neuroconv.core.autocast import add_bias
from neuroconv.core.checks import Norm, NormOver, check_floats, pair
from neuroconv.core.cost import Cost
from neuroconv.core.modules import graph_leaf
from neuroconv.kernels.image import dendrite_potentials, fused_dendrites, fused_somata
from neuroconv.kernels.patch_window import PatchWindow, zeros_around
from neuroconv.layers.memory import last_steps, recall
from neuroconv.layers.soma import FiringRate, SomaFilter
from neuroconv.layers.spike import DendriticSpike
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.layers.wiring import Random
from neuroconv.neurons.costs import image_layer_costs
from neuroconv.neurons.stages import (
    Output,
    Table,
    build_norm,
    build_output,
    build_single,
    build_spike,
    build_summation,
    build_threshold,
)
from neuroconv.neurons.state import REST, NeuronState, run_stages

ImageWiring = Literal["dense", "claw"]


@checked
class GranuleConv2d(nn.Module):
    """A convolution under nn.Conv2d's contract whose units are granule cells.

    The columns of a unit's patch are its dendrites. Each dendrite filters its own column in space
    and time and is rectified; the soma sums the dendrites, filters the sum in time, and is
    rectified again. Without the dendritic rectifier the unit would be a Conv3d. As in `Population`,
    a stage may be given as an object or as the plain table of its arguments.

    **Main arguments:**
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as
            nn.Conv2d's. Integers or pairs; padding may be "same" (stride 1, the longer side after)
            or "valid". `bias` gives each dendrite and each soma a resting potential.
        time_steps: filter length K_T in time. 1 is a unit for still images.
        wiring: "dense": every dendrite reads all channels of its group, as a convolution does.
            "claw": every dendrite reads one channel, drawn from `seed`, so that a unit of a 3x4
            patch and five steps has the granule cell's 3 x 4 x 5 = 60 taps whatever the channels.
        norm: where potentials are batch-normalised, which replaces the bias there: "none", at the
            "dendrites", at the "soma", or at "both".
        norm_over: statistics in training over the "window", by which later steps change the rates
            at earlier ones, or over each "step", which keeps time causal and runs without fused
            kernels; as in `Population`.

    **Other arguments:**
        threshold: the input is normalised, channel by channel, and clamped between rest and this
            threshold, in standard deviations; None leaves it as it is.
        spike: a `DendriticSpike` among the neighbouring units of a column; None for none.
        linear_dendrites: omit the dendritic rectifier, as a control.
        summation: how the dendrites' rates sum: the name of a law, or a `DendriticSummation`.
        soma: a `SomaFilter`; default of `time_steps`. One time step has no memory, and no filter.
        output: what the axon carries; default Poisson dropout with a mean wait of 0, the identity.
            Every position of a map is a cell with waits of its own.
        seed: of the claw wiring.

    Shape:
        (B, C, H, W) -> (B, U, H', W') with time_steps=1, H' and W' as nn.Conv2d's;
        (B, C, T, H, W) -> (B, U, T, H', W'). Still images (B, C, H, W) in a layer of more time
        steps are taken as constant over its window. Unlike nn.Conv2d it takes no unbatched image.

    Raises:
        ValueError: a size or choice out of range; at the call, an image of another shape, or one
            smaller than the patch.
    """

    channels: Tensor | None

    def __init__(
        self,
        in_channels: Size,
        out_channels: Size,
        kernel_size: Size | tuple[Size, Size] = (3, 4),
        stride: Size | tuple[Size, Size] = 1,
        padding: Count | tuple[Count, Count] | Literal["same", "valid"] = 0,
        dilation: Size | tuple[Size, Size] = 1,
        groups: Size = 1,
        bias: bool = True,
        *,
        time_steps: Size = 5,
        wiring: ImageWiring = "dense",
        norm: Norm = "none",
        norm_over: NormOver = "window",
        threshold: Positive | None = None,
        spike: DendriticSpike | nn.Module | Table | None = None,
        linear_dendrites: bool = False,
        summation: DendriticSummation | Table | str = "linear",
        soma: SomaFilter | Table | None = None,
        output: Output | nn.Module | Table | str | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = pair(kernel_size), pair(stride)
        self.dilation = pair(dilation)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups={groups} does not divide in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.time_steps, self.wiring, self.norm_over = time_steps, wiring, norm_over
        self.padding = zeros_around(padding, self.kernel_size, self.stride, self.dilation)
        height, width = self.kernel_size
        fan_in = 1 if wiring == "claw" else in_channels // groups
        self.weight = nn.Parameter(torch.empty(out_channels, fan_in, time_steps, height, width))
        self.register_buffer("channels", self._channels(fan_in, seed), persistent=False)
        self.threshold_norm = build_threshold(threshold, in_channels, over=norm_over)
        at_dendrites, at_soma = norm in ("dendrites", "both"), norm in ("soma", "both")
        self.dendritic_norms = nn.ModuleList(
            build_norm(at_dendrites, nn.BatchNorm2d, out_channels, norm_over) for _ in range(width)
        )
        self.dendritic_bias = (
            nn.Parameter(torch.empty(width, out_channels)) if bias and not at_dendrites else None
        )
        self.spike, self.linear_dendrites = build_spike(spike), linear_dendrites
        self.summation = build_summation(summation)
        memory = build_single("soma", soma, SomaFilter, time_steps=time_steps)
        if memory.neurons is not None:
            raise ValueError(f"soma={memory}; units share one filter over a map: leave neurons out")
        self.soma = memory if memory.time_steps > 1 else nn.Identity()
        self.soma_norm = build_norm(at_soma, nn.BatchNorm2d, out_channels, norm_over)
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias and not at_soma else None
        self.firing = FiringRate()
        self.output = build_output(output, 0.0, scope="unit")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws taps by He's rule over those of one dendrite; biases start at zero."""
        fan_in = self.weight[0, ..., 0].numel()
        nn.init.normal_(self.weight, std=math.sqrt(2 / fan_in))
        for bias in (self.dendritic_bias, self.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Passes taps as (U, C, K_T * K_H, K_W), which `to(memory_format=channels_last)` takes."""

        def on_taps(x: Tensor) -> Tensor:
            if x.dim() != 5:
                return fn(x)
            return fn(x.flatten(2, 3)).unflatten(2, x.shape[2:4])

        return super()._apply(on_taps, recurse)

    def _channels(self, fan_in: int, seed: int) -> Tensor | None:
        """Returns the channels that each dendrite reads, (U, fan_in, K_W); None for all of them."""
        units, width = self.out_channels, self.kernel_size[1]
        in_group = self.in_channels // self.groups
        if fan_in == self.in_channels or (self.time_steps == 1 and self.wiring == "dense"):
            return None
        if self.wiring == "claw":
            local = Random(True, seed).axons(in_group, units, TreeShape((1, width)))[:, None]
        else:
            local = torch.arange(in_group)[None, :, None].expand(units, -1, width)
        first = torch.arange(units) // (units // self.groups) * in_group
        return local + first[:, None, None]

    @graph_leaf
    def forward(self, image: Tensor) -> Tensor:
        x = self.as_frames(image)  # (B, C, T, H, W)
        x = self.threshold_norm(x)  # nn.Identity() where there is none
        x = self.dendrites(x)  # (B, U, T, H', W') columns filtered, rectified and summed
        x = self.summation.law_of(x)
        rate = fused_somata(self, x)  # the stages to the firing rate by one kernel, or None
        if rate is None:
            x = self.soma(x)
            x = self.normalise(x, self.soma_norm)
            rate = self.firing(self.rest(x))
        rate = self.output(rate)
        still = image.dim() == 4 and self.time_steps == 1
        return rate.squeeze(2) if still else rate

    def stream(self, frames: Tensor, state: NeuronState = REST) -> tuple[Tensor, NeuronState]:
        """Runs over a stretch (B, C, T, H, W) of a window, as `Population.stream`."""
        if frames.dim() != 5:
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; expected (batch, {self.in_channels} "
                "channels, time_steps, height, width)"
            )
        x = self.threshold_norm(self.as_frames(frames))
        window, past = recall(state.dendrites, x, self.time_steps)
        x = last_steps(frames.shape[2], self.dendrites(window))
        x, state = run_stages({"summation": self.summation.law_of, "soma": self.soma}, x, state)
        x = self.rest(self.normalise(x, self.soma_norm))
        x, state = run_stages({"firing": self.firing, "output": self.output}, x, state)
        return x, state._replace(dendrites=past)

    def dendrites(self, frames: Tensor) -> Tensor:
        """Sums the rates of all dendrites, (B, C, T, H, W) -> (B, U, T, H', W')."""
        total = fused_dendrites(self, frames)  # all that follows by one kernel, or None
        if total is not None:
            return total
        potentials = dendrite_potentials(self, frames)
        for norm, x in zip(self.dendritic_norms, potentials, strict=True):
            x = self.normalise(x, norm)
            x = self.spike(x)
            x = x if self.linear_dendrites else x.relu()
            total = x if total is None else total + x
        assert total is not None
        return total

    def as_frames(self, image: Tensor) -> Tensor:
        """Repeats a still image (B, C, H, W) over the time steps; leaves frames (B, C, T, H, W)."""
        check_floats("image", image)
        if image.dim() not in (4, 5) or image.shape[1] != self.in_channels or 0 in image.shape[2:]:
            raise ValueError(
                f"image has shape {tuple(image.shape)}; expected (batch, {self.in_channels} "
                "channels, height, width) or (batch, channels, time_steps, height, width)"
            )
        if image.dim() == 5:
            return image
        return image.unsqueeze(2).expand(-1, -1, self.time_steps, -1, -1)

    def normalise(self, potential: Tensor, norm: nn.Module) -> Tensor:
        """Batch-normalises each unit of (B, U, T, H', W') over batch, steps and positions."""
        if isinstance(norm, nn.Identity):
            return potential
        if getattr(norm, "per_step", False):
            return norm(potential)
        steps_first = potential.transpose(1, 2)
        normal: Tensor = norm(steps_first.flatten(0, 1))
        return normal.unflatten(0, steps_first.shape[:2]).transpose(1, 2)

    def rest(self, potential: Tensor) -> Tensor:
        """Adds the soma's resting potential, which a norm's shift replaces."""
        if self.bias is None:
            return potential
        return add_bias(potential, self.bias[:, None, None, None])

    @property
    def window(self) -> PatchWindow:
        return PatchWindow(self.kernel_size, self.stride, self.padding, self.dilation)

    def kernel(self) -> Tensor:
        """Returns a Conv3d's filters (U, C / conv_groups, K_T, K_H, K_W), zero off the wiring."""
        if self.channels is None:
            return self.weight
        return wired_kernel(self.weight, self.channels, self.in_channels)

    @property
    def conv_groups(self) -> int:
        """Groups of the convolution: 1 where filters are spread over all channels by zeros."""
        return self.groups if self.time_steps == 1 and self.channels is None else 1

    def closed_form(self, image: torch.Size) -> tuple[Cost, ...]:
        """Returns one row for each stage, in evaluation; the convolution includes its bias."""
        return image_layer_costs(self, image)

    def trace_axons(self, layer: Callable[..., Tensor], image: Tensor) -> Tensor:
        """States which values each unit reads; see `neuroconv.flops.count_axons`."""
        rate = trace_image_layer(self, self.as_frames(image))
        return rate.squeeze(2) if image.dim() == 4 and self.time_steps == 1 else rate

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}, "
            f"time_steps={self.time_steps}, wiring={self.wiring!r}"
        )


def trace_image_layer(layer: Any, frames: Tensor) -> Tensor:
    """Convolves every frame alone: over the steps a unit reads at all positions of its patch."""
    window, kernel = layer.window, layer.kernel()[:, :, :1]
    top, bottom, left, right = window.padding
    stride, dilation = (1, *window.stride), (1, *window.dilation)
    frames = F.pad(frames, (left, right, top, bottom))
    return F.conv3d(frames, kernel, None, stride, 0, dilation, layer.conv_groups)


def wired_kernel(weight: Tensor, channels: Tensor, in_channels: int) -> Tensor:
    """Spreads (U, fan_in, K_T, K_H, K_W) filters over all channels, zero off the wiring."""
    units, _, *taps = weight.shape
    kernel = weight.new_zeros(units, in_channels, *taps)
    index = channels[:, :, None, None, :].expand_as(weight)
    return kernel.scatter(1, index, weight)
