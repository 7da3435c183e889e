"""The taps between the inputs and the branches of a small tree, as the C++ kernels take them.

Shapes: P x D points of a sheet, K_P x K_D taps on it; C output dendrites with R sites; A inputs.
"""

from functools import lru_cache

import torch
from torch import Tensor

from neuroconv.kernels import native
from neuroconv.kernels.conv.sizes import Mode, output_size, padding
from neuroconv.kernels.native.trees import TapIndex


@lru_cache(maxsize=256)
def sheet_taps(sheet: tuple[int, int], taps: tuple[int, int], mode: Mode, inputs: int) -> TapIndex:
    """Indexes the taps of A inputs at the first points of a sheet, dendrite by dendrite."""
    sites, (rows, columns) = sheet[0], output_size(sheet, taps, mode)
    line = sites + rows - 1
    dendrite = torch.arange(inputs, device="cpu") // sites
    site = torch.arange(inputs, device="cpu") % sites
    tap, first, last = _across(sheet[1], columns, taps[1], mode)
    offset = (tap[:, dendrite] * line + (sites - 1 - site)).contiguous()
    ends = (first * sites).clamp(max=inputs), (last * sites).clamp(max=inputs)
    return TapIndex(sheet, rows, offset, *ends, line, *_before(taps, mode), claw=False)


@lru_cache(maxsize=256)
def claw_taps(sheet: tuple[int, int], taps: tuple[int, int], mode: Mode, inputs: int) -> TapIndex:
    """Indexes the taps of inputs that end on all sites of one dendrite each."""
    rows, columns = output_size(sheet, taps, mode)
    line = native.padded(taps[1] * rows)
    tap, first, last = _across(sheet[1], columns, taps[1], mode)
    column = torch.arange(columns, device="cpu")[:, None]
    offset = torch.where(tap < taps[1], column * line + tap * rows, columns * line)
    offset = offset[:, :inputs].contiguous()
    ends = first.clamp(max=inputs), last.clamp(max=inputs)
    return TapIndex(sheet, rows, offset, *ends, line, *_before(taps, mode), claw=True)


def _before(taps: tuple[int, int], mode: Mode) -> tuple[int, int]:
    return padding(taps[0], mode)[0], padding(taps[1], mode)[0]


def _across(dendrites: int, columns: int, taps: int, mode: Mode) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the tap between each output and input dendrite, (C, D), K_D where there is none; the
    first input dendrite of each output dendrite, and one past the last, (C,)."""
    before = padding(taps, mode)[0]
    column = torch.arange(columns, device="cpu")
    tap = torch.arange(dendrites, device="cpu") + before - column[:, None]
    tap = torch.where((tap >= 0) & (tap < taps), tap, taps)
    first = (column - before).clamp(min=0)
    return tap, first, (column - before + taps).clamp(max=dendrites)
