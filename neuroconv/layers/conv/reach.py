"""Which taps join the inputs of a small tree and its branches, as the CPU's kernels want to know.

Shapes: P x D places of a sheet, K_P x K_D taps on it; R sites of C dendrites come out; A inputs, S
taps of one neuron and time tap.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.layers.conv.sizes import Mode, output_size, padding
from neuroconv.layers.native import Reach


@lru_cache(maxsize=256)
def sheet_reach(sheet: tuple[int, int], taps: tuple[int, int], mode: Mode, inputs: int) -> Reach:
    """Of inputs that are the places of a sheet, dendrite by dendrite, with `sheet_taps`.

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
    place = tap[:, dendrite] * line + (sites - 1 - site)
    ends = (first * sites).clamp(max=inputs), (last * sites).clamp(max=inputs)
    along = (sites, taps[0], padding(taps[0], mode)[0])
    return Reach(rows, place.contiguous(), *ends, (taps[1] + 1) * line, *along)


@lru_cache(maxsize=256)
def claw_reach(sheet: tuple[int, int], taps: tuple[int, int], mode: Mode, inputs: int) -> Reach:
    """Of inputs that reach all sites of one dendrite each, with `layers.joining.Joining.along`."""
    rows, columns = output_size(sheet, taps, mode)
    tap, first, last = _across(sheet[1], columns, taps[1], mode)
    dendrite = torch.arange(inputs, device="cpu")
    place = (tap[:, :inputs] * sheet[1] + dendrite) * rows
    ends = first.clamp(max=inputs), last.clamp(max=inputs)
    return Reach(rows, place.contiguous(), *ends, (taps[1] + 1) * sheet[1] * rows)


def sheet_taps(filters: Tensor, sheet: tuple[int, int], mode: Mode) -> Tensor:
    """Filters (N, K, K_P, K_D) so that a dendrite's sites are reached from each place by taps that
    lie side by side, (N, K, S): turned along the sites, with zeros where none reaches."""
    turned = filters.flip(2).transpose(2, 3)
    return F.pad(turned, _pads(filters.shape, sheet, mode)).flatten(2)


def sheet_taps_back(
    grad: Tensor, filters: torch.Size, sheet: tuple[int, int], mode: Mode
) -> Tensor:
    """The transpose of `sheet_taps`: what a gradient (N, K, S) is to filters of this shape."""
    pads = _pads(filters, sheet, mode)
    lines = grad.unflatten(2, (filters[3] + 1, -1))
    return F.pad(lines, tuple(-pad for pad in pads)).transpose(2, 3).flip(2)


def _pads(filters: torch.Size, sheet: tuple[int, int], mode: Mode) -> tuple[int, int, int, int]:
    """Zeros before and after the taps along the sites; and one more tap across, of zeros."""
    branches, across = filters[2], filters[3]
    rows = output_size(sheet, (branches, across), mode)[0]
    before = sheet[0] + padding(branches, mode)[0] - branches
    return before, sheet[0] + rows - 1 - branches - before, 0, 1


def _across(dendrites: int, columns: int, taps: int, mode: Mode) -> tuple[Tensor, Tensor, Tensor]:
    """(C, D): which tap joins a dendrite to one that comes out, one past the last where none does;
    and the dendrites, first and one past the last, that reach each."""
    before = padding(taps, mode)[0]
    column = torch.arange(columns, device="cpu")
    tap = torch.arange(dendrites, device="cpu") + before - column[:, None]
    tap = torch.where((tap >= 0) & (tap < taps), tap, taps)
    first = (column - before).clamp(min=0)
    return tap, first, (column - before + taps).clamp(max=dendrites)
