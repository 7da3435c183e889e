"""The choice of kernels for the stages of an image layer.

`GranuleConv2d` is the definition. It calls `fused_dendrites` and `fused_somata`, which compute the
same numbers with several stages at once, or return None.

Shapes: B batch, C channels, U units, T time steps, H x W positions; D dendrites; H' x W' output
positions, M = W' * B * H'.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.autocast import autocast_dtype, without_autocast
from neuroconv.core.counting import is_counting, is_watched
from neuroconv.kernels import native
from neuroconv.kernels.claw import claw_sum
from neuroconv.kernels.claw_maps import claw_maps
from neuroconv.kernels.column_convs import channel_convs, column_convs, fold_time
from neuroconv.kernels.columns import columns_sum
from neuroconv.kernels.maps_sum import MOST_TAPS, maps_sum, runs
from neuroconv.kernels.native.image import ImageSizes
from neuroconv.kernels.norms import normalised, norms_agree
from neuroconv.kernels.operator import (
    kernel_stage,
    kernels_enabled,
    needs_reference,
    refuse_batch_statistics,
)
from neuroconv.kernels.patch_sum import fits, patch_sum
from neuroconv.kernels.patches import ColumnLayout, dendrite_maps
from neuroconv.kernels.soma import as_before, soma_rate, steps_first


def fused_dendrites(layer: Any, frames: Tensor) -> Tensor | None:
    """Computes the summed rates (B, U, T, H', W') of a `neurons.GranuleConv2d`'s dendrites, norms
    included, from frames (B, C, T, H, W), or None where the stages have to run one by one."""
    refuse_batch_statistics(layer)
    norms = present_norms(layer.dendritic_norms)
    if not (_fuses_dendrites(layer) and (_on_cuda(frames) or _runs_here(frames))):
        return None
    if reads_channels(layer) and (is_counting() or native.runs(frames, layer.weight)):
        return _channel_sum(layer, frames, norms)
    if layer.time_steps == 1:  # every step is an independent image
        images = frames.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        if (total := _fused(layer, images, norms)) is None:
            return None
        return total.squeeze(2).unflatten(0, (-1, frames.shape[2])).transpose(1, 2)
    return _fused(layer, frames, norms)


def _fused(layer: Any, frames: Tensor, norms: list[nn.Module]) -> Tensor | None:
    """Computes `fused_dendrites` of frames with the layer's steps, units innermost in memory."""
    if _on_cuda(frames):
        return _maps_sum(layer, frames, norms)
    window, steps, units = layer.window, int(frames.shape[2]), layer.out_channels
    rows_out, columns_out = window.output_size(int(frames.shape[3]), int(frames.shape[4]))
    (branches, width), (row_stride, stride) = window.kernel, window.stride
    row_step = row_stride if branches == 1 else 1
    layout = ColumnLayout(window.padding, width, window.dilation[1], stride, columns_out, row_step)
    inputs, outputs = branches * steps * layer.in_channels, steps * units
    adjoining = layer.conv_groups == 1 and (branches == 1 or window.dilation[0] == 1)
    if adjoining and not is_counting() and fits(frames, layer.weight, inputs, outputs):
        sizes = ImageSizes(
            frames.shape[0], rows_out, columns_out, branches, row_stride // row_step, steps,
            layer.in_channels, units,
        )  # fmt: skip
        taps = fold_time(layer.kernel(), steps)
        weight = taps.permute(3, 2, 1, 0).flatten(1, 2)  # (D, K, T * U)
        summing = partial(patch_sum, frames, weight, layout, sizes, layer.linear_dendrites)
        total = normalised(norms, summing, sizes.positions * steps, layer.dendritic_bias)
    elif torch.compiler.is_compiling():  # which fuses plain operators
        return None
    else:
        total = _column_sum(layer, frames, layout, norms)
    maps = total.view(steps, columns_out, frames.shape[0], -1, units)
    return maps.permute(2, 4, 0, 3, 1)


def _channel_sum(layer: Any, frames: Tensor, norms: list[nn.Module]) -> Tensor:
    """Computes `fused_dendrites` of dendrites that read one channel each."""
    window, linear = layer.window, layer.linear_dendrites
    samples, _, steps, height, width = frames.shape
    rows_out, columns_out = window.output_size(height, width)
    units = layer.out_channels
    if is_counting():
        columns = [
            x.permute(4, 0, 3, 2, 1).reshape(-1, steps * units)
            for x in dendrite_potentials(layer, frames)
        ]
        total = _rates(columns, units, norms, linear)
    else:
        operands = (frames, layer.weight.squeeze(1), layer.channels.squeeze(1), window, linear)
        count = samples * steps * rows_out * columns_out
        total = normalised(norms, partial(claw_sum, *operands), count, layer.dendritic_bias)
    maps = total.view(steps, columns_out, samples, rows_out, units)
    return maps.permute(2, 4, 0, 3, 1)


def dendrite_potentials(layer: Any, frames: Tensor) -> Iterator[Tensor]:
    """Yields the potentials of all units, (B, U, T, H', W'), one dendrite after another."""
    bias, window = layer.dendritic_bias, layer.window
    if is_counting() and reads_channels(layer):  # as `claw_sum` does, which no tracer sees
        weight, channels = layer.weight.squeeze(1), layer.channels.squeeze(1)
        return channel_convs(frames, weight, channels, bias, window)
    return column_convs(frames, layer.kernel(), bias, window, layer.conv_groups)


def _column_sum(layer: Any, frames: Tensor, layout: ColumnLayout, norms: list[nn.Module]) -> Tensor:
    """Runs a convolution of the maps that each dendrite reads, without copies, (T, M, U)."""
    window, steps, units = layer.window, frames.shape[2], layer.out_channels
    taps = fold_time(layer.kernel(), steps).transpose(2, 3)
    row_stride = 1 if window.kernel[0] == 1 else window.stride[0]  # else left out before
    columns = []
    for dendrite, maps in enumerate(dendrite_maps(frames, layout)):
        bias = layer.dendritic_bias
        potential = F.conv2d(
            maps, taps[:, :, dendrite : dendrite + 1],
            None if bias is None else bias[dendrite].repeat(steps),
            stride=(1, row_stride), dilation=(1, window.dilation[0]), groups=layer.conv_groups,
        )  # fmt: skip
        # Convolutions on meta ignore the layout, so the columns are reshaped as they are.
        if not frames.is_meta:
            potential = potential.permute(0, 2, 3, 1)
        columns.append(potential.reshape(-1, steps * units))
    return _rates(columns, units, norms, layer.linear_dendrites)


def _maps_sum(layer: Any, frames: Tensor, norms: list[nn.Module]) -> Tensor:
    """Runs Triton kernels on the dendrites' maps."""
    window, steps, units = layer.window, int(frames.shape[2]), layer.out_channels
    columns_out = window.output_size(int(frames.shape[3]), int(frames.shape[4]))[1]
    dtype, linear = autocast_dtype(frames) or frames.dtype, layer.linear_dendrites
    with without_autocast(frames):
        # In the order in which these kernels write, nothing is copied.
        rows = frames.permute(0, 3, 4, 2, 1).to(dtype, memory_format=torch.contiguous_format)
        if _read_one_channel(layer):
            weight, starts = layer.weight.squeeze(1).float(), [0] * window.kernel[1]
            maps = [claw_maps(rows, weight, layer.channels, window).flatten(3)]
        else:
            maps, starts = _shared_maps(layer, rows, columns_out)
        summing = partial(maps_sum, maps, None, starts, columns_out, units, linear)
        values = maps[0].shape[0] * maps[0].shape[1] * columns_out * steps
        total = normalised(norms, summing, values, layer.dendritic_bias)
    return total.unflatten(3, (steps, units)).permute(0, 4, 3, 1, 2)


def _shared_maps(layer: Any, rows: Tensor, columns_out: int) -> tuple[list[Tensor], list[int]]:
    """Runs one convolution for the dendrites that share a map, from rows (B, H, W, T, C), and
    returns where each dendrite's columns start."""
    window, groups, (top, bottom, *_) = layer.window, layer.conv_groups, layer.window.padding
    slices, starts = window.maps(int(rows.shape[2]), columns_out, groups)
    images = rows.flatten(3).permute(0, 3, 1, 2)
    images = images if top == bottom else F.pad(images, (0, 0, top, bottom))
    taps = fold_time(layer.kernel(), rows.shape[3]).to(rows.dtype).permute(3, 0, 1, 2).unsqueeze(4)
    maps = []
    for columns, filters in zip(slices, taps.split(len(starts) // len(slices)), strict=True):
        potential = F.conv2d(
            images[..., columns].contiguous(memory_format=torch.channels_last),
            filters.flatten(0, 1), stride=(window.stride[0], 1),
            padding=(top if top == bottom else 0, 0), dilation=(window.dilation[0], 1),
            groups=groups,
        )  # fmt: skip
        maps.append(potential.permute(0, 2, 3, 1).contiguous())
    return maps, starts


def _rates(
    columns: list[Tensor], units: int, norms: list[nn.Module], linear: bool, bias: Any = None
) -> Tensor:
    summing = partial(columns_sum, columns, units, linear)
    return normalised(norms, summing, columns[0].numel() // units, bias)


def fused_somata(layer: Any, current: Tensor) -> Tensor | None:
    """Computes firing rates from summed currents (B, U, T, H', W') by the soma's filter, norm or
    resting potential, and rectifier in one, or None where they have to run one by one."""
    norms = present_norms([layer.soma_norm])
    kinds = [kernel_stage(stage) for stage in (layer.soma, layer.firing)]
    if kinds[1] != "firing_rate" or is_watched(layer.firing) or not norms_agree(norms):
        return None
    filters = kinds[0] == "soma_filter" and not is_watched(layer.soma)
    if _on_cuda(current):
        in_order = current.permute(0, 3, 4, 2, 1).is_contiguous()
        if filters and in_order and len(layer.soma.weight) <= MOST_TAPS:
            return _rectified(layer, current, norms, layer.soma.weight)
        return _rectified(layer, layer.soma(current), norms)
    if torch.compiler.is_compiling() or not _runs_here(current):
        return None
    units, maps = layer.out_channels, steps_first(current)
    if maps is None or not filters or is_counting() or not native.runs(current, layer.soma.weight):
        return _rectified(layer, layer.soma(current), norms)
    summing = partial(soma_rate, maps.flatten(1), layer.soma.weight, units, False)
    rate = normalised(norms, summing, maps.numel() // units, _bias(layer))
    return as_before(rate.view_as(maps), current)


def _rectified(
    layer: Any, potential: Tensor, norms: list[nn.Module], taps: Tensor | None = None
) -> Tensor:
    """Normalises and rectifies filtered currents (B, U, T, H', W') like dendrites, on CUDA also
    currents (B, H', W', T, U) in memory, that taps filter."""
    # Units innermost, the other axes in their order in memory.
    order = [*(axis for axis in potential.dim_order() if axis != 1), 1]
    order = order if taps is None else [0, 3, 4, 2, 1]
    positions, units = potential.permute(order), layer.out_channels
    if _on_cuda(potential):
        size = units if taps is None else potential.shape[2] * units
        maps = positions.reshape(1, 1, -1, size)
        summing = partial(maps_sum, [maps], taps, [0], maps.shape[2], units, False)
        rate = normalised(norms, summing, maps.numel() // units, _bias(layer))
    else:
        rate = _rates([positions.reshape(-1, units)], units, norms, False, _bias(layer))
    return rate.view(positions.shape).permute([order.index(axis) for axis in range(5)])


def _bias(layer: Any) -> Tensor | None:
    """Returns the somata's resting potentials, (1, U)."""
    return None if layer.bias is None else layer.bias.unsqueeze(0)


def present_norms(norms: Iterable[nn.Module]) -> list[nn.Module]:
    """Returns the norms that are not absent, which nn.Identity stands for."""
    return [norm for norm in norms if type(norm) is not nn.Identity]


def norms_fused(layer: Any) -> bool:
    """Returns whether a layer's norms run fused, judged by its weights alone."""
    norms = present_norms([*layer.dendritic_norms, layer.soma_norm])
    return _runs_here(layer.weight) and norms_agree(norms)


def _on_cuda(maps: Tensor) -> bool:
    """Returns whether Triton kernels run norms, rectifiers and sums, in autocast's precision."""
    return kernels_enabled() and runs(maps, autocast_dtype(maps) or maps.dtype)


def reads_channels(layer: Any) -> bool:
    """Returns whether a layer's dendrites read one channel each, and run without the zeros of a
    dense kernel, judged by its weights alone.

    On the CPU both passes take as long as the dense kernels' with two channels, 0.6 times as long
    with eight and 0.3 times with 24, for one image as for a batch; on CUDA nothing is measured.
    """
    fused = _is_precise(layer.weight) and _fuses_dendrites(layer)
    return fused and _read_one_channel(layer)


def _read_one_channel(layer: Any) -> bool:
    return layer.channels is not None and layer.channels.shape[1] == 1


def _fuses_dendrites(layer: Any) -> bool:
    """Returns whether nothing but norms that run as one stands before a layer's rectifiers."""
    plain = type(layer.spike) is nn.Identity and not is_watched(layer.spike)
    return plain and norms_agree(present_norms(layer.dendritic_norms))


def _runs_here(maps: Tensor) -> bool:
    """Returns whether operators of the CPU run norms, rectifiers and sums: in full precision."""
    device = maps.device.type in ("cpu", "meta") and 0 not in maps.shape
    return device and _is_precise(maps) and not needs_reference()


def _is_precise(maps: Tensor) -> bool:
    """Returns whether kernels may run, and in full precision."""
    dtypes = (torch.float32, torch.float64)
    return kernels_enabled() and maps.dtype in dtypes and autocast_dtype(maps) is None
