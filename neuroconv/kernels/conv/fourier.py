"""The dendritic convolution by a real 2-D FFT over sites and dendrites.

The time taps are applied in the frequency domain: a step's spectrum is the sum, over the taps, of a
past step's spectrum times a tap's. So each step is transformed once, and each tap once. On CUDA
kernels do what is between the transforms (`fourier_cuda`, not run on a GPU yet).

Shapes: as in `neuroconv.kernels.conv`; the spectra's last two axes are (P', D' // 2 + 1) of the
transform's size (P', D').
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels import cuda
from neuroconv.kernels.conv import fourier_cuda
from neuroconv.kernels.conv.sizes import Mode, output_plane, output_size, plain_sizes
from neuroconv.kernels.conv.spectra import (
    SheetSpectra,
    as_real,
    chunks,
    fft_size,
    filter_spectra,
    sites_before,
    spectra_of,
    taps_of,
)
from neuroconv.kernels.operator import Operator, needs_reference, or_empty


def fft_conv(
    sheet: Tensor, filters: Tensor, bias: Tensor | None, mode: Mode, steps: int,
    spectra: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Convolves (B, N, T, P, D) with (N, K_T, K_P, K_D) to (B, N, steps, P', D') in the sheet's
    precision, and adds a bias (N, D').

    `spectra` is the result of `filter_spectra` for these filters, computed if None.
    """
    run = _reference if needs_reference() else _fft_conv
    return run(sheet, filters, bias, mode, steps, spectra)


def _reference(
    sheet: Tensor, filters: Tensor, bias: Tensor | None, mode: Mode, steps: int,
    spectra: Tensor | None,
) -> Tensor:  # fmt: skip
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
    return _plus(back[..., :rows, :cols].to(sheet.dtype), bias)


def _plus(potential: Tensor, bias: Tensor | None) -> Tensor:
    return potential if bias is None else (potential + bias[:, None, None, :]).to(potential.dtype)


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


def _forward(
    sheet: Tensor, filters: Tensor, bias: Tensor | None, mode: Mode, steps: int,
    spectra: Tensor | None,
) -> Tensor:  # fmt: skip
    plane, taps = (plain_sizes(sheet)[3], plain_sizes(sheet)[4]), plain_sizes(filters)[2:]
    size = fft_size(plane, (taps[0], taps[1]), mode)
    potential = _fake(sheet, filters, bias, mode, steps, spectra)
    if cuda.runs(sheet):
        fourier_cuda.convolve(sheet, filters, bias, mode, size, spectra, potential)
        return potential
    for cells, all_samples in chunks(sheet, filters, size):
        kernels = filter_spectra(filters[cells], plane, mode) if spectra is None else spectra[cells]
        for samples in all_samples:
            inputs = SheetSpectra(sheet[samples, cells], size)
            _steps_back(inputs, kernels, potential[samples, cells], size, past=True)
    return _plus(potential, bias)


def _fake(
    sheet: Tensor, filters: Tensor, bias: Tensor | None, mode: Mode, steps: int,
    spectra: Tensor | None,
) -> Tensor:  # fmt: skip
    batch, neurons = plain_sizes(sheet)[:2]
    return sheet.new_empty(batch, neurons, steps, *output_plane(sheet, filters, mode))


def _backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Recomputes the input's spectra, which are larger than the sheet: memory is the first limit
    of a full Purkinje population."""
    time_steps, sites, dendrites = plain_sizes(sheet)[2:]
    _, k_time, branches, across = plain_sizes(filters)
    size = fft_size((sites, dendrites), (branches, across), mode)
    before = sites_before(branches, across, mode)
    if cuda.runs(sheet):
        results = _fake_backward(grad, sheet, filters, mode, needs)
        fourier_cuda.differentiate(grad, sheet, filters, mode, size, needs, *results)
        return results
    to_sheet, to_filters, to_bias = needs
    grad_sheet = _like_sheet(sheet) if to_sheet else None
    grad_bias = grad.sum((0, 2, 3), dtype=filters.dtype) if to_bias else None
    if (early := time_steps - int(grad.shape[2])) > 0:  # steps that were not computed
        grad = F.pad(grad, (0, 0, 0, 0, early, 0))
    grad_filters: Tensor | None = None
    lags = range(min(time_steps, k_time))
    for cells, all_samples in chunks(sheet, filters, size):
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
    return or_empty(sheet, grad_sheet, grad_filters, grad_bias)


def _like_sheet(sheet: Tensor) -> Tensor:
    """Allocates a sheet's gradient, on CUDA in the order in memory that synapses read."""
    return torch.empty_like(sheet) if sheet.is_cuda else sheet.new_empty(sheet.shape)


def _fake_backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    return or_empty(
        sheet,
        _like_sheet(sheet) if needs[0] else None,
        filters.new_empty(filters.shape) if needs[1] else None,
        filters.new_empty(grad.shape[1], grad.shape[4]) if needs[2] else None,
    )


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
    "fft_conv(Tensor sheet, Tensor filters, Tensor? bias, str mode, int steps, Tensor? spectra) "
    "-> Tensor",
    _forward, fake=_fake,
)  # fmt: skip
_fft_conv_backward = Operator(
    "fft_conv_backward(Tensor grad, Tensor sheet, Tensor filters, str mode, bool[] needs) "
    "-> (Tensor, Tensor, Tensor)",
    _backward, fake=_fake_backward,
)  # fmt: skip
_fft_conv.register_gradient(
    lambda grad, arguments, _, needs: _fft_conv_backward(
        grad, *arguments[:2], arguments[3], needs[:3]
    ),
    _reference,
)
