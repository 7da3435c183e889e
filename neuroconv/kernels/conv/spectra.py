"""Fourier transforms of sheets and filters, for the dendritic convolution by `fft_conv`.

Shapes: as in `neuroconv.kernels.conv`; the spectra's last two axes are (P', D' // 2 + 1) of the
transform's size (P', D').
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.counting import blocks
from neuroconv.kernels.constants import constant
from neuroconv.kernels.conv.sizes import Mode, padding, plain_sizes

# Complex numbers in flight at once, over neurons, samples and steps. On a CPU they stay in its
# cache; on a GPU they fill it and its memory still holds them.
CHUNK_POINTS = {"cpu": 1 << 20, "cuda": 3 << 24}
_LARGE_STEP, _MOST_CALLS = 1 << 15, 128  # complex numbers of a step; calls for a window
# Filters with at most this many branches are transformed along the sites by a product.
_FEW_BRANCHES = 32


def chunks(
    sheet: Tensor, filters: Tensor, size: tuple[int, int]
) -> Iterator[tuple[slice, Iterator[slice]]]:
    """Yields neurons, and for each of them samples, whose spectra are transformed at once."""
    batch, neurons, steps = plain_sizes(sheet)[:3]
    points = max(steps, plain_sizes(filters)[1]) * size[0] * (size[1] // 2 + 1)
    # On meta those of the CPU, so that counts agree.
    room = max(1, CHUNK_POINTS["cuda" if sheet.is_cuda else "cpu"] // points)
    samples = max(1, min(batch, room))
    for cells in blocks(neurons, max(1, room // samples), sheet.is_meta):
        yield cells, blocks(batch, samples, sheet.is_meta)


def fft_size(sheet: tuple[int, int], taps: tuple[int, int], mode: Mode) -> tuple[int, int]:
    """Returns the transform lengths: sheet and longer padding, rounded up to small prime factors.

    A circular correlation of this length has no wrap-around in the output, because the zeros after
    the sheet serve both of its ends. The filter has to fit in as well.
    """
    rows, cols = (max(n + max(padding(k, mode)), k) for n, k in zip(sheet, taps, strict=True))
    return _fast_length(rows), _fast_length(cols)


def _fast_length(points: int) -> int:
    """Returns the smallest length from `points` on with prime factors 2, 3, 5 and 7."""
    odd = [1]
    for prime in (3, 5, 7):
        powers = [prime**k for k in range(points.bit_length())]
        odd = [n * power for n in odd for power in powers if n * power < 2 * points]
    return min(n << (-(-points // n) - 1).bit_length() for n in odd)  # times a power of two


def filter_spectra(filters: Tensor, sheet: tuple[int, int], mode: Mode) -> Tensor:
    """Returns the conjugate spectra of filters, by which `fft_conv` multiplies: those of the
    flipped filters."""
    branches, across = plain_sizes(filters)[2:]
    before = sites_before(branches, across, mode)
    after = (branches - 1 - before[0], across - 1 - before[1])
    return spectra_of(filters.flip(2, 3), fft_size(sheet, (branches, across), mode), after)


def few_branches(branches: int) -> bool:
    """Returns whether a filter is transformed along the sites by a product with `site_waves`."""
    return branches <= _FEW_BRANCHES


def site_waves(branches: int, sites: int, before: int, like: Tensor, back: bool = False) -> Tensor:
    """Returns the DFT matrix from branches to frequencies, (P', K_P), or its inverse, (K_P, P'); on
    CUDA in complex128, since torch may be set to multiply complex64 in TF32."""
    if like.is_cuda:  # a copy would wait for the device, and a CUDA graph could not record it
        return device_waves(branches, sites, before, back, like.device)
    # By NumPy, since a counter would count torch's operators.
    angle = np.outer(np.arange(sites), np.arange(branches) - before) * (-2 * math.pi / sites)
    waves = np.exp(1j * angle)
    if back:
        waves = waves.conj().T / sites
    narrow = np.complex64 if like.dtype == torch.complex64 else np.complex128
    return torch.from_numpy(np.ascontiguousarray(waves, narrow)).to(like.device)


@constant
def device_waves(
    branches: int, sites: int, before: int, back: bool, device: torch.device
) -> Tensor:
    """Computes `site_waves` on a device, in complex128."""
    offset = torch.arange(branches, device=device, dtype=torch.float64) - before
    frequency = torch.arange(sites, device=device, dtype=torch.float64)
    angle = frequency[:, None] * offset * (-2 * math.pi / sites)
    waves = torch.polar(torch.ones_like(angle), angle)
    return waves.mH / sites if back else waves


def _along_sites(
    spectra: Tensor, branches: int, sites: int, before: int, back: bool = False
) -> Tensor:
    """Transforms the last axis but one by `site_waves`, in its precision."""
    waves = site_waves(branches, sites, before, spectra, back)
    return (waves @ spectra.to(waves.dtype)).to(spectra.dtype)


def sites_before(branches: int, across: int, mode: Mode) -> tuple[int, int]:
    return padding(branches, mode)[0], padding(across, mode)[0]


def spectra_of(filters: Tensor, size: tuple[int, int], before: tuple[int, int]) -> Tensor:
    """Transforms filters, shifted so that the tap at lag zero comes first."""
    branches, across = plain_sizes(filters)[2:]
    taps = as_real(filters)
    if few_branches(branches):
        rows = torch.roll(F.pad(taps, (0, size[1] - across)), -before[1], dims=-1)
        return _along_sites(torch.fft.rfft(rows), branches, size[0], before[0])
    padded = F.pad(taps, (0, size[1] - across, 0, size[0] - branches))
    return torch.fft.rfft2(torch.roll(padded, (-before[0], -before[1]), dims=(-2, -1)))


def taps_of(spectra: Tensor, size: tuple[int, int], taps: tuple[int, int], mode: Mode) -> Tensor:
    """Transforms spectra (N, P', D' // 2 + 1) back to taps (N, K_P, K_D)."""
    (branches, across), before = taps, sites_before(*taps, mode)
    if few_branches(branches):
        rows = _along_sites(spectra, branches, size[0], before[0], back=True)
        full = torch.fft.irfft(rows, n=size[1])
        return torch.roll(full, before[1], dims=2)[..., :across]
    full = torch.roll(torch.fft.irfft2(spectra, s=size), before, dims=(1, 2))
    return full[:, :branches, :across]


class SheetSpectra:
    """The spectra of sheets (B, N, T, P, D), by step if sheets are large and the window short: the
    working memory of one step stays in the cache."""

    def __init__(self, sheet: Tensor, size: tuple[int, int]) -> None:
        batch, neurons, self.steps = plain_sizes(sheet)[:3]
        points = batch * neurons * size[0] * (size[1] // 2 + 1)
        self.by_step = points >= _LARGE_STEP and self.steps <= _MOST_CALLS
        self._parts = [
            torch.fft.rfft2(as_real(sheet[:, :, group]).contiguous(), s=size)
            for group in self.groups(0, self.steps)
        ]

    def groups(self, start: int, end: int) -> list[slice]:
        """Splits steps into groups that are transformed at once."""
        if self.by_step:
            return [slice(step, step + 1) for step in range(start, end)]
        return [slice(start, end)]

    def of(self, steps: slice) -> Tensor:
        """Returns the spectra of steps of one group, (B, N, steps, P', D' // 2 + 1)."""
        return self._parts[steps.start] if self.by_step else self._parts[0][:, :, steps]

    def conjugate_(self) -> None:
        for part in self._parts:
            part.conj_physical_()


def as_real(tensor: Tensor) -> Tensor:
    """Converts half precision to float32, since the FFT takes no bfloat16."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
