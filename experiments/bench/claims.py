"""The rows of this folder's tables: which figures of `neuroconv bench`'s record each shows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

TASKS = ("forward", "forward and backward")
AXES = {  # by bar
    "neurons, batch, time steps": ("neurons", "batch", "time steps"),
    "sites, dendrites": ("sites", "dendrites"),
}


class Line(NamedTuple):
    """A row of the tables: which figures of the record it shows, forward and both ways.

    Attributes:
        group, what: its first two cells.
        forward, both: names of comparisons, `*` for anything; none where nothing is compared.
        figures: the figure's name forward and both ways.
        decimals: of numbers below a hundred.
    """

    group: str
    what: str
    forward: Sequence[str]
    both: Sequence[str]
    figures: tuple[str, str]
    decimals: int = 2


def by_task(
    group: str, what: str, comparisons: Sequence[str], figure: str, decimals: int = 2
) -> Line:
    """A line of comparisons that are there for both tasks, their names up to the task."""
    forward, both = ([f"{name}, {task}" for name in comparisons] for task in TASKS)
    return Line(group, what, forward, both, (figure, figure), decimals)


def both_ways(group: str, what: str, comparison: str, figure: str, decimals: int = 2) -> Line:
    """A line of comparisons that are there for training alone."""
    return Line(group, what, (), [comparison], ("", figure), decimals)


CELL, CELLS = "full Purkinje cell", "32 x 4,096 granule cells"
LAYER, AUTO, EPOCH = "`GranuleConv2d`", '`backend="auto"`', "an epoch of MNIST"
GROWTH = "growth of time: exponent"
OVER_CONV3D, OVER_CONVOLUTIONS = "conv3d_over_neuroconv_ratio", "layer_over_convolutions_ratio"
OF_EPOCHS, OVER_BEST = "granule_convnet_over_plain_cnn", "chosen_over_best"
OF_SAME_TAPS = "layer_over_conv3d_ratio"
SPEED = (
    by_task(CELL, "times faster than `conv3d`", ["Purkinje"], OVER_CONV3D, 1),
    by_task(
        CELL, "times faster than fft-conv-pytorch", ["Purkinje"],
        "fft_conv_pytorch_over_neuroconv_ratio", 1,
    ),
    by_task(CELL, "times its transforms alone", ["Purkinje"], "neuroconv_over_transforms_ratio", 1),
    by_task(
        CELL, "peak memory, times input + output + filter", ["Purkinje, peak memory"],
        "peak_memory_over_input_output_filter_ratio",
    ),
    by_task(
        CELLS, "axons to rates, times faster than grouped `conv3d`", ["granule population"],
        OVER_CONV3D, 1,
    ),
    by_task(
        CELLS, "dendrites alone, each side in its best layout", ["granule dendrites"],
        OVER_CONV3D, 1,
    ),
)  # fmt: skip
LAYERS = (
    both_ways(
        LAYER, "times its convolutions alone", "GranuleConv2d*norm none", OVER_CONVOLUTIONS
    ),
    both_ways(
        LAYER, "with norms at dendrites and somata", "GranuleConv2d*norm both", OVER_CONVOLUTIONS
    ),
    both_ways(
        LAYER, "times a `Conv3d` of the same taps", "GranuleConv2d*norm none", OF_SAME_TAPS
    ),
    both_ways(
        LAYER, "with norms, times that `Conv3d`", "GranuleConv2d*norm both", OF_SAME_TAPS
    ),
)  # fmt: skip
CHOICE = (
    by_task(
        AUTO, "times the best backend, geometric mean", ["auto over * shapes"],
        f"{OVER_BEST}_geometric_mean_ratio",
    ),
    by_task(
        AUTO, "times the best backend, worst shape", ["auto over * shapes"],
        f"{OVER_BEST}_worst_ratio",
    ),
)  # fmt: skip
TRAINING = (
    both_ways(
        EPOCH, "`granule_convnet`, times a plain CNN of equal FLOPs", "training on MNIST",
        f"{OF_EPOCHS}_ratio", 1,
    ),
    both_ways(
        EPOCH, "times one of equal FLOPs on still images", "training on MNIST",
        f"{OF_EPOCHS}_still_ratio", 1,
    ),
    both_ways(
        EPOCH, "times one of equal parameters", "training on MNIST",
        f"{OF_EPOCHS}_parameters_ratio", 1,
    ),
)  # fmt: skip
GROWN = tuple(
    by_task(GROWTH, f"{cell}: {together}", [f"{cell}, growth with {each}" for each in axes],
            "time_exponent")
    for cell in ("Purkinje", "granule")
    for together, axes in AXES.items()
)  # fmt: skip
EXACT = (
    Line(
        "error over the largest value", "full Purkinje cell beside `conv3d`",
        ["Purkinje, the same result"], (), ("difference_over_largest", ""),
    ),
    *(
        Line(
            "error over the largest value", f"{precision}: output, gradients",
            [f"accuracy of *, {precision}*"], [f"accuracy of *, {precision}*"],
            ("output_error_over_largest", "*_gradient_error_over_largest"),
        )
        for precision in ("fp32", "bf16")
    ),
)  # fmt: skip
SUMMARY = (*SPEED, *LAYERS, *CHOICE, *GROWN, *TRAINING)


def rows_of(record: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    """The comparisons of a section, or none if it did not run."""
    rows: list[dict[str, Any]] = record["sections"].get(section, {"rows": []})["rows"]
    return rows


def every_line(record: Mapping[str, Any]) -> list[Line]:
    """The lines that leave no bar out: of image layers and axes of growth each has its own."""
    layers = [
        both_ways(LAYER, name.removeprefix("GranuleConv2d "), name, OVER_CONVOLUTIONS)
        for row in rows_of(record, "image_layer")
        for name in [row["comparison"]]
    ]
    growth = [
        by_task(GROWTH, f"{cell}: {axis}", [f"{cell}, growth with {axis}"], "time_exponent")
        for cell in ("Purkinje", "granule")
        for axes in AXES.values()
        for axis in axes
    ]
    return [*EXACT, *SPEED, *layers, *LAYERS[2:], *CHOICE, *growth, *TRAINING]
