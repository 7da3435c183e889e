"""The dendritic convolution by a real 2-D FFT over sites and dendrites.

The time taps are applied in the frequency domain: a step's spectrum is the sum, over the taps, of a
past step's spectrum times a tap's. So each step is transformed once, and each tap once.

Shapes: as in `neuroconv.kernels.conv`; the spectra's last two axes are (P', D' // 2 + 1) of the
transform's size (P', D').
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.counting import blocks
from neuroconv.kernels.conv.sizes import Mode, output_size, plain_sizes
from neuroconv.kernels.conv.spectra import (
    SheetSpectra,
    as_real,
    fft_size,
    filter_spectra,
    sites_before,
    spectra_of,
    taps_of,
)
from neuroconv.kernels.operator import Operator, needs_reference, or_empty

# Complex numbers in flight at once, over neurons, samples and steps. On a CPU they stay in its
# cache; on a GPU they fill it and its memory still holds them.
_CHUNK_POINTS = {"cpu": 1 << 20, "cuda": 1 << 26}


def fft_conv(
    sheet: Tensor, filters: Tensor, mode: Mode, steps: int, spectra: Tensor | None = None
) -> Tensor:
    """Convolves (B, N, T, P, D) with (N, K_T, K_P, K_D) to (B, N, steps, P', D').

    `spectra` is the result of `filter_spectra` for these filters, computed if None.
    """
    run = _reference if needs_reference() else _fft_conv
    result: Tensor = run(sheet, filters, mode, steps, spectra)
    return result


def _reference(
    sheet: Tensor, filters: Tensor, mode: Mode, steps: int, spectra: Tensor | None
) -> Tensor:
    """Filters the whole window at once, without operators in place."""
    time_steps, sites, dendrites = plain_sizes(sheet)[2:]
    k_time, branches, across = plain_sizes(filters)[1:]
    size = fft_size((sites, dendrites), (branches, across), mode)
    rows, cols = output_size((sites, dendrites), (branches, across), mode)
    waves = torch.fft.rfft2(as_real(sheet), s=size)
    if spectra is None:
        spectra = filter_spectra(filters, (sites, dendrites), mode)
    sums = [
        sum(
            waves[:, :, step - lag] * spectra[:, k_time - 1 - lag]
            for lag in range(min(step + 1, k_time))
        )
        for step in range(time_steps - steps, time_steps)
    ]
    back = torch.fft.irfft2(torch.stack(sums, 2), s=size)
    return back[..., :rows, :cols].to(sheet.dtype)


def _chunks(tensor: Tensor, points: int) -> Iterator[tuple[slice, Iterator[slice]]]:
    """Yields neurons, and for each of them samples, of `points` complex numbers each, of a tensor
    (B, N, ...)."""
    batch, neurons = plain_sizes(tensor)[:2]
    # On meta those of the CPU, so that counts agree.
    room = max(1, _CHUNK_POINTS["cuda" if tensor.is_cuda else "cpu"] // points)
    samples = max(1, min(batch, room))
    for cells in blocks(neurons, max(1, room // samples), tensor.is_meta):
        yield cells, blocks(batch, samples, tensor.is_meta)


def _sum_steps(left: Tensor, right: Tensor) -> Tensor:
    """Sums products of two tensors (B, N, S, ...) over batch and steps to (N, ...).

    A few steps at a time: all products would be written and read again.
    """
    width = math.ceil(left.shape[2] / 16)
    (first, second), *rest = zip(left.split(width, 2), right.split(width, 2), strict=True)
    total = first * second
    for left_part, right_part in rest:
        total[:, :, : left_part.shape[2]].addcmul_(left_part, right_part)
    return total[0, :, 0] if total.shape[0] == total.shape[2] == 1 else total.sum((0, 2))


def _steps_back(
    spectra: SheetSpectra, kernels: Tensor, target: Tensor, size: tuple[int, int], *, past: bool
) -> None:
    """Sums products of the filters' spectra, (N, K, ...), with past or with future steps, and
    transforms them back into `target` (B, N, steps, P', D')."""
    time_steps, k_time = spectra.steps, kernels.shape[1]
    rows, cols = plain_sizes(target)[3:]
    before = time_steps - int(target.shape[2])
    for group in spectra.groups(before, time_steps):
        start, end = group.start, group.stop
        total = spectra.of(group) * kernels[:, k_time - 1].unsqueeze(1)
        for lag in range(1, min(time_steps, k_time)):
            kernel = kernels[:, k_time - 1 - lag].unsqueeze(1)
            if past and (first := max(start, lag)) < end:  # steps that have one `lag` before
                earlier = spectra.of(slice(first - lag, end - lag))
                total[:, :, first - start :].addcmul_(earlier, kernel)
            if not past and (last := min(end, time_steps - lag)) > start:  # or after
                later = spectra.of(slice(start + lag, last + lag))
                total[:, :, : last - start].addcmul_(later, kernel)
        if past:
            back = torch.fft.irfft2(total, s=size)
        else:  # one axis after the other: frees the first's memory before the second
            back = torch.fft.ifft(total, dim=-2)
            del total
            back = torch.fft.irfft(back[..., :rows, :], n=size[1])
        target[:, :, start - before : end - before] = back[..., :rows, :cols]
        del back  # frees its memory for the next step


def _plain(
    sheet: Tensor, filters: Tensor, mode: Mode, steps: int, spectra: Tensor | None
) -> Tensor:
    batch, neurons, time_steps, sites, dendrites = plain_sizes(sheet)
    _, k_time, branches, across = plain_sizes(filters)
    size = fft_size((sites, dendrites), (branches, across), mode)
    rows, cols = output_size((sites, dendrites), (branches, across), mode)
    potential = sheet.new_empty(batch, neurons, steps, rows, cols)
    points = max(time_steps, k_time) * size[0] * (size[1] // 2 + 1)
    for cells, all_samples in _chunks(sheet, points):
        kernels = (
            filter_spectra(filters[cells], (sites, dendrites), mode)
            if spectra is None
            else spectra[cells]
        )
        for samples in all_samples:
            inputs = SheetSpectra(sheet[samples, cells], size)
            _steps_back(inputs, kernels, potential[samples, cells], size, past=True)
    return potential


def _fake(sheet: Tensor, filters: Tensor, mode: Mode, steps: int, spectra: Tensor | None) -> Tensor:
    batch, neurons, _, *plane = sheet.shape
    out = output_size((plane[0], plane[1]), (filters.shape[2], filters.shape[3]), mode)
    return sheet.new_empty(batch, neurons, steps, *out)


def _plain_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Recomputes the input's spectra, which are larger than the sheet: memory is the first limit
    of a full Purkinje population."""
    to_sheet, to_filters = needs
    time_steps, sites, dendrites = plain_sizes(sheet)[2:]
    _, k_time, branches, across = plain_sizes(filters)
    if (early := time_steps - int(grad.shape[2])) > 0:  # steps that were not computed
        grad = F.pad(grad, (0, 0, 0, 0, early, 0))
    size = fft_size((sites, dendrites), (branches, across), mode)
    before = sites_before(branches, across, mode)
    grad_sheet = sheet.new_empty(sheet.shape) if to_sheet else None
    grad_filters: Tensor | None = None
    lags = range(min(time_steps, k_time))
    points = max(time_steps, k_time) * size[0] * (size[1] // 2 + 1)
    for cells, all_samples in _chunks(sheet, points):
        kernels = spectra_of(filters[cells], size, before) if to_sheet else None
        totals: list[Tensor] | None = None
        for samples in all_samples:
            grads = SheetSpectra(grad[samples, cells], size)
            if grad_sheet is not None and kernels is not None:
                _steps_back(grads, kernels, grad_sheet[samples, cells], size, past=False)
                if samples.stop == len(sheet):
                    kernels = None  # frees their memory
            if to_filters:
                grads.conjugate_()
                totals = _sum_pairs(sheet[samples, cells], grads, size, lags, totals)
            del grads
        if totals is not None:
            if grad_filters is None:  # not before the spectra, whose memory is the most
                grad_filters = filters.new_zeros(filters.shape)
            for lag, total in zip(lags, totals, strict=True):
                taps = taps_of(total, size, (branches, across), mode)
                grad_filters[cells, k_time - 1 - lag] = taps
    if to_filters and grad_filters is None:  # an empty batch
        grad_filters = filters.new_zeros(filters.shape)
    return or_empty(sheet, grad_sheet, grad_filters)


def _fake_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, needs: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    to_filters = filters.new_empty(filters.shape) if needs[1] else sheet.new_empty(0)
    return sheet.new_empty(sheet.shape) if needs[0] else sheet.new_empty(0), to_filters


def _sum_pairs(
    sheet: Tensor,
    grads: SheetSpectra,
    size: tuple[int, int],
    lags: range,
    totals: list[Tensor] | None,
) -> list[Tensor]:
    """Adds products of inputs' spectra and later gradients' to a total (N, ...) for each lag."""
    for group in grads.groups(0, grads.steps):
        inputs = torch.fft.rfft2(as_real(sheet[:, :, group]).contiguous(), s=size)
        for lag in lags:
            last = min(group.stop, grads.steps - lag)
            if last <= group.start:
                continue
            later = grads.of(slice(group.start + lag, last + lag))
            product = _sum_steps(inputs[:, :, : last - group.start], later)
            if totals is not None and len(totals) > lag:
                totals[lag] += product
            else:
                totals = [*(totals or []), product]
            del product
        del inputs  # frees its memory for the next step's transform
    return totals or []


_fft_conv = Operator(
    "fft_conv(Tensor sheet, Tensor filters, str mode, int steps, Tensor? spectra) -> Tensor",
    _plain, fake=_fake,
)  # fmt: skip
_fft_conv_backward = Operator(
    "fft_conv_backward(Tensor grad, Tensor sheet, Tensor filters, str mode, bool[] needs) "
    "-> (Tensor, Tensor)",
    _plain_backward, fake=_fake_backward,
)  # fmt: skip
_fft_conv.register_gradient(
    lambda grad, arguments, _, needs: _fft_conv_backward(grad, *arguments[:3], needs[:2]),
    _reference,
)
