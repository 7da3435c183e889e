"""The convolutions of an image layer: one for each dendrite, which is a column of the patch.

Shapes: B batch, C channels, U units, T time steps, H x W positions, H' x W' of the output; K_T,
K_H, K_W the filter's time steps, branches and dendrites.
"""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels.operator import kernels_enabled
from neuroconv.kernels.patch_window import PatchWindow
from neuroconv.kernels.soma import causal_matrix


def column_convs(
    frames: Tensor, kernel: Tensor, bias: Tensor | None, window: PatchWindow, groups: int
) -> Iterator[Tensor]:
    """Yields the potentials of all units, (B, U, T, H', W'), one dendrite after another.

    Args:
        frames: (B, C, T, H, W).
        kernel: causal filters (U, C / groups, K_T, K_H, K_W).
        bias: (K_W, U), or None.
    """
    if not kernels_enabled():
        yield from _by_definition(frames, kernel, bias, window, groups)
        return
    steps = frames.shape[2]
    static = kernel.shape[2] == 1  # every step is an independent image
    maps = frames.transpose(1, 2)
    # Otherwise time becomes channels of a 2-D convolution: several times faster than conv3d.
    maps = maps.flatten(0, 1) if static else maps.flatten(1, 2)
    taps = fold_time(kernel, 1 if static else steps)
    for dendrite, columns in enumerate(_columns(maps, window)):
        rest = None if bias is None else bias[dendrite].repeat(1 if static else steps)
        potential = F.conv2d(
            columns, taps[..., dendrite : dendrite + 1], rest,
            stride=window.stride, dilation=(window.dilation[0], 1), groups=groups,
        )  # fmt: skip
        split = (
            potential.unflatten(0, (-1, steps)) if static else potential.unflatten(1, (steps, -1))
        )
        yield split.transpose(1, 2)


def channel_convs(
    frames: Tensor, weight: Tensor, channels: Tensor, bias: Tensor | None, window: PatchWindow
) -> Iterator[Tensor]:
    """Yields what `column_convs` yields, where each dendrite reads one channel: without products
    with zeros off the wiring.

    Args:
        weight: (U, K_T, K_H, K_W).
        channels: that each dendrite reads, (U, K_W).
    """
    units, k_time = weight.shape[:2]
    padded = F.pad(frames, (0, 0, 0, 0, k_time - 1, 0))
    for dendrite, columns in enumerate(_columns(padded, window)):
        maps = columns[..., :: window.stride[1]].index_select(1, channels[:, dendrite])
        images = maps.permute(0, 4, 1, 2, 3).flatten(0, 1)  # over time and rows
        potential = F.conv2d(
            images, weight[:, None, ..., dendrite], None if bias is None else bias[dendrite],
            stride=(1, window.stride[0]), dilation=(1, window.dilation[0]), groups=units,
        )  # fmt: skip
        yield potential.unflatten(0, (-1, maps.shape[4])).permute(0, 2, 3, 4, 1)


def _by_definition(
    frames: Tensor, kernel: Tensor, bias: Tensor | None, window: PatchWindow, groups: int
) -> Iterator[Tensor]:
    """Runs a causal conv3d for each column."""
    padded = F.pad(frames, (0, 0, 0, 0, kernel.shape[2] - 1, 0))
    for dendrite, columns in enumerate(_columns(padded, window)):
        yield F.conv3d(
            columns, kernel[..., dendrite : dendrite + 1],
            None if bias is None else bias[dendrite],
            stride=(1, *window.stride), dilation=(1, window.dilation[0], 1), groups=groups,
        )  # fmt: skip


def _columns(maps: Tensor, window: PatchWindow) -> Iterator[Tensor]:
    """Returns the columns (..., H*, span) of padded maps that each dendrite reads."""
    columns_out = window.output_size(maps.shape[-2], maps.shape[-1])[1]
    top, bottom, left, right = window.padding
    padded = F.pad(maps, (left, right, top, bottom))
    span = window.stride[1] * (columns_out - 1) + 1
    return (padded[..., first : first + span] for first in window.first_columns)


def fold_time(kernel: Tensor, steps: int) -> Tensor:
    """Expands taps (U, C, K_T, K_H, K_W) to weights (T * U, T * C, K_H, K_W) of a 2-D convolution.

    Output step t of a unit reads the input steps up to t with the taps of their lags.
    """
    if kernel.shape[2] == 1 and steps == 1:
        return kernel.squeeze(2)
    causal = causal_matrix(kernel.movedim(2, 0), steps)  # (T out, T in, U, C, K_H, K_W)
    return causal.transpose(1, 2).flatten(2, 3).flatten(0, 1)
