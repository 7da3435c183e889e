"""The kernels of image layers, `image.cpp`.

Shapes: as in `layers.patch_sum`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.layers.native.call import call, whole
from neuroconv.layers.patches import Reading


class ImageSizes(NamedTuple):
    """Of a layer and of the maps that come out.

    Attributes:
        samples: B.
        rows, columns: H', W'.
        branches: rows of the patch; they lie side by side.
        row_stride: of the patches.
        steps, channels, units: T, C, U.
    """

    samples: int
    rows: int
    columns: int
    branches: int
    row_stride: int
    steps: int
    channels: int
    units: int

    @property
    def places(self) -> int:
        """M."""
        return self.samples * self.rows * self.columns


class ImageLayer:
    """A layer's operands, packed.

    Args:
        room: the maps as `layers.patches.lay_out` leaves them.
        weight: (D, K, T * U).
        keep: hold on to the potentials for later passes.
        kept: what such a layer held.
    """

    def __init__(
        self,
        room: Tensor,
        weight: Tensor,
        reading: Reading,
        sizes: ImageSizes,
        keep: bool = False,
        kept: Tensor | None = None,
    ) -> None:
        self.room, self.weight, self.sizes = room, weight, sizes
        self.dendrites, self.inputs, self.outputs = weight.shape
        self.wide, self.deep = whole(self.outputs), whole(self.inputs)
        self.packed = F.pad(weight.detach(), (0, self.wide - self.outputs)).contiguous()
        self.kept, self._made = kept, kept is not None
        if keep:
            self.kept = room.new_empty(self.dendrites, sizes.places, self.wide)
        starts = [reading.piece(room, each) for each in range(self.dendrites)]
        self.pieces = torch.tensor(
            [piece.storage_offset() - room.storage_offset() for piece in starts], device="cpu"
        )
        own = sizes
        self.numbers = torch.tensor(
            [
                self.dendrites, own.samples, own.columns, own.rows, room.shape[3], own.row_stride,
                own.branches, own.steps, own.channels, own.units, self.wide, self.deep,
            ],
            device="cpu",
        )  # fmt: skip

    def total(self, scale: Tensor | None, offset: Tensor | None, linear: bool) -> Tensor:
        """The sum over dendrites of max(0, scale * potential + offset), (T, M, U)."""
        total = self.room.new_empty(self.sizes.steps, self.sizes.places, self.sizes.units)
        self._call("image_sum", *self._stage(scale, offset, linear), total)
        return total

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the potentials over places and steps, (D, U)."""
        mean = self.room.new_empty(self.dendrites, self.wide, dtype=torch.float64)
        variance = torch.empty_like(mean)
        self._call("image_statistics", mean, variance)
        mean, variance = self._by_step(mean), self._by_step(variance)
        centre = mean.mean(1, keepdim=True)
        spread = (variance + (mean - centre).square()).mean(1)
        return centre.squeeze(1).to(self.room.dtype), spread.to(self.room.dtype)

    def sums(
        self, scale: Tensor | None, offset: Tensor | None, linear: bool, grad: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Over places and steps, the gradient that passes and it times the potential, (D, U)."""
        found = grad.new_empty(self.dendrites, 2, self.wide, dtype=torch.float64)
        self._call("image_sums", *self._stage(scale, offset, linear), grad, found)
        passing, met = self._by_step(found).sum(2).to(grad.dtype).unbind(1)
        return passing, met

    def gradients(
        self,
        scale: Tensor | None,
        offset: Tensor | None,
        linear: bool,
        grad: Tensor,
        through: Sequence[Tensor] | None,
        asked: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Gradients to the room and to the weights, where asked for, and to the offsets, (D, U), if
        there is no scale.

        Args:
            through: slope and start, (D, U), of potentials' own statistics.
        """
        slope, start = (None, None) if through is None else map(self._across, through)
        turned = back = weight = None
        if asked[0]:
            turned = F.pad(self.weight.detach().transpose(1, 2), (0, self.deep - self.inputs))
            turned = turned.contiguous()
            back = torch.zeros_like(self.room)
        if asked[1]:
            weight = self.packed.new_empty(self.packed.shape, dtype=torch.float64)
        stage = self._stage(scale, offset, linear)
        offset = grad.new_empty(self.dendrites, self.wide, dtype=torch.float64)
        self._call("image_back", *stage, grad, slope, start, turned, weight, back, offset)
        if weight is not None:
            weight = weight[:, :, : self.outputs].to(self.weight.dtype)
        return back, weight, self._by_step(offset).sum(1).to(grad.dtype)

    def _stage(
        self, scale: Tensor | None, offset: Tensor | None, linear: bool
    ) -> tuple[Tensor, Tensor, int]:
        one = self.weight.new_ones(self.dendrites, self.sizes.units)
        scale = self._across(one if scale is None else scale)
        offset = self._across(torch.zeros_like(one) if offset is None else offset)
        return scale, offset, int(linear)

    def _across(self, values: Tensor) -> Tensor:
        """(D, U) repeated over the steps, (D, wide)."""
        repeated = values.to(self.room.dtype).repeat(1, self.sizes.steps)
        return F.pad(repeated, (0, self.wide - self.outputs))

    def _by_step(self, values: Tensor) -> Tensor:
        """(..., wide) -> (..., T, U)."""
        return values[..., : self.outputs].unflatten(-1, (self.sizes.steps, -1))

    def _call(self, name: str, *rest: Tensor | int | None) -> None:
        operands = (self.room, self.pieces, self.packed, self.kept, int(self._made))
        call(name, self.room, self.numbers, *operands, *rest)
        self._made = self.kept is not None
