"""The memory layout of an image layer's inputs in which each dendrite reads a contiguous piece.

The columns of a patch are its dendrites: a dendrite reads columns of the padded maps, and filters
each of them along its rows alone. So the columns are stored one after another, the first column of
all samples, then the next one of all samples: those that one dendrite reads are then one piece of
memory, and a convolution takes them for a single image.

Shapes: B batch, C channels, T time steps, H x W positions, H* x W* with their padding; W' columns
out.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ColumnLayout(NamedTuple):
    """The columns of the maps that the dendrites read."""

    padding: tuple[int, int, int, int]  # zeros (top, bottom, left, right)
    dendrites: int  # columns of the patch
    dilation: int  # along the columns, as the stride
    stride: int
    columns_out: int  # W'
    # The stride along the rows of dendrites with one branch: skipped rows are left out of the
    # buffer, and the convolution has no stride. (In oneDNN 3.x the gradient of the weights of a
    # convolution of one tap and a stride writes beyond its memory where the image is tall and has
    # few channels.)
    row_step: int = 1

    def buffer_shape(self, frames: torch.Size) -> tuple[int, ...]:
        """Returns the shape of the padded maps, (stride, ceil(W* / stride), B, H*, T, C): with a
        stride of 2 the even columns come first. H* counts no skipped rows."""
        batch, channels, steps, height, width = frames
        top, bottom, left, right = self.padding
        wide = -(-(left + width + right) // self.stride)
        high = -(-(top + height + bottom) // self.row_step)
        return self.stride, wide, batch, high, steps, channels

    def piece(self, buffer: Tensor, dendrite: int) -> Tensor:
        """Returns the part that a dendrite reads, (W', B, H*, T, C)."""
        first, rest = divmod(dendrite * self.dilation, self.stride)
        return buffer[rest, first : first + self.columns_out]

    def parts(self, frames: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """Yields indices of the buffer's first axis, the first column there, and the columns of
        frames (B, C, T, H, W) from there on, (columns, B, rows, T, C)."""
        top, _, left, _ = self.padding
        ordered = frames.permute(4, 0, 3, 2, 1)[:, :, -top % self.row_step :: self.row_step]
        for rest in range(self.stride):
            skipped = (rest - left) % self.stride
            yield rest, (left + skipped) // self.stride, ordered[skipped :: self.stride]

    def rows(self, height: int) -> slice:
        """Returns the rows of the buffer that hold rows of the frames."""
        first = -(-self.padding[0] // self.row_step)
        skipped = -self.padding[0] % self.row_step
        return slice(first, first + len(range(skipped, height, self.row_step)))


def dendrite_maps(frames: Tensor, layout: ColumnLayout) -> tuple[Tensor, ...]:
    """Returns the maps that each dendrite reads as one image, (1, T * C, W' * B, H*), channels
    last:
    views of one tensor with the frames (B, C, T, H, W)."""
    return _Read.apply(frames, layout)


def lay_out(frames: Tensor, layout: ColumnLayout) -> Tensor:
    """Copies frames (B, C, T, H, W) with their padding to a buffer of `buffer_shape`."""
    buffer = frames.new_empty(layout.buffer_shape(frames.shape))
    rows = layout.rows(frames.shape[3])
    for rest, first, part in layout.parts(frames):
        last = first + len(part)
        for border in (buffer[rest, :first], buffer[rest, last:]):
            border.zero_()
        columns = buffer[rest, first:last]
        for border in (columns[:, :, : rows.start], columns[:, :, rows.stop :]):
            border.zero_()
        columns[:, :, rows] = part
    return buffer


def lay_out_transpose(
    buffer: Tensor, layout: ColumnLayout, shape: torch.Size, order: tuple[int, ...]
) -> Tensor:
    """Transposes `lay_out`: returns frames of this shape, with the axes in this order in memory."""
    frames_grad = buffer.new_empty([shape[axis] for axis in order])
    frames_grad = frames_grad.permute([order.index(axis) for axis in range(len(order))])
    if layout.row_step > 1:
        frames_grad.zero_()  # skipped rows
    rows = layout.rows(frames_grad.shape[3])
    for rest, first, part in layout.parts(frames_grad):
        part.copy_(buffer[rest, first : first + len(part), :, rows])
    return frames_grad


class _Read(torch.autograd.Function):
    """`dendrite_maps`, whose pieces would otherwise have gradients as large as the buffer."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, layout: ColumnLayout) -> tuple[Tensor, ...]:
        ctx.layout, ctx.shape, ctx.order = layout, frames.shape, frames.dim_order()
        buffer = lay_out(frames, layout)
        pieces = (layout.piece(buffer, dendrite) for dendrite in range(layout.dendrites))
        # The axis of one image goes first: elsewhere its stride would hide that channels lie last.
        images = (piece.flatten(3).flatten(0, 1).unsqueeze(0) for piece in pieces)
        return tuple(image.permute(0, 3, 1, 2) for image in images)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _ReadTranspose.apply(ctx.layout, ctx.shape, ctx.order, *grads), None


class _ReadTranspose(torch.autograd.Function):
    """The transpose of `_Read`: both are linear, so each is the gradient of the other."""

    @staticmethod
    def forward(
        ctx: Any, layout: ColumnLayout, shape: torch.Size, order: tuple[int, ...], *grads: Tensor
    ) -> Tensor:
        ctx.layout = layout
        return lay_out_transpose(_added_up(grads, layout, shape), layout, shape, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return None, None, None, *dendrite_maps(grads[0], ctx.layout)


def _added_up(grads: tuple[Tensor, ...], layout: ColumnLayout, frames: torch.Size) -> Tensor:
    """Adds up the gradients of the pieces, which overlap; columns that none reads are zero."""
    buffer = grads[0].new_empty(layout.buffer_shape(frames))
    reached = [0] * layout.stride
    for dendrite, grad in enumerate(grads):
        first, rest = divmod(dendrite * layout.dilation, layout.stride)
        piece = layout.piece(buffer, dendrite)
        piece_grad = grad[0].permute(1, 2, 0).view_as(piece)
        overlap = max(0, reached[rest] - first)
        buffer[rest, reached[rest] : first].zero_()
        piece[:overlap] += piece_grad[:overlap]
        piece[overlap:] = piece_grad[overlap:]
        reached[rest] = first + layout.columns_out
    for rest, end in enumerate(reached):
        buffer[rest, end:].zero_()
    return buffer
