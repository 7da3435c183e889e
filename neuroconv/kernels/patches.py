"""What each dendrite of an image layer reads, laid out so that nobody copies it.

The columns of a patch are its dendrites: a dendrite reads columns of the padded maps, and filters
each of them along its rows alone. So the columns need not lie side by side in memory. Here they lie
one after another, the first column of all samples, then the next one of all samples: those that one
dendrite reads are then one piece of memory, and a convolution takes them for a single image.

Shapes: B batch, C channels, T time steps, H x W places, H* x W* with their padding, W' columns out.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Reading(NamedTuple):
    """Which columns of the maps the dendrites read.

    Attributes:
        padding: zeros (top, bottom, left, right).
        dendrites: columns of the patch.
        dilation, stride: along the columns.
        columns_out: W'.
        row_step: of dendrites of one branch the stride along the rows: what they skip is left out,
            and their convolution has no stride. (In oneDNN 3.x the gradient to the weights of a
            convolution of one tap and a stride writes beyond its memory where the image is tall
            and has few channels.)
    """

    padding: tuple[int, int, int, int]
    dendrites: int
    dilation: int
    stride: int
    columns_out: int
    row_step: int = 1

    def room(self, frames: torch.Size) -> tuple[int, ...]:
        """Shape of the padded maps as they lie, (stride, ceil(W* / stride), B, H*, T, C): of a
        stride of 2 the even columns first, then the odd ones. H* counts no rows that are left out.
        """
        batch, channels, steps, height, width = frames
        top, bottom, left, right = self.padding
        wide = -(-(left + width + right) // self.stride)
        high = -(-(top + height + bottom) // self.row_step)
        return self.stride, wide, batch, high, steps, channels

    def piece(self, room: Tensor, dendrite: int) -> Tensor:
        """What a dendrite reads, (W', B, H*, T, C)."""
        first, rest = divmod(dendrite * self.dilation, self.stride)
        return room[rest, first : first + self.columns_out]

    def inside(self, frames: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """Where frames (B, C, T, H, W) lie in the room: for each of its parts the first column, and
        what lies there, (columns, B, rows, T, C); see `rows`."""
        top, _, left, _ = self.padding
        ordered = frames.permute(4, 0, 3, 2, 1)[:, :, -top % self.row_step :: self.row_step]
        for rest in range(self.stride):
            skipped = (rest - left) % self.stride
            yield rest, (left + skipped) // self.stride, ordered[skipped :: self.stride]

    def rows(self, height: int) -> slice:
        """The rows of the room that hold rows of the frames."""
        first = -(-self.padding[0] // self.row_step)
        skipped = -self.padding[0] % self.row_step
        return slice(first, first + len(range(skipped, height, self.row_step)))


def dendrite_maps(frames: Tensor, reading: Reading) -> tuple[Tensor, ...]:
    """Of each dendrite, the maps that it reads as one image, time folded into the channels.

    Shape:
        frames (B, C, T, H, W) -> for each dendrite (1, T * C, W' * B, H*), contiguous as channels
        last: views of one tensor
    """
    maps: tuple[Tensor, ...] = _Read.apply(frames, reading)
    return maps


def lay_out(frames: Tensor, reading: Reading) -> Tensor:
    """Frames (B, C, T, H, W) in a room, which is `Reading.room`'s, with their padding."""
    room = frames.new_empty(reading.room(frames.shape))
    rows = reading.rows(frames.shape[3])
    for rest, first, part in reading.inside(frames):
        last = first + len(part)
        for border in (room[rest, :first], room[rest, last:]):
            border.zero_()
        columns = room[rest, first:last]
        for border in (columns[:, :, : rows.start], columns[:, :, rows.stop :]):
            border.zero_()
        columns[:, :, rows] = part
    return room


def take_back(room: Tensor, reading: Reading, shape: torch.Size, order: tuple[int, ...]) -> Tensor:
    """The transpose of `lay_out`: frames of this shape, whose axes lie in this order in memory, so
    that the stage before need not turn them."""
    back = room.new_empty([shape[axis] for axis in order])
    back = back.permute([order.index(axis) for axis in range(len(order))])
    if reading.row_step > 1:
        back.zero_()  # what is left out
    rows = reading.rows(back.shape[3])
    for rest, first, part in reading.inside(back):
        part.copy_(room[rest, first : first + len(part), :, rows])
    return back


class _Read(torch.autograd.Function):
    """By autograd each piece would have a gradient as large as the whole, filled and added up."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, reading: Reading) -> tuple[Tensor, ...]:
        ctx.reading, ctx.shape, ctx.order = reading, frames.shape, frames.dim_order()
        room = lay_out(frames, reading)
        pieces = (reading.piece(room, dendrite) for dendrite in range(reading.dendrites))
        # The axis of one image goes first, or its stride would hide that channels lie last.
        images = (piece.flatten(3).flatten(0, 1).unsqueeze(0) for piece in pieces)
        return tuple(image.permute(0, 3, 1, 2) for image in images)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        back: Tensor = _TakeBack.apply(ctx.reading, ctx.shape, ctx.order, *grads)
        return back, None


class _TakeBack(torch.autograd.Function):
    """The transpose of `_Read`: both are linear, and each is the gradient of the other."""

    @staticmethod
    def forward(
        ctx: Any, reading: Reading, shape: torch.Size, order: tuple[int, ...], *grads: Tensor
    ) -> Tensor:
        ctx.reading = reading
        return take_back(_added_up(grads, reading, shape), reading, shape, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return None, None, None, *dendrite_maps(grads[0], ctx.reading)


def _added_up(grads: tuple[Tensor, ...], reading: Reading, frames: torch.Size) -> Tensor:
    """The gradients of the pieces, added where they lie; what no piece has reached is copied, and
    what none reads is zero."""
    room = grads[0].new_empty(reading.room(frames))
    reached = [0] * reading.stride
    for dendrite, grad in enumerate(grads):
        first, rest = divmod(dendrite * reading.dilation, reading.stride)
        piece = reading.piece(room, dendrite)
        own = grad[0].permute(1, 2, 0).view_as(piece)
        known = max(0, reached[rest] - first)
        room[rest, reached[rest] : first].zero_()
        piece[:known] += own[:known]
        piece[known:] = own[known:]
        reached[rest] = first + reading.columns_out
    for rest, end in enumerate(reached):
        room[rest, end:].zero_()
    return room
