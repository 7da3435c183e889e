"""The dendritic convolution by a real 2-D FFT over sites and dendrites.

The time taps are applied in the frequency domain: a step's spectrum is the sum, over the taps, of a
past step's spectrum times a tap's. So each step is transformed once, and each tap once.

Shapes: as in `neuroconv.layers.conv`; the spectra's last two axes are (P', D' // 2 + 1) of the
transform's size (P', D').
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroconv.layers.conv.sizes import Mode, output_size, padding, plain_sizes

# Complex numbers in flight at once, over neurons, samples and steps. On a CPU they stay in its
# cache; on a GPU they fill it and its memory still holds them.
_CHUNK_POINTS = {"cpu": 1 << 20, "cuda": 1 << 26}


def fft_conv(
    sheet: Tensor, filters: Tensor, mode: Mode, steps: int, spectra: Tensor | None = None
) -> Tensor:
    """(B, N, T, P, D), (N, K_T, K_P, K_D) -> (B, N, steps, P', D').

    Args:
        spectra: of the filters, as `filter_spectra` gave them; made anew if None.
    """
    needs_grad = torch.is_grad_enabled() and (sheet.requires_grad or filters.requires_grad)
    if needs_grad and not torch.jit.is_tracing():  # a tracer cannot look into a Function
        result: Tensor = _FFTConv.apply(sheet, filters, mode, steps)
        return result
    return _forward(sheet, filters, mode, steps, spectra)


def fft_size(sheet: tuple[int, int], taps: tuple[int, int], mode: Mode) -> tuple[int, int]:
    """Transform lengths: the sheet and its longer padding, rounded up to small prime factors.

    A circular correlation of this length is free of wrap-around where it is read, because the
    zeros after the sheet serve both of its ends. The filter has to fit in as well.
    """
    rows, cols = (max(n + max(padding(k, mode)), k) for n, k in zip(sheet, taps, strict=True))
    return _fast_length(rows), _fast_length(cols)


def _fast_length(points: int) -> int:
    """The smallest length from `points` on whose prime factors are 2, 3, 5 and 7."""
    while True:
        rest = points
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return points
        points += 1


def filter_spectra(filters: Tensor, sheet: tuple[int, int], mode: Mode) -> Tensor:
    """What `fft_conv` multiplies by: the conjugate spectra of filters for a (P, D) sheet."""
    branches, across = plain_sizes(filters)[2:]
    size = fft_size(sheet, (branches, across), mode)
    return _conjugate(_spectra(filters, size, _before(branches, across, mode)))


def _before(branches: int, across: int, mode: Mode) -> tuple[int, int]:
    return padding(branches, mode)[0], padding(across, mode)[0]


def _spectra(filters: Tensor, size: tuple[int, int], before: tuple[int, int]) -> Tensor:
    """Transforms of the filters, shifted so that the tap that meets a point itself comes first."""
    branches, across = plain_sizes(filters)[2:]
    padded = F.pad(_real(filters), (0, size[1] - across, 0, size[0] - branches))
    return torch.fft.rfft2(torch.roll(padded, (-before[0], -before[1]), dims=(2, 3)))


def _real(tensor: Tensor) -> Tensor:
    """Half-precision inputs are transformed in float32: the FFT takes no bfloat16."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _conjugate(spectrum: Tensor) -> Tensor:
    return spectrum.conj().resolve_conj()


def _chunks(tensor: Tensor, points: int) -> tuple[list[slice], list[slice]]:
    """Neurons, and samples, to go through at once, where a sample of a neuron has so many points.

    Shape: tensor (B, N, ...)
    """
    batch, neurons = plain_sizes(tensor)[:2]
    # On meta as on the CPU, that a count there is the CPU's; but no more chunks than take no time.
    room = max(1, _CHUNK_POINTS["cuda" if tensor.is_cuda else "cpu"] // points)
    if tensor.is_meta:
        room = max(room, -(-batch * neurons // 256))
    samples = max(1, min(batch, room))
    return _slices(neurons, max(1, room // samples)), _slices(batch, samples)


def _slices(length: int, width: int) -> list[slice]:
    return [slice(first, min(first + width, length)) for first in range(0, length, width)]


def _sum_past(inputs: Tensor, kernels: Tensor, steps: int) -> Tensor:
    """For each of the last `steps`, its spectrum times the last tap's, the one before it times the
    one before, and so on.

    Shape: inputs (B, N, T, ...), kernels (N, K, ...) -> (B, N, steps, ...)
    """
    time_steps, k_time = inputs.shape[2], kernels.shape[1]
    first = time_steps - steps
    total = inputs[:, :, first:] * kernels[:, k_time - 1].unsqueeze(1)
    for lag in range(1, min(time_steps, k_time)):
        start = max(first, lag)  # the first step that has one so long before it
        past = inputs[:, :, start - lag : time_steps - lag]
        total[:, :, start - first :].addcmul_(past, kernels[:, k_time - 1 - lag].unsqueeze(1))
    return total


def _sum_future(grads: Tensor, kernels: Tensor) -> Tensor:
    """The transpose of `_sum_past` over all steps: a step reaches as many later ones as there are
    taps.

    Shape: grads (B, N, T, ...), kernels (N, K, ...) -> (B, N, T, ...)
    """
    time_steps, k_time = grads.shape[2], kernels.shape[1]
    total = grads * kernels[:, k_time - 1].unsqueeze(1)
    for lag in range(1, min(time_steps, k_time)):
        later = grads[:, :, lag:]
        total[:, :, :-lag].addcmul_(later, kernels[:, k_time - 1 - lag].unsqueeze(1))
    return total


def _sum_steps(left: Tensor, right: Tensor) -> Tensor:
    """Products summed over batch and steps, (B, N, S, ...) twice -> (N, ...).

    A few steps at a time go into one sum: a product of all of them would be written and read again.
    """
    width = math.ceil(left.shape[2] / 16)
    (first, second), *rest = zip(left.split(width, 2), right.split(width, 2), strict=True)
    total = first * second
    for each, other in rest:
        total[:, :, : each.shape[2]].addcmul_(each, other)
    return total.sum((0, 2))


def _forward(
    sheet: Tensor, filters: Tensor, mode: Mode, steps: int, spectra: Tensor | None
) -> Tensor:
    batch, neurons, time_steps, sites, dendrites = plain_sizes(sheet)
    _, k_time, branches, across = plain_sizes(filters)
    size = fft_size((sites, dendrites), (branches, across), mode)
    rows, cols = output_size((sites, dendrites), (branches, across), mode)
    potential = sheet.new_empty(batch, neurons, steps, rows, cols)
    all_cells, all_samples = _chunks(sheet, max(time_steps, k_time) * size[0] * (size[1] // 2 + 1))
    for cells in all_cells:
        kernels = (
            filter_spectra(filters[cells], (sites, dendrites), mode)
            if spectra is None
            else spectra[cells]
        )
        for samples in all_samples:
            inputs = torch.fft.rfft2(_real(sheet[samples, cells]).contiguous(), s=size)
            products = _sum_past(inputs, kernels, steps)
            del inputs
            potential[samples, cells] = torch.fft.irfft2(products, s=size)[..., :rows, :cols]
    return potential


class _FFTConv(torch.autograd.Function):
    """The FFT convolution with its backward written out.

    The input's spectra are computed again in the backward pass: they are larger than the sheet
    itself, and memory is what a full Purkinje population runs out of first.
    """

    @staticmethod
    def forward(ctx: Any, sheet: Tensor, filters: Tensor, mode: Mode, steps: int) -> Tensor:
        ctx.save_for_backward(sheet, filters)
        ctx.mode = mode
        return _forward(sheet, filters, mode, steps, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        sheet, filters = ctx.saved_tensors
        to_sheet, to_filters = ctx.needs_input_grad[:2]
        time_steps, sites, dendrites = plain_sizes(sheet)[2:]
        _, k_time, branches, across = plain_sizes(filters)
        if (early := time_steps - int(grad.shape[2])) > 0:  # not computed: they passed nothing on
            grad = F.pad(grad, (0, 0, 0, 0, early, 0))
        size = fft_size((sites, dendrites), (branches, across), ctx.mode)
        before = _before(branches, across, ctx.mode)
        grad_sheet = sheet.new_empty(sheet.shape) if to_sheet else None
        grad_filters = filters.new_zeros(filters.shape) if to_filters else None
        lags = range(min(time_steps, k_time))
        points = max(time_steps, k_time) * size[0] * (size[1] // 2 + 1)
        all_cells, all_samples = _chunks(sheet, points)
        for cells in all_cells:
            kernels = _spectra(filters[cells], size, before) if to_sheet else None
            totals: list[Tensor] | None = None
            for samples in all_samples:
                grads = torch.fft.rfft2(_real(grad[samples, cells]).contiguous(), s=size)
                if grad_sheet is not None and kernels is not None:
                    back = torch.fft.irfft2(_sum_future(grads, kernels), s=size)
                    grad_sheet[samples, cells] = back[..., :sites, :dendrites]
                    del back
                if to_filters:
                    inputs = torch.fft.rfft2(_real(sheet[samples, cells]).contiguous(), s=size)
                    grads = _conjugate(grads)
                    products = [
                        _sum_steps(inputs[:, :, : time_steps - lag], grads[:, :, lag:])
                        for lag in lags
                    ]
                    totals = products if totals is None else _added(totals, products)
            if grad_filters is not None and totals is not None:
                # The forward pass shifted the filter by its padding; its gradient is shifted back.
                for lag, total in zip(lags, totals, strict=True):
                    shifted = torch.roll(torch.fft.irfft2(total, s=size), before, dims=(1, 2))
                    grad_filters[cells, k_time - 1 - lag] = shifted[:, :branches, :across]
        return grad_sheet, grad_filters, None, None


def _added(totals: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    return [total.add_(each) for total, each in zip(totals, more, strict=True)]
