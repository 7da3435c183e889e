"""Which taps join the inputs of a small tree and its branches, as the CPU's kernels want to know.

Shapes: P x D places of a sheet, K_P x K_D taps on it; R sites of C dendrites come out; A inputs.
"""

from functools import lru_cache

import torch
from torch import Tensor

from neuroconv.kernels import native
from neuroconv.kernels.conv.sizes import Mode, output_size, padding


@lru_cache(maxsize=256)
def sheet_taps(
    sheet: tuple[int, int], taps: tuple[int, int], mode: Mode, inputs: int
) -> native.TapIndex:
    """Of inputs that are the places of a sheet, dendrite by dendrite.

    Args:
        sheet: (P, D).
        taps: (K_P, K_D).
        inputs: of these places the first so many.
    """
    sites, (rows, columns) = sheet[0], output_size(sheet, taps, mode)
    line = sites + rows - 1
    dendrite = torch.arange(inputs, device="cpu") // sites
    site = torch.arange(inputs, device="cpu") % sites
    tap, first, last = _across(sheet[1], columns, taps[1], mode)
    place = (tap[:, dendrite] * line + (sites - 1 - site)).contiguous()
    ends = (first * sites).clamp(max=inputs), (last * sites).clamp(max=inputs)
    return native.TapIndex(sheet, rows, place, *ends, line, *_before(taps, mode), claw=False)


@lru_cache(maxsize=256)
def claw_taps(
    sheet: tuple[int, int], taps: tuple[int, int], mode: Mode, inputs: int
) -> native.TapIndex:
    """Of inputs that reach all sites of one dendrite each."""
    rows, columns = output_size(sheet, taps, mode)
    line = native.whole(taps[1] * rows)
    tap, first, last = _across(sheet[1], columns, taps[1], mode)
    column = torch.arange(columns, device="cpu")[:, None]
    place = torch.where(tap < taps[1], column * line + tap * rows, columns * line)
    place = place[:, :inputs].contiguous()
    ends = first.clamp(max=inputs), last.clamp(max=inputs)
    return native.TapIndex(sheet, rows, place, *ends, line, *_before(taps, mode), claw=True)


def _before(taps: tuple[int, int], mode: Mode) -> tuple[int, int]:
    return padding(taps[0], mode)[0], padding(taps[1], mode)[0]


def _across(dendrites: int, columns: int, taps: int, mode: Mode) -> tuple[Tensor, Tensor, Tensor]:
    """(C, D): which tap joins a dendrite to one that comes out, one past the last where none does;
    and the dendrites, first and one past the last, that reach each."""
    before = padding(taps, mode)[0]
    column = torch.arange(columns, device="cpu")
    tap = torch.arange(dendrites, device="cpu") + before - column[:, None]
    tap = torch.where((tap >= 0) & (tap < taps), tap, taps)
    first = (column - before).clamp(min=0)
    return tap, first, (column - before + taps).clamp(max=dendrites)
