"""The kernels of image layers, `image.cpp`.

Shapes: as in `kernels.patch_sum`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels.native import bits, call, memory, padded
from neuroconv.kernels.patches import ColumnLayout


class ImageSizes(NamedTuple):
    """Sizes of a layer and of its output."""

    samples: int  # B
    rows: int  # H'
    columns: int  # W'
    branches: int  # rows of the patch; they lie side by side
    row_stride: int  # of the patches
    steps: int  # T
    channels: int  # C
    units: int  # U

    @property
    def positions(self) -> int:
        return self.samples * self.rows * self.columns


class ImageLayer:
    """A layer's operands, packed.

    Args:
        buffer: the maps as `kernels.patches.lay_out` leaves them.
        weight: (D, K, T * U).
        potentials: those of an earlier pass; None to compute them in each pass.
        bits: which potentials pass the rectifier, from `total`.
    """

    def __init__(
        self,
        buffer: Tensor,
        weight: Tensor,
        layout: ColumnLayout,
        sizes: ImageSizes,
        potentials: Tensor | None = None,
        bits: Tensor | None = None,
    ) -> None:
        self.buffer, self.weight, self.sizes = buffer, weight, sizes
        self.dendrites, self.inputs, self.outputs = weight.shape
        self.width, self.depth = padded(self.outputs), padded(self.inputs)
        self.packed = F.pad(weight.detach(), (0, self.width - self.outputs)).contiguous()
        self.potentials, self._filled = potentials, potentials is not None
        self.bits = bits
        pieces = [layout.piece(buffer, dendrite) for dendrite in range(self.dendrites)]
        self.pieces = tuple(x.storage_offset() - buffer.storage_offset() for x in pieces)
        self._columns = buffer.shape[0] * buffer.shape[1]  # W*
        self.numbers = (
            self.dendrites, sizes.samples, sizes.columns, sizes.rows, buffer.shape[3],
            sizes.row_stride, sizes.branches, sizes.steps, sizes.channels, sizes.units,
            self.width, self.depth,
        )  # fmt: skip

    def keep(self) -> None:
        """Keeps the potentials of the next pass for later ones."""
        self.potentials = self.buffer.new_empty(self.dendrites, self.sizes.positions, self.width)

    def total(
        self, scale: Tensor | None, offset: Tensor | None, linear: bool, keep: bool = False
    ) -> Tensor:
        """Sums max(0, scale * potential + offset) over the dendrites, (T, M, U).

        With `keep` one bit of each summand is saved: whether it is above zero.
        """
        if keep:
            rows = self.dendrites * self.sizes.positions
            self.bits = bits(rows, of=self.width, like=self.buffer)
        total = self.buffer.new_empty(self.sizes.steps, self.sizes.positions, self.sizes.units)
        self._call("image_sum", *self._stage(scale, offset, linear), total)
        return total

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Returns mean and biased variance of the potentials over positions and steps, (D, U)."""
        mean = self.buffer.new_empty(self.dendrites, self.width, dtype=torch.float64)
        variance = torch.empty_like(mean)
        self._call("image_statistics", mean, variance)
        return self._over_steps(mean[:, : self.outputs], variance[:, : self.outputs])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Returns mean and covariance of the inputs over positions, (D, K), (D, K, K), float64."""
        # Of each column of the buffer first, since dendrites share most columns.
        pivot = self._central_inputs().double()
        total = pivot.new_empty(self._columns, self.inputs)
        products = pivot.new_empty(self._columns, self.inputs, self.depth)
        self._call("image_moments", self._columns, pivot, total, products)
        reads = self._reads().double() / self.sizes.positions
        shift = reads @ total
        upper = (reads @ products[..., : self.inputs].flatten(1)).unflatten(1, (self.inputs, -1))
        squares = upper.triu() + upper.triu(1).mT
        return pivot + shift, squares - shift[:, :, None] * shift[:, None]

    def statistics_of(self, moments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Computes `statistics` from the moments."""
        weight = self.weight.detach().double()
        mean = (moments[0][:, None] @ weight).squeeze(1)
        return self._over_steps(mean, (weight * (moments[1] @ weight)).sum(1))

    def _over_steps(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Combines statistics of the steps, (D, T * U), into those of all steps, (D, U)."""
        mean, variance = self._by_step(mean), self._by_step(variance)
        centre = mean.mean(1, keepdim=True)
        spread = (variance + (mean - centre).square()).mean(1)
        return centre.squeeze(1).to(self.buffer.dtype), spread.to(self.buffer.dtype)

    def _reads(self) -> Tensor:
        """Returns whether a dendrite reads a column of the buffer, (D, W*)."""
        size = self.buffer[0, 0].numel()
        first = torch.tensor([piece // size for piece in self.pieces], device="cpu")[:, None]
        column = torch.arange(self._columns, device="cpu")
        return (first <= column) & (column < first + self.sizes.columns)

    def _central_inputs(self) -> Tensor:
        """Returns the inputs at a position in the middle of the first sample's maps, (K,)."""
        column = self.buffer.flatten(0, 1)[self._columns // 2, 0]
        return column[self.sizes.rows // 2 * self.sizes.row_stride :].flatten()[: self.inputs]

    def sums(
        self, scale: Tensor | None, offset: Tensor | None, linear: bool, grad: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums the gradient past the rectifier, and its product with the potential, (D, U)."""
        sums = grad.new_empty(self.dendrites, 2, self.width, dtype=torch.float64)
        self._call("image_sums", *self._stage(scale, offset, linear), grad, sums)
        passing, products = self._by_step(sums).sum(2).to(grad.dtype).movedim(1, 0).contiguous()
        return passing, products

    def gradients(
        self,
        scale: Tensor | None,
        grad: Tensor,
        needs: tuple[bool, bool],
        linear: bool = False,
        offset: Tensor | None = None,
        coeffs: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Computes the gradients of the buffer and of the weights (float64), None where not needed,
        and the sum over positions of the potentials' gradient, (D, T, U).

        Uses the bits saved by `total`, or the saved potentials when the batch statistics are
        differentiated too: `coeffs` is then slope and start of their gradient, (D, U), from
        `norm_backward`. With the bits the weights' gradient and the sum are not yet multiplied by
        the scale; the sum is then the gradient of the offsets.
        """
        slope, start = (None, None) if coeffs is None else map(self._repeat, coeffs)
        transposed = to_buffer = weight = None
        if needs[0]:
            scaled = self.weight.detach()
            if slope is None and scale is not None:
                scaled = scaled * self._repeat(scale)[:, None, : self.outputs]
            transposed = F.pad(scaled.mT, (0, self.depth - self.inputs)).contiguous()
            to_buffer = torch.zeros_like(self.buffer)
        if needs[1]:
            weight = self.packed.new_empty(self.packed.shape, dtype=torch.float64)
        stage = self._stage(scale, offset, linear)
        sums = grad.new_empty(self.dendrites, self.width, dtype=torch.float64)
        self._call("image_back", *stage, grad, slope, start, transposed, weight, to_buffer, sums)
        if weight is not None:
            weight = weight[:, :, : self.outputs]
        return to_buffer, weight, self._by_step(sums)

    def add_statistics_gradient(
        self,
        to_buffer: Tensor | None,
        weight: Tensor | None,
        coeffs: Sequence[Tensor],
        moments: Sequence[Tensor],
    ) -> None:
        """Adds the gradients through the batch statistics, slope * potential + start: linear in the
        inputs, so that their moments give them."""
        slope, start = (values.double().repeat(1, self.sizes.steps) for values in coeffs)
        taps = self.weight.detach().double()
        if weight is not None:
            mean, covariance = moments
            centre = (mean[:, None] @ taps) * slope[:, None] + start[:, None]
            products = (covariance @ taps) * slope[:, None] + mean[:, :, None] * centre
            weight += products * self.sizes.positions
        if to_buffer is not None:
            pads = (0, self.depth - self.inputs)
            reads = self._reads().double().T  # sums over the dendrites that read a column
            factors = reads @ ((taps * slope[:, None]) @ taps.mT).flatten(1)
            factors = factors.unflatten(1, (self.inputs, -1))
            constants = reads @ (taps * start[:, None]).sum(2)
            operands = (F.pad(x, pads).to(to_buffer.dtype) for x in (factors, constants))
            self._call("image_mend", self._columns, *operands, to_buffer)

    def _stage(
        self, scale: Tensor | None, offset: Tensor | None, linear: bool
    ) -> tuple[Tensor, Tensor, int]:
        ones = self.weight.new_ones(self.dendrites, self.sizes.units)
        scale = self._repeat(ones if scale is None else scale)
        offset = self._repeat(torch.zeros_like(ones) if offset is None else offset)
        return scale, offset, int(linear)

    def _repeat(self, values: Tensor) -> Tensor:
        """Repeats (D, U) over the steps, (D, width)."""
        repeated = values.to(self.buffer.dtype).repeat(1, self.sizes.steps)
        return F.pad(repeated, (0, self.width - self.outputs))

    def _by_step(self, values: Tensor) -> Tensor:
        """Splits (..., width) into (..., T, U)."""
        return values[..., : self.outputs].unflatten(-1, (self.sizes.steps, -1))

    def _call(self, name: str, *rest: Tensor | int | None) -> None:
        bits = None if self.bits is None else memory(self.bits)
        operands = (self.buffer, self.pieces, self.packed, self.potentials, int(self._filled), bits)
        call(name, self.buffer, self.numbers, *operands, *rest)
        self._filled = self.potentials is not None
