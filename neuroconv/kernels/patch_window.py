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


def zeros_around(
    padding: int | tuple[int, int] | Literal["same", "valid"],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Converts nn.Conv2d's padding to zeros (top, bottom, left, right), for "same" more after.

    Raises:
        ValueError: "same" with a stride.
    """
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise ValueError(f"padding='same' needs stride 1; got stride={stride}")
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return (spans[0] // 2, spans[0] - spans[0] // 2, spans[1] // 2, spans[1] - spans[1] // 2)
    vertical, horizontal = pair(padding)
    return (vertical, vertical, horizontal, horizontal)
