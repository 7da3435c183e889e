"""Geometry of a patch that slides over an image: its columns are a unit's dendrites."""

from typing import Literal, NamedTuple

from neuroconv.core.checks import pair


class PatchWindow(NamedTuple):
    """Size and path of a patch, as nn.Conv2d has them."""

    kernel: tuple[int, int]  # (branches K_H, dendrites K_W)
    stride: tuple[int, int]  # (rows, columns)
    padding: tuple[int, int, int, int]  # zeros (top, bottom, left, right)
    dilation: tuple[int, int]  # (rows, columns)

    @property
    def first_columns(self) -> list[int]:
        """The first column of the padded image that each dendrite reads."""
        return [dendrite * self.dilation[1] for dendrite in range(self.kernel[1])]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns (H', W') for an image of (H, W), by nn.Conv2d's rule.

        Raises:
            ValueError: the patch does not fit into the padded image.
        """
        top, bottom, left, right = self.padding
        padded = (height + top + bottom, width + left + right)
        sizes = []
        for size, k, stride, dilation in zip(
            padded, self.kernel, self.stride, self.dilation, strict=True
        ):
            room = size - dilation * (k - 1) - 1
            if room < 0:
                raise ValueError(
                    f"a patch of {self.kernel} with dilation {self.dilation} does not fit "
                    f"into an image of {height} x {width} with padding {self.padding}; enlarge "
                    "the image or the padding"
                )
            sizes.append(room // stride + 1)
        return sizes[0], sizes[1]

    def maps(self, width: int, columns_out: int, groups: int) -> tuple[list[slice], list[int]]:
        """Returns which columns of an image become one map of potentials, and the column of its map
        that each dendrite reads for the first column of the output.

        All dendrites share a map, unless it would have over a sixteenth more columns than the
        output, or the convolution a stride or groups; then each has one of the columns it reads.
        """
        stride, starts = self.stride[1], [x - self.padding[2] for x in self.first_columns]
        if stride == groups == 1 and 16 * width <= 17 * columns_out:
            return [slice(None)], starts
        skipped = [max(0, -(start // stride)) for start in starts]  # left of the image
        firsts = [start + stride * n for start, n in zip(starts, skipped, strict=True)]
        ends = [start + stride * columns_out for start in starts]
        # A dendrite that reads no column of the image has one that it does not read.
        pairs = [
            (slice(first, end, stride), -n) if first < min(end, width) else (slice(1), columns_out)
            for first, end, n in zip(firsts, ends, skipped, strict=True)
        ]
        return [columns for columns, _ in pairs], [start for _, start in pairs]


def zeros_around(
    padding: int | tuple[int, int] | Literal["same", "valid"],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Converts nn.Conv2d's padding to zeros (top, bottom, left, right); no stride with "same"."""
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise ValueError(f"padding='same' needs stride 1; got stride={stride}")
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return (spans[0] // 2, spans[0] - spans[0] // 2, spans[1] // 2, spans[1] - spans[1] // 2)
    vertical, horizontal = pair(padding)
    return (vertical, vertical, horizontal, horizontal)
