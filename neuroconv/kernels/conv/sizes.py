"""Sizes of a dendritic convolution: its output, its padding, the inputs of a step.

Shapes: T time steps, P sites along a dendrite, D dendrites; K_T, K_P, K_D the filter's time steps,
branches and dendrites. A window is (T, P, D) and taps are (K_T, K_P, K_D).
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from neuroconv.core.checks import check_choice

Mode = Literal["same", "valid", "per_dendrite"]
Backend = Literal["auto", "direct", "fft", "matmul"]
MODES: tuple[str, ...] = get_args(Mode)
BACKENDS: tuple[str, ...] = get_args(Backend)
Triple = tuple[int, int, int]


def output_size(sheet: tuple[int, int], taps: tuple[int, int], mode: Mode) -> tuple[int, int]:
    """Returns sites and dendrites (P', D') of the output of a (P, D) sheet under (K_P, K_D) taps.

    Raises:
        ValueError: an unknown mode, or taps that do not fit into the sheet.
    """
    (sites, dendrites), (branches, across) = sheet, taps
    if mode not in MODES:
        check_choice("mode", mode, MODES)
    if mode == "same":
        return sites, dendrites
    if mode == "per_dendrite" and across != dendrites:
        raise ValueError(
            f"the filter spans {across} dendrites and the sheet has {dendrites}; mode "
            f"'per_dendrite' needs taps for each: filter=({branches}, {dendrites}, time_steps)"
        )
    if branches > sites or across > dendrites:
        raise ValueError(
            f"a filter of {branches} branches x {across} dendrites does not fit into a sheet of "
            f"{sites} sites x {dendrites} dendrites; mode {mode!r} takes full overlaps only: "
            "make the filter smaller or use mode='same'"
        )
    return sites - branches + 1, dendrites if mode == "per_dendrite" else dendrites - across + 1


def needed_steps(time_steps: int, k_time: int, steps: int) -> int:
    """Returns how many of the last steps the last `steps` outputs read."""
    return min(time_steps, steps + k_time - 1)


def step_pairs(time_steps: int, k_time: int, steps: int) -> int:
    """Counts the input steps that each of the last `steps` outputs reads within the window."""
    return sum(min(step + 1, k_time) for step in range(time_steps - steps, time_steps))


def axis_pairs(size: int, taps: int, mode: Mode) -> int:
    """Counts the pairs of an input and an output point of an axis that a tap connects."""
    before, after = padding(taps, mode)
    starts = range(-before, size + after - taps + 1)  # where a filter starts
    return sum(min(size, start + taps) - max(0, start) for start in starts)


def padding(taps: int, mode: Mode) -> tuple[int, int]:
    """Returns the zeros before and after an axis: an even filter has one more after it."""
    return ((taps - 1) // 2, taps // 2) if mode == "same" else (0, 0)


class ConvProblem(NamedTuple):
    """A dendritic convolution in sizes alone."""

    sheet: Triple  # (T, P, D)
    taps: Triple  # (K_T, K_P, K_D)
    mode: Mode
    batch: int = 1
    neurons: int = 1  # with one filter each
    steps: int | None = None  # how many of the last steps are computed; None is all

    # Methods, not properties: torch.compile of 2.10 cannot read those of a tuple.
    def out_steps(self) -> int:
        return self.sheet[0] if self.steps is None else self.steps

    def plane(self) -> tuple[tuple[int, int], tuple[int, int], Mode]:
        """The arguments of `output_size`."""
        return self.sheet[1:], self.taps[1:], self.mode

    def as_columns(self) -> "ConvProblem":
        """Returns the problem as it is computed: with only the steps that are read, and
        "per_dendrite" as "valid" neurons of one dendrite."""
        time_steps, sites, dendrites = self.sheet
        read = needed_steps(time_steps, self.taps[0], self.out_steps())
        problem = self._replace(sheet=(read, sites, dendrites), steps=self.out_steps())
        if self.mode != "per_dendrite":
            return problem
        return problem._replace(
            sheet=(read, sites, 1), taps=(*self.taps[:2], 1), mode="valid",
            neurons=self.neurons * dendrites,
        )  # fmt: skip


def plain_sizes(tensor: Tensor) -> list[int]:
    """Returns a tensor's shape as integers, also under a tracer; an exporter's open batch stays a
    symbol."""
    return [size if isinstance(size, torch.SymInt) else int(size) for size in tensor.shape]


def output_plane(sheet: Tensor, filters: Tensor, mode: Mode) -> tuple[int, int]:
    """Returns (P', D') of sheets (B, N, T, P, D) under filters (N, K_T, K_P, K_D)."""
    (sites, dendrites), (branches, across) = plain_sizes(sheet)[3:], plain_sizes(filters)[2:]
    return output_size((sites, dendrites), (branches, across), mode)
