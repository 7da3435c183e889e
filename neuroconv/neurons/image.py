"""Granule cells as an image layer, under nn.Conv2d's contract.

Shapes: B batch, C channels in, U units (channels out), T time steps, K_T the filter's time steps,
K_H x K_W the patch: its columns are the K_W dendrites, its rows the K_H branches of each.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.autocast import autocast_dtype
from neuroconv.core.checks import NORMS, Norm, check_choice, check_positive, pair
from neuroconv.core.cost import Cost
from neuroconv.core.counting import is_watched
from neuroconv.core.renamed import IMAGE_LAYER, renamed
from neuroconv.kernels import native, patch_sum
from neuroconv.kernels.columns import SCALE_FLOPS, joins, norm_sum, normed, rectified_sum
from neuroconv.kernels.patches import Reading, dendrite_maps
from neuroconv.kernels.soma_cpu import soma_stage
from neuroconv.layers.soma import FiringRate, SomaFilter, as_it_lay, causal_matrix, steps_first
from neuroconv.layers.spike import DendriticSpike
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.threshold import ThresholdNorm
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.layers.wiring import Random
from neuroconv.neurons.stages import (
    Output,
    Table,
    build_output,
    build_soma,
    build_spike,
    build_summation,
    is_absent,
)
from neuroconv.neurons.state import REST, NeuronState, after, last

ImageWiring = Literal["dense", "claw"]


class GranuleConv2d(nn.Module):
    """nn.Conv2d whose every unit is a granule cell.

    The columns of a unit's patch are its dendrites. Each dendrite filters its own column in space
    and time and is rectified; the soma sums the dendrites, filters the sum in time, and is
    rectified again. Without the dendritic rectifier the unit would be a Conv3d.

    As in `Population`, a stage may be given as an object or as the plain table of its arguments.

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

    **Other arguments:**
        threshold: what comes in is normalised, channel by channel, and held between rest and this
            threshold, in standard deviations; None leaves it as it is.
        spike: the dendritic spike, a `DendriticSpike` among the neighbouring units of a column;
            None has none.
        linear_dendrites: leave the dendritic rectifier out: the control. (A population's `rate`
            also says how a dendrite's sites are reduced; a unit has one site for each dendrite.)
        summation: how the dendrites' rates sum: the name of a law ("linear", "sublinear",
            "supralinear", "bistable"), or a `DendriticSummation`.
        soma: a `SomaFilter`; default of `time_steps`. One time step has no memory, and no filter.
        output: what the axon carries; default Poisson dropout that is off, as image layers go.
            Every position of a map is a cell and waits for itself.
        seed: of the claw wiring.

    Shape:
        (B, C, H, W) -> (B, U, H', W') with time_steps=1, H' and W' as nn.Conv2d's;
        (B, C, T, H, W) -> (B, U, T, H', W'). Still images (B, C, H, W) in a layer of more time
        steps are taken as constant over its window. Unlike nn.Conv2d it takes no unbatched image.

    Raises:
        ValueError: sizes that are not positive, channels that groups do not divide, or a patch
            larger than the padded image.
    """

    channels: Tensor | None

    @renamed(IMAGE_LAYER)
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = (3, 4),
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | Literal["same", "valid"] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        time_steps: int = 5,
        wiring: ImageWiring = "dense",
        norm: Norm = "none",
        threshold: float | None = None,
        spike: DendriticSpike | Table | None = None,
        linear_dendrites: bool = False,
        summation: DendriticSummation | Table | str = "linear",
        soma: SomaFilter | Table | None = None,
        output: Output | Table | str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.kernel_size = pair("kernel_size", kernel_size)
        self.stride = pair("stride", stride)
        self.dilation = pair("dilation", dilation)
        check_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=self.kernel_size,
            stride=self.stride,
            dilation=self.dilation,
            groups=groups,
            time_steps=time_steps,
        )
        check_choice("wiring", wiring, ("dense", "claw"))
        check_choice("norm", norm, NORMS)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups={groups} does not divide in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.time_steps, self.wiring = time_steps, wiring
        self.padding = _padding(padding, self.kernel_size, self.stride, self.dilation)
        height, width = self.kernel_size
        heard = 1 if wiring == "claw" else in_channels // groups
        self.weight = nn.Parameter(torch.empty(out_channels, heard, time_steps, height, width))
        self.register_buffer("channels", self._channels(heard, seed), persistent=False)
        self.threshold_norm = (
            nn.Identity() if threshold is None else ThresholdNorm(in_channels, threshold)
        )
        at_dendrites, at_soma = norm in ("dendrites", "both"), norm in ("soma", "both")
        self.dendritic_norms = (
            nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in range(width))
            if at_dendrites
            else None
        )
        self.dendritic_bias = (
            nn.Parameter(torch.empty(width, out_channels)) if bias and not at_dendrites else None
        )
        self.spike, self.linear_dendrites = build_spike(spike), linear_dendrites
        self.summation = build_summation(summation)
        memory = build_soma(soma, time_steps)
        if memory.neurons is not None:
            raise ValueError(f"soma={memory}; units share one filter over a map: leave neurons out")
        self.soma_time_steps = memory.time_steps
        self.soma = memory if memory.time_steps > 1 else nn.Identity()
        self.soma_norm = nn.BatchNorm2d(out_channels) if at_soma else nn.Identity()
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias and not at_soma else None
        self.firing = FiringRate()
        self.output = build_output(output, 0.0, scope="unit")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He's initialisation over one dendrite's taps; biases start at zero."""
        fan_in = self.weight[0, ..., 0].numel()
        nn.init.normal_(self.weight, std=math.sqrt(2 / fan_in))
        for bias in (self.dendritic_bias, self.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def _channels(self, heard: int, seed: int) -> Tensor | None:
        """The channels that each unit's dendrites read, (U, heard, K_W); None for all of them."""
        units, width = self.out_channels, self.kernel_size[1]
        in_group = self.in_channels // self.groups
        if heard == self.in_channels or (self._natural_groups and self.wiring == "dense"):
            return None
        if self.wiring == "claw":
            local = Random(True, seed).axons(in_group, units, TreeShape((1, width)))[:, None]
        else:
            local = torch.arange(in_group)[None, :, None].expand(units, -1, width)
        first = torch.arange(units) // (units // self.groups) * in_group
        return local + first[:, None, None]

    @property
    def _natural_groups(self) -> bool:
        """Without folded time steps groups run as convolution groups."""
        return self.time_steps == 1

    @property
    def _ungrouped(self) -> bool:
        """Whether every unit's filter is over all channels, if by zeros."""
        return self.groups == 1 or not self._natural_groups or self.channels is not None

    def kernel(self) -> Tensor:
        """The filters as a Conv3d of the same groups would hold them, zero off the wiring.

        (U, C, K_T, K_H, K_W); with time_steps=1 and dense wiring (U, C / groups, 1, K_H, K_W).
        """
        if self.channels is None:
            return self.weight
        return wired_kernel(self.weight, self.channels, self.in_channels)

    def forward(self, image: Tensor) -> Tensor:
        still = image.dim() == 4
        if image.dim() not in (4, 5) or image.shape[1] != self.in_channels or 0 in image.shape[2:]:
            raise ValueError(
                f"image has shape {tuple(image.shape)}; expected (batch, {self.in_channels} "
                "channels, height, width) or (batch, channels, time_steps, height, width)"
            )
        if still:
            image = image.unsqueeze(2).expand(-1, -1, self.time_steps, -1, -1)
        rate: Tensor = self.output(self._fired(image, REST)[0])
        return rate.squeeze(2) if still and self.time_steps == 1 else rate

    def stream(self, frames: Tensor, state: NeuronState = REST) -> tuple[Tensor, NeuronState]:
        """Runs over a stretch of any number of steps; a window is a stretch that starts at rest.

        In evaluation, stretch after stretch gives what the whole window gives at once.

        Args:
            frames: (B, C, T, H, W).
            state: what the stretch before returned; by default the neurons are at rest.

        Returns:
            rate (B, U, T, H', W'), and the state after it.
        """
        rate, state = self._fired(frames, state)
        rate, waiting = self.output.stream(rate, state.output)
        return rate, state._replace(output=waiting)

    def _fired(self, frames: Tensor, state: NeuronState) -> tuple[Tensor, NeuronState]:
        """As `stream`, before the output stage."""
        steps = frames.shape[2]
        frames, lingering = after(state.sheet, self.threshold_norm(frames), self.time_steps)
        current = self.summation.law_of(last(steps, self._dendrites(frames)))
        current, memory = after(state.current, current, self.soma_time_steps)
        rate = self._somatic(current, steps)
        return rate, NeuronState(lingering, memory, state.output)

    def _somatic(self, current: Tensor, steps: int) -> Tensor:
        """The rates of the last `steps`, (B, U, T, H', W'), of summed currents."""
        soma, norm, units = self.soma, self.soma_norm, self.out_channels
        lying = steps_first(current)
        if (
            not isinstance(soma, SomaFilter)
            or lying is None
            or current.shape[2] > steps
            or not self._joins_soma(current)
            or not native.takes(current, soma.weight)
        ):
            return self._rate(last(steps, soma(current)))
        rows, taps = lying.flatten(1), soma.weight

        def summing(
            gain: Tensor | None, shift: Tensor | None, eps: float | None
        ) -> tuple[Tensor, Tensor, Tensor]:
            gain, shift = (None if one is None else one.squeeze(0) for one in (gain, shift))
            rate, mean, variance = soma_stage(rows, taps, units, gain, shift, eps)
            return rate, mean.unsqueeze(0), variance.unsqueeze(0)

        if is_absent(norm):
            shift = None if self.bias is None else self.bias.unsqueeze(0)
            rate = summing(None, shift, None)[0]
        else:
            rate = normed([norm], summing, rows.numel() // units)
        return as_it_lay(rate.view_as(lying), current)

    def _joins_soma(self, current: Tensor) -> bool:
        """Whether the soma's filter, norm and rectifier run as one stage."""
        norm, parts = self.soma_norm, (self.soma, self.firing)
        plain = type(self.soma) is SomaFilter and type(self.firing) is FiringRate
        whole = plain and not is_watched(*parts) and self._joins_columns(current)
        return whole and (is_absent(norm) or joins([norm]))

    def _rate(self, potential: Tensor) -> Tensor:
        """Norm or bias, and rectifier, of what the soma has filtered, (B, U, T, H', W')."""
        norm = self.soma_norm
        alone = type(self.firing) is FiringRate and not is_watched(self.firing)
        if alone and self._joins_columns(potential) and (is_absent(norm) or joins([norm])):
            # As one stage, like the dendrites': units innermost, other axes as they lie in memory.
            order = [*(axis for axis in potential.dim_order() if axis != 1), 1]
            places = potential.permute(order)
            rows = [places.reshape(-1, self.out_channels)]
            if is_absent(norm):
                shift = None if self.bias is None else self.bias.unsqueeze(0)
                rate = rectified_sum(rows, self.out_channels, shift=shift)
            else:
                rate = norm_sum([norm], rows)
            return rate.view(places.shape).permute([order.index(axis) for axis in range(5)])
        if not is_absent(norm):
            steps_first = potential.transpose(1, 2)
            normal = norm(steps_first.flatten(0, 1)).unflatten(0, steps_first.shape[:2])
            potential = normal.transpose(1, 2)
        if self.bias is not None:
            potential = potential + self.bias[:, None, None, None]
        return self.firing(potential)

    def _dendrites(self, frames: Tensor) -> Tensor:
        """The summed rates of all dendrites, (B, C, T, H, W) -> (B, U, T, H', W')."""
        batch, _, steps = frames.shape[:3]
        norms = None if self.dendritic_norms is None else list(self.dendritic_norms)
        joined = self._joins_columns(frames) and is_absent(self.spike)
        fire = self._fire_joined if joined and (norms is None or joins(norms)) else self._fire
        if self.time_steps == 1:  # steps do not meet: each is an image of its own
            images = frames.transpose(1, 2).flatten(0, 1).unsqueeze(2)
            return fire(images, norms).squeeze(2).unflatten(0, (batch, steps)).transpose(1, 2)
        return fire(frames, norms)

    def _joins_columns(self, maps: Tensor) -> bool:
        """Whether norm, rectifier and sum of the dendrites run as one stage (`kernels.columns`).

        So on the CPU. On other devices a compiler joins them (`torch.compile`), and a tracer or
        autocast has to see them one by one.
        """
        plain = maps.dtype in (torch.float32, torch.float64)
        looked_at = torch.jit.is_tracing() or torch.compiler.is_compiling()
        here = (maps.is_cpu or maps.is_meta) and maps.numel() > 0  # samples are rows of an image
        return here and plain and not looked_at and autocast_dtype(maps) is None

    def _fire(self, frames: Tensor, norms: list[nn.Module] | None) -> Tensor:
        """The summed rates of all dendrites: (B, C, T, H, W) -> (B, U, T, H', W')."""
        steps = frames.shape[2]
        # Time folds into the channels of a 2-D convolution: several times faster than conv3d.
        maps = frames.transpose(1, 2).flatten(1, 2)
        top, bottom, left, right = self.padding
        padded = F.pad(maps, (left, right, top, bottom))
        columns_out = self.output_size(maps.shape[2], maps.shape[3])[1]
        reach = self.stride[1] * (columns_out - 1) + 1
        starts = [dendrite * self.dilation[1] for dendrite in range(self.kernel_size[1])]
        read = [padded[..., start : start + reach] for start in starts]
        total: Tensor | None = None
        for dendrite, potential in enumerate(self._potentials(read, steps)):
            if norms is not None:
                flat = potential.unflatten(1, (steps, -1)).flatten(0, 1)
                potential = norms[dendrite](flat).view_as(potential)
            potential = self.spike(potential)
            rate = potential if self.linear_dendrites else potential.relu()
            total = rate if total is None else total + rate
        assert total is not None
        return total.unflatten(1, (steps, -1)).transpose(1, 2)

    def _fire_joined(self, frames: Tensor, norms: list[nn.Module] | None) -> Tensor:
        """The same, with norm, rectifier and sum as one stage; units innermost in memory."""
        steps = frames.shape[2]
        columns_out = self.output_size(frames.shape[3], frames.shape[4])[1]
        (branches, width), (row_stride, stride) = self.kernel_size, self.stride
        row_step = row_stride if branches == 1 else 1
        reading = Reading(self.padding, width, self.dilation[1], stride, columns_out, row_step)
        lying = (steps, columns_out, frames.shape[0], -1, self.out_channels)
        inputs, outputs = branches * steps * self.in_channels, steps * self.out_channels
        side_by_side = self._ungrouped and (branches == 1 or self.dilation[0] == 1)
        if side_by_side and patch_sum.fits(frames, self.weight, inputs, outputs):
            total = self._fire_native(frames, reading, norms)
            return total.view(lying).permute(2, 4, 0, 3, 1)
        read = dendrite_maps(frames, reading)
        # Convolutions on meta know no layout: there it is a view, as the CPU's is one.
        columns = [
            potential.view(-1, potential.shape[1])
            if frames.is_meta
            else potential.permute(0, 2, 3, 1).reshape(-1, potential.shape[1])
            for potential in self._potentials(read, steps, lying=True)
        ]
        if norms is None:
            total = rectified_sum(columns, self.out_channels, self.linear_dendrites)
        else:
            total = norm_sum(norms, columns, self.linear_dendrites)
        return total.view(lying).permute(2, 4, 0, 3, 1)

    def _fire_native(
        self, frames: Tensor, reading: Reading, norms: list[nn.Module] | None
    ) -> Tensor:
        """The same by the CPU's own kernels, (T, W' * B * H', U)."""
        weight = _fold_time(self.kernel(), frames.shape[2]).permute(3, 2, 1, 0).flatten(1, 2)
        rows, columns = self.output_size(frames.shape[3], frames.shape[4])
        row_stride = self.stride[0] if reading.row_step == 1 else 1
        sizes = native.ImageSizes(
            frames.shape[0], rows, columns, self.kernel_size[0], row_stride, frames.shape[2],
            self.in_channels, self.out_channels,
        )  # fmt: skip

        def summing(
            gain: Tensor | None, shift: Tensor | None, eps: float | None
        ) -> tuple[Tensor, Tensor, Tensor]:
            linear = self.linear_dendrites
            return patch_sum.patch_sum(frames, weight, gain, shift, reading, sizes, eps, linear)

        if norms is None:
            return summing(None, self.dendritic_bias, None)[0]
        return normed(norms, summing, sizes.places * sizes.steps)

    def _potentials(
        self, read: Sequence[Tensor], steps: int, lying: bool = False
    ) -> Iterator[Tensor]:
        """Of each dendrite, by one convolution of the maps that it reads.

        Shape:
            (B, T * C, H*, W*) -> (B, T * U, H', W'); `lying`, as `dendrite_maps` gives them,
            (1, T * C, W' * B, H*) -> (1, T * U, W' * B, H')
        """
        taps = _fold_time(self.kernel(), steps)
        stride, dilation = self.stride, (self.dilation[0], 1)
        if lying:
            taps = taps.transpose(2, 3)
            row_stride = 1 if self.kernel_size[0] == 1 else self.stride[0]  # else left out before
            stride, dilation = (1, row_stride), (1, self.dilation[0])
        groups = 1 if self._ungrouped else self.groups
        for dendrite, maps in enumerate(read):
            own = slice(dendrite, dendrite + 1)
            weight = taps[:, :, own] if lying else taps[..., own]
            bias = None
            if self.dendritic_bias is not None:
                bias = self.dendritic_bias[dendrite].repeat(steps)
            yield F.conv2d(maps, weight, bias, stride=stride, dilation=dilation, groups=groups)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(H', W') for an image of (H, W), by nn.Conv2d's rule.

        Raises:
            ValueError: the patch does not fit into the padded image.
        """
        top, bottom, left, right = self.padding
        sizes = []
        for size, pad, k, stride, dilation in zip(
            (height, width),
            (top + bottom, left + right),
            self.kernel_size,
            self.stride,
            self.dilation,
            strict=True,
        ):
            room = size + pad - dilation * (k - 1) - 1
            if room < 0:
                raise ValueError(
                    f"a patch of {self.kernel_size} with dilation {self.dilation} does not fit "
                    f"into an image of {height} x {width} with padding {self.padding}; enlarge "
                    "the image or the padding"
                )
            sizes.append(room // stride + 1)
        return sizes[0], sizes[1]

    def closed_form(self, image: torch.Size) -> tuple[Cost, ...]:
        """One row for each stage, in evaluation; the dendritic bias is part of the convolution.

        Args:
            image: (B, C, H, W) or (B, C, T, H, W).
        """
        batch, (height, width) = image[0], self.output_size(image[-2], image[-1])
        steps = image[2] if len(image) == 5 else self.time_steps
        units, heard, k_time, rows, columns = self.weight.shape
        neurons = units * height * width
        synapses = heard * rows * columns
        taps = synapses * k_time
        folded = 1 if self.time_steps == 1 else steps
        read = self.in_channels if self.channels is not None else heard
        maps = torch.Size((batch, units, steps, height, width))
        outputs = maps.numel()
        stages = [Cost("synapses", synapses=neurons * synapses)]
        if isinstance(self.threshold_norm, ThresholdNorm):
            came = torch.Size((batch, self.in_channels, steps, *image[-2:]))
            stages += self.threshold_norm.closed_form(came)
        stages.append(
            Cost(
                "dendrites",
                {"convolution": outputs * columns * read * rows * folded},
                neurons=neurons,
                essay=outputs * synapses * taps,
                direct=outputs * taps,
            )
        )
        normal = 0 if self.dendritic_norms is None else 2 * outputs * columns
        joined = self._states_joined()
        if joined and is_absent(self.spike) and self.dendritic_norms is not None:
            normal += SCALE_FLOPS * units * columns
        stages.append(Cost("dendritic potential", pointwise=normal))
        if isinstance(self.spike, DendriticSpike):
            (spike,) = self.spike.closed_form(maps)
            stages.append(replace(spike, pointwise=columns * spike.pointwise))
        rectified = 0 if self.linear_dendrites else outputs * columns
        stages.append(Cost("dendritic rate", pointwise=rectified))
        sums = outputs * (columns - 1) + self.summation.law_flops(outputs)
        stages.append(Cost("dendritic summation", pointwise=sums))
        if isinstance(self.soma, SomaFilter):
            stages += self.soma.closed_form(maps)
        added = 2 * (not is_absent(self.soma_norm)) + (self.bias is not None)
        scales = SCALE_FLOPS * units if joined and not is_absent(self.soma_norm) else 0
        stages.append(Cost("somatic potential", pointwise=added * outputs + scales))
        return (*stages, *self.firing.closed_form(maps), *self.output.closed_form(maps))

    def _states_joined(self) -> bool:
        """Whether norms run joined with what follows, by the weights alone."""
        somatic = [] if is_absent(self.soma_norm) else [self.soma_norm]
        norms = [*(self.dendritic_norms or []), *somatic]
        return self._joins_columns(self.weight) and joins(norms)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}, "
            f"time_steps={self.time_steps}, wiring={self.wiring!r}"
        )


def wired_kernel(weight: Tensor, channels: Tensor, in_channels: int) -> Tensor:
    """Spreads (U, heard, K_T, K_H, K_W) filters over all channels: zero where nothing is heard."""
    units, _, *taps = weight.shape
    kernel = weight.new_zeros(units, in_channels, *taps)
    index = channels[:, :, None, None, :].expand_as(weight)
    return kernel.scatter(1, index, weight)


def _fold_time(kernel: Tensor, steps: int) -> Tensor:
    """Taps (U, C, K_T, K_H, K_W) as weights (T * U, T * C, K_H, K_W) of a convolution in 2-D.

    Output step t of a unit reads the input steps up to t, each by the tap of its lag.
    """
    if kernel.shape[2] == 1 and steps == 1:
        return kernel.squeeze(2)
    causal = causal_matrix(kernel.movedim(2, 0), steps)  # (T out, T in, U, C, K_H, K_W)
    return causal.transpose(1, 2).flatten(2, 3).flatten(0, 1)


def _padding(
    padding: int | tuple[int, int] | str,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Zeros (top, bottom, left, right)."""
    if isinstance(padding, str):
        check_choice("padding", padding, ("same", "valid"))
        if padding == "valid":
            return (0, 0, 0, 0)
        if stride != (1, 1):
            raise ValueError(f"padding='same' needs stride 1; got stride={stride}")
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return (spans[0] // 2, spans[0] - spans[0] // 2, spans[1] // 2, spans[1] - spans[1] // 2)
    vertical, horizontal = pair("padding", padding)
    if vertical < 0 or horizontal < 0:
        raise ValueError(f"padding={padding!r}; expected zeros to add, 0 or more")
    return (vertical, vertical, horizontal, horizontal)
