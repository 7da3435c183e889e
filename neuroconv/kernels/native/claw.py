"""The kernels of image layers whose dendrites read one channel each, `claw.cpp`.

Shapes: as in `kernels.claw`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuroconv.kernels.native import call, memory, padded
from neuroconv.kernels.patch_window import PatchWindow

# Samples that lie innermost: enough for several vectors, few enough for planes to stay in a cache.
_BLOCK_SAMPLES = 32


class ClawLayer:
    """A layer's operands, its frames laid out in planes.

    Every pass takes the stage after the potentials: scale and offset, (D, U), and whether it leaves
    the rectifier out.
    """

    def __init__(
        self, frames: Tensor, weight: Tensor, channels: Tensor, window: PatchWindow
    ) -> None:
        samples, maps, steps, height, width = frames.shape
        units, taps, branches, dendrites = weight.shape
        rows, columns = self.out = window.output_size(height, width)
        block, (row_stride, stride) = min(samples, _BLOCK_SAMPLES), window.stride
        last = (branches - 1) * window.dilation[0] // row_stride  # row of the last branch
        span = (columns - 1) * stride + window.first_columns[-1] + 1
        plane, (top, _, left, _) = padded(rows * block), window.padding
        self._inputs = (
            samples, block, maps, steps, span, row_stride, last + rows,
            padded(last * block + plane), top, left, height, width,
        )  # fmt: skip
        self._outputs = (samples, block, units, steps, columns, 1, rows, plane, 0, 0, rows, columns)
        self._shape = (steps, columns, samples, rows, units)  # of the total, M's axes apart
        self._frames, self._weight = frames, weight.detach().contiguous()
        self._planes = self._lay_out(self._inputs, frames)
        sizes = (units, taps, branches, dendrites, *window.stride, *window.dilation, rows, columns)
        self._operands = (
            sizes, self._inputs, self._outputs, channels.contiguous(), self._weight, self._planes
        )  # fmt: skip

    def total(self, stage: Sequence[Any]) -> Tensor:
        """Sums max(0, scale * potential + offset) over the dendrites, (T, M, U)."""
        planes = self._empty(self._outputs)
        call("claw_sum", planes, *self._operands, *stage, planes)
        total = planes.new_empty(self._shape)
        self._copy(self._outputs, total.permute(2, 4, 0, 3, 1), planes, back=True)
        return total.flatten(1, 3)

    def receive(self, grad: Tensor) -> Tensor:
        """Lays out the gradient of the total, (T, M, U), for the passes that read it."""
        maps = grad.contiguous().view(self._shape)
        return self._lay_out(self._outputs, maps.permute(2, 4, 0, 3, 1))

    def sums(self, stage: Sequence[Any], grad: Tensor | None = None) -> Tensor:
        """Sums the gradient past the rectifier, and its product with the potential, (2, D, U),
        float64; without a gradient, deviations of the potentials from the offset, and squares."""
        sums = stage[0].new_empty(2, *stage[0].shape, dtype=torch.float64)
        call("claw_sums", self._planes, *self._operands, *stage, grad, sums)
        return sums

    def gradients(
        self, stage: Sequence[Any], coeffs: Sequence[Tensor], grad: Tensor, needs: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Computes the gradients of frames and weights (float64), None where not needed.

        Statistics are differentiated by slope and start of their gradient, (D, U): `coeffs`.
        """
        frames = planes = torch.empty_like(self._planes) if needs[0] else None
        weight = torch.empty_like(self._weight, dtype=torch.float64) if needs[1] else None
        passes = (*stage, *coeffs, grad, weight, planes)
        call("claw_back", self._planes, *self._operands, *passes)
        if planes is not None:
            frames = torch.zeros_like(self._frames)
            self._copy(self._inputs, frames, planes, back=True)
        return frames, weight

    def _lay_out(self, sizes: tuple[int, ...], maps: Tensor) -> Tensor:
        """Copies maps (B, C, T, H, W) to planes."""
        if maps.stride(1) != 1 and maps.stride(4) != 1:
            maps = maps.contiguous()
        planes = self._empty(sizes)
        self._copy(sizes, maps, planes, back=False)
        return planes

    def _empty(self, sizes: tuple[int, ...]) -> Tensor:
        """Allocates planes, (blocks, channels, steps, columns, phases, plane)."""
        samples, block, *shape = sizes[:6]
        return self._weight.new_empty(-(-samples // block), *shape, sizes[7])

    def _copy(self, sizes: tuple[int, ...], maps: Tensor, planes: Tensor, back: bool) -> None:
        call("claw_lay_out", planes, sizes, memory(maps), maps.stride(), planes, int(back))
