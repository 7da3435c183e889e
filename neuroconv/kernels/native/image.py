"""The kernels of image layers, `image.cpp`.

Shapes: as in `kernels.patch_sum`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels.native.call import bits, call, memory, whole
from neuroconv.kernels.patches import Reading


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
        room: the maps as `kernels.patches.lay_out` leaves them.
        weight: (D, K, T * U).
        kept: potentials of such a layer, as `keep` left them; None to make them for each pass.
        bits: as `total` left them.
    """

    def __init__(
        self,
        room: Tensor,
        weight: Tensor,
        reading: Reading,
        sizes: ImageSizes,
        kept: Tensor | None = None,
        bits: Tensor | None = None,
    ) -> None:
        self.room, self.weight, self.sizes = room, weight, sizes
        self.dendrites, self.inputs, self.outputs = weight.shape
        self.wide, self.deep = whole(self.outputs), whole(self.inputs)
        self.packed = F.pad(weight.detach(), (0, self.wide - self.outputs)).contiguous()
        self.kept, self._made = kept, kept is not None
        self.bits = bits
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

    def keep(self) -> None:
        """Holds on to the potentials of the next pass, for those that follow."""
        self.kept = self.room.new_empty(self.dendrites, self.sizes.places, self.wide)

    def total(
        self, scale: Tensor | None, offset: Tensor | None, linear: bool, keep: bool = False
    ) -> Tensor:
        """The sum over dendrites of max(0, scale * potential + offset), (T, M, U).

        Args:
            keep: note which of them are above zero, by a bit of each.
        """
        if keep:
            places = self.dendrites * self.sizes.places
            self.bits = bits(places, of=self.wide, like=self.room)
        total = self.room.new_empty(self.sizes.steps, self.sizes.places, self.sizes.units)
        self._call("image_sum", *self._stage(scale, offset, linear), total)
        return total

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the potentials over places and steps, (D, U)."""
        mean = self.room.new_empty(self.dendrites, self.wide, dtype=torch.float64)
        variance = torch.empty_like(mean)
        self._call("image_statistics", mean, variance)
        return self._over_steps(mean[:, : self.outputs], variance[:, : self.outputs])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance over places of what dendrites read, (D, K) and (D, K, K), float64.

        Of each column of the room first: dendrites read the same ones but for those at the edges.
        """
        pivot = self._a_window().double()
        total = pivot.new_empty(self._columns, self.inputs)
        products = pivot.new_empty(self._columns, self.inputs, self.deep)
        self._call("image_moments", self._columns, pivot, total, products)
        reads = self._reads().double() / self.sizes.places
        apart = reads @ total
        upper = (reads @ products[..., : self.inputs].flatten(1)).unflatten(1, (self.inputs, -1))
        squares = upper.triu() + upper.triu(1).mT
        return pivot + apart, squares - apart[:, :, None] * apart[:, None]

    def statistics_of(self, moments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """As `statistics`, from the moments."""
        weight = self.weight.detach().double()
        mean = (moments[0][:, None] @ weight).squeeze(1)
        return self._over_steps(mean, (weight * (moments[1] @ weight)).sum(1))

    def _over_steps(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Those of all steps of those of each, (D, T * U)."""
        mean, variance = self._by_step(mean), self._by_step(variance)
        centre = mean.mean(1, keepdim=True)
        spread = (variance + (mean - centre).square()).mean(1)
        return centre.squeeze(1).to(self.room.dtype), spread.to(self.room.dtype)

    @property
    def _columns(self) -> int:
        """Of the room, W*."""
        return self.room.shape[0] * self.room.shape[1]

    def _reads(self) -> Tensor:
        """Whether a dendrite reads a column of the room, (D, W*)."""
        first = (self.pieces // self.room[0, 0].numel())[:, None]
        column = torch.arange(self._columns, device="cpu")
        return (first <= column) & (column < first + self.sizes.columns)

    def _a_window(self) -> Tensor:
        """What is read at a place in the middle of the first sample's maps, (K,)."""
        column = self.room.flatten(0, 1)[self._columns // 2, 0]
        return column[self.sizes.rows // 2 * self.sizes.row_stride :].flatten()[: self.inputs]

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
        grad: Tensor,
        asked: tuple[bool, bool],
        linear: bool = False,
        offset: Tensor | None = None,
        through: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Gradients to the room and to the weights, in float64, where asked for; and the sum over
        places of those to the potentials, (D, T, U).

        By the bits of `total`, or by the potentials that are kept with what goes through their
        statistics. By the bits the scale is not yet in the weights' gradient, nor in the sum, which
        is then the gradient to the offsets.

        Args:
            through: slope and start, (D, U), of potentials' own statistics.
        """
        slope, start = (None, None) if through is None else map(self._across, through)
        turned = back = weight = None
        if asked[0]:
            scaled = self.weight.detach()
            if slope is None and scale is not None:
                scaled = scaled * self._across(scale)[:, None, : self.outputs]
            turned = F.pad(scaled.mT, (0, self.deep - self.inputs)).contiguous()
            back = torch.zeros_like(self.room)
        if asked[1]:
            weight = self.packed.new_empty(self.packed.shape, dtype=torch.float64)
        stage = self._stage(scale, offset, linear)
        found = grad.new_empty(self.dendrites, self.wide, dtype=torch.float64)
        self._call("image_back", *stage, grad, slope, start, turned, weight, back, found)
        if weight is not None:
            weight = weight[:, :, : self.outputs]
        return back, weight, self._by_step(found)

    def mend(
        self,
        back: Tensor | None,
        weight: Tensor | None,
        through: Sequence[Tensor],
        moments: tuple[Tensor, Tensor],
    ) -> None:
        """Adds to both gradients what goes through the potentials' own statistics: slope *
        potential + start, which is a sum of what dendrites read, by the moments of that."""
        slope, start = (each.double().repeat(1, self.sizes.steps) for each in through)
        own = self.weight.detach().double()
        if weight is not None:
            mean, covariance = moments
            centre = (mean[:, None] @ own) * slope[:, None] + start[:, None]
            products = (covariance @ own) * slope[:, None] + mean[:, :, None] * centre
            weight += products * self.sizes.places
        if back is not None:
            pads = (0, self.deep - self.inputs)
            reads = self._reads().double().T  # in a column all that read it add up
            by = (reads @ ((own * slope[:, None]) @ own.mT).flatten(1)).unflatten(
                1, (self.inputs, -1)
            )
            first = reads @ (own * start[:, None]).sum(2)
            operands = (F.pad(each, pads).to(back.dtype) for each in (by, first))
            self._call("image_mend", self._columns, *operands, back)

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
        told = None if self.bits is None else memory(self.bits)
        operands = (self.room, self.pieces, self.packed, self.kept, int(self._made), told)
        call(name, self.room, self.numbers, *operands, *rest)
        self._made = self.kept is not None
