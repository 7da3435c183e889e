"""The potentials of dendrites that read one channel each, on CUDA by Triton kernels, which read no
other channel. `kernels.maps_sum` sums their rates. No GPU has run them yet.

Shapes: B batch, C channels, T time steps, H x W positions; U units, K_T time taps, K_H branches and
D dendrites of each; H' x W' positions come out. Frames lie in the order (B, H, W, T, C).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuroconv.kernels import cuda
from neuroconv.kernels.claw import packed, unpacked
from neuroconv.kernels.column_convs import channel_convs
from neuroconv.kernels.cuda.launch import Kernel
from neuroconv.kernels.operator import Operator, empty_grads, or_empty
from neuroconv.kernels.patch_window import PatchWindow

_MAPS, _TAP = Kernel("claw", "maps_kernel"), Kernel("claw", "tap_gradient_kernel")
_FRAME = Kernel("claw", "frame_gradient_kernel")
_TILE = 1024  # numbers of a tile
_PARTS = 512  # of the positions, most, that a sum is split into


def claw_maps(frames: Tensor, weight: Tensor, channels: Tensor, window: PatchWindow) -> Tensor:
    """Returns potentials (B, H', W', D, T, U), in the precision of the frames.

    Args:
        frames: (B, H, W, T, C), contiguous, float32 or bfloat16.
        weight: (U, K_T, K_H, D), float32.
        channels: that each dendrite reads, (U, 1, D), contiguous.
    """
    return _claw_maps(frames, weight, channels, packed(window))


class _Call:
    """The operator's arguments, and launches on them."""

    def __init__(
        self, frames: Tensor, weight: Tensor, channels: Tensor, sizes: Sequence[int]
    ) -> None:
        samples, height, width, steps, maps = frames.shape
        window, (units, _, _, dendrites) = unpacked(sizes), weight.shape
        rows, columns = window.output_size(height, width)
        self.frames, self.weight = frames.contiguous(), weight.contiguous()
        self.channels, self.positions = channels, samples * rows * columns
        self.shape = (samples, rows, columns, dendrites, steps, units)
        self.sizes = (
            steps, maps, height, width, *weight.shape, rows, columns, *window.stride,
            *window.dilation, window.padding[0], window.padding[2],
        )  # fmt: skip

    def launch(self, kernel: Kernel, tiles: int, lanes: int, depth: int, *arguments: Any) -> None:
        """Launches for tiles, blocks of units or channels, and dendrites, taps or steps."""
        wide = self.wide(lanes)
        kernel.launch(
            (tiles, -(-lanes // wide), depth), *arguments, SIZES=self.sizes, TILE=_TILE // wide,
            LANES=wide,
        )  # fmt: skip

    def wide(self, lanes: int) -> int:
        """Returns the units or channels of a tile."""
        return min(16, cuda.power(lanes))

    def tiles(self, positions: int, lanes: int) -> int:
        return -(-positions // (_TILE // self.wide(lanes)))


def _reference(frames: Tensor, weight: Tensor, channels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Runs torch's depthwise convolutions."""
    maps, window = frames.permute(0, 4, 3, 1, 2), unpacked(sizes)
    convs = channel_convs(maps.to(weight.dtype), weight, channels.squeeze(1), None, window)
    return torch.stack([x.permute(0, 3, 4, 2, 1) for x in convs], 3).to(frames.dtype)


def _run(*arguments: Any) -> Tensor:
    call = _Call(*arguments)
    *_, dendrites, steps, units = call.shape
    maps = call.frames.new_empty(call.shape)
    call.launch(
        _MAPS, call.tiles(call.positions, units), units, dendrites * steps, call.frames,
        call.weight, call.channels, maps, call.positions,
    )  # fmt: skip
    return maps


def _run_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    call, needs = _Call(*arguments[:4]), arguments[4]
    frames, weight, grad = call.frames, call.weight, grad.contiguous()
    units, taps, branches, dendrites = weight.shape
    samples, height, width, steps, maps = frames.shape
    to_frames = to_weight = None
    if needs[1]:
        tiles = call.tiles(call.positions, units)
        share = -(-tiles // _PARTS)  # of a program
        parts = -(-tiles // share)
        partial = weight.new_empty(parts, *weight.shape)
        call.launch(
            _TAP, parts, units, dendrites * branches * taps, frames, call.channels, grad,
            partial, call.positions, share,
        )  # fmt: skip
        to_weight = partial.sum(0)
    if needs[0]:
        to_frames, pixels = torch.empty_like(frames), samples * height * width
        call.launch(
            _FRAME, call.tiles(pixels, maps), maps, steps, grad, weight,
            *cuda.listeners(call.channels, maps), to_frames, pixels,
        )  # fmt: skip
    return or_empty(grad, to_frames, to_weight)


_SCHEMA = "Tensor frames, Tensor weight, Tensor channels, int[] sizes"
_claw_maps = Operator(
    f"claw_maps({_SCHEMA}) -> Tensor",
    None, fake=lambda *arguments: arguments[0].new_empty(_Call(*arguments).shape),
    cpu=_run, cuda=_run,
)  # fmt: skip
_claw_maps_backward = Operator(
    f"claw_maps_backward(Tensor grad, {_SCHEMA}, bool[] needs) -> (Tensor, Tensor)", None,
    fake=lambda grad, *arguments: empty_grads(grad, arguments[:2], arguments[4]),
    cpu=_run_backward, cuda=_run_backward,
)  # fmt: skip
_claw_maps.register_gradient(
    lambda grad, arguments, _, needs: _claw_maps_backward(grad, *arguments, list(needs[:2])),
    _reference,
)
