"""Sizes of a dendritic convolution: what comes out, what is padded, what a step reads.

Shapes: T time steps, P sites along a dendrite, D dendrites; K_T, K_P, K_D the filter's time steps,
branches and dendrites. A window is (T, P, D) and taps are (K_T, K_P, K_D).
"""

from typing import Literal, get_args

from torch import Tensor

from neuroconv.layers.checks import check_choice

Mode = Literal["same", "valid", "per_dendrite"]
Backend = Literal["auto", "direct", "fft", "matmul"]
MODES: tuple[str, ...] = get_args(Mode)
BACKENDS: tuple[str, ...] = get_args(Backend)
Triple = tuple[int, int, int]


def output_size(sheet: tuple[int, int], taps: tuple[int, int], mode: Mode) -> tuple[int, int]:
    """Sites and dendrites (P', D') that come out of a (P, D) sheet under (K_P, K_D) taps.

    Raises:
        ValueError: an unknown mode, or taps that do not fit into the sheet.
    """
    (sites, dendrites), (branches, across) = sheet, taps
    check_choice("mode", mode, MODES)
    if mode == "same":
        return sites, dendrites
    if mode == "per_dendrite" and across != dendrites:
        raise ValueError(
            f"the filter spans {across} dendrites and the sheet has {dendrites}; mode "
            "'per_dendrite' needs taps for each: "
            f"filter_shape=({branches}, {dendrites}, time_steps)"
        )
    if branches > sites or across > dendrites:
        raise ValueError(
            f"a filter of {branches} branches x {across} dendrites does not fit into a sheet of "
            f"{sites} sites x {dendrites} dendrites; mode {mode!r} takes full overlaps only: "
            "make the filter smaller or use mode='same'"
        )
    return sites - branches + 1, dendrites if mode == "per_dendrite" else dendrites - across + 1


def needed_steps(time_steps: int, k_time: int, steps: int) -> int:
    """How many of the last steps the last `steps` outputs read."""
    return min(time_steps, steps + k_time - 1)


def step_pairs(time_steps: int, k_time: int, steps: int) -> int:
    """Pairs of a step that comes out, of the last `steps`, and a step of the window that it reads:
    the history before the window is zero and is not read."""
    return sum(min(step + 1, k_time) for step in range(time_steps - steps, time_steps))


def padding(taps: int, mode: Mode) -> tuple[int, int]:
    """Zeros before and after an axis: for an even filter the longer side is after."""
    return ((taps - 1) // 2, taps // 2) if mode == "same" else (0, 0)


def as_columns(window: Triple, taps: Triple, mode: Mode) -> tuple[Triple, Triple, Mode, int]:
    """Rewrites "per_dendrite" as the "valid" problem of so many one-dendrite neurons (the last)."""
    if mode != "per_dendrite":
        return window, taps, mode, 1
    return (*window[:2], 1), (*taps[:2], 1), "valid", window[2]


def plain_sizes(tensor: Tensor) -> list[int]:
    """A tensor's shape in plain integers, which it does not hold while a tracer records."""
    return [int(size) for size in tensor.shape]
