"""The dendritic convolution by FFT on CUDA: torch's transforms, and Triton's kernels between them.

Two samples are transformed as one complex plane, its real and its imaginary part: torch's transform
back to real numbers would copy its input first. Sheets are written once into a buffer that is zero
around them, and results once from the transform to where they belong.

Shapes: as in `kernels.conv.fourier` and `kernels.cuda.fourier`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuroconv.kernels import cuda
from neuroconv.kernels.conv.sizes import Mode
from neuroconv.kernels.conv.spectra import chunks, filter_spectra, sites_before, spectra_of, taps_of
from neuroconv.kernels.cuda.launch import Kernel

_COPY, _LAG_SUM = Kernel("fourier", "copy_kernel"), Kernel("fourier", "lag_sum_kernel")
_CORRELATION = Kernel("fourier", "correlation_kernel")
_TILE, _MOST_PAIRS = 2048, 16  # complex numbers of a copying program, and its pairs of samples
_BLOCK, _MOST_STEPS = 128, 8  # frequencies of the other programs, and steps or lags


def convolve(
    sheet: Tensor, filters: Tensor, bias: Tensor | None, mode: Mode, size: tuple[int, int],
    spectra: Tensor | None, potential: Tensor,
) -> None:  # fmt: skip
    """Computes `fft_conv` by transforms of a size, into `potential`."""
    planes, plane = _Planes(size, sheet, filters), (sheet.shape[3], sheet.shape[4])
    for cells, all_samples in chunks(sheet, filters, size):
        kernels = filter_spectra(filters[cells], plane, mode) if spectra is None else spectra[cells]
        for samples in all_samples:
            inputs = planes.spectra(sheet[samples, cells])
            sums = _lag_sums(inputs, kernels, potential.shape[2], past=True)
            del inputs  # frees its memory
            planes.write(sums, potential[samples, cells], None if bias is None else bias[cells])


def differentiate(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, size: tuple[int, int],
    needs: Sequence[bool], to_sheet: Tensor, to_filters: Tensor, to_bias: Tensor,
) -> None:  # fmt: skip
    """Computes `fft_conv_backward` into the gradients that are needed. The bias's is what the
    spectra have at the frequency zero along the sites."""
    k_time, *taps = filters.shape[1:]
    if needs[1] and k_time > sheet.shape[2]:
        to_filters.zero_()  # taps before the window
    lags, before = min(sheet.shape[2], k_time), sites_before(taps[0], taps[1], mode)
    outputs = _Planes(size, sheet, filters)
    inputs = outputs if grad.shape[2:] == sheet.shape[2:] else _Planes(size, sheet, filters)
    for cells, all_samples in chunks(sheet, filters, size):
        kernels = spectra_of(filters[cells], size, before) if needs[0] else None
        totals, rows = None, []
        for samples in all_samples:
            grads = outputs.spectra(grad[samples, cells])
            if kernels is not None:
                sums = _lag_sums(grads, kernels, sheet.shape[2], past=False)
                outputs.write(sums, to_sheet[samples, cells])
                del sums  # frees its memory
            if needs[1]:
                totals = _correlations(inputs.spectra(sheet[samples, cells]), grads, lags, totals)
            if needs[2]:
                rows.append(grads[..., 0, :].sum((1, 2)))
            del grads
        if totals is not None:
            trained = taps_of(totals.flatten(0, 1), size, (taps[0], taps[1]), mode)
            to_filters[cells, k_time - lags :] = trained.unflatten(0, (-1, lags))
        if rows:
            pairs = torch.view_as_real(torch.fft.ifft(sum(rows)))
            to_bias[cells] = pairs[:, : grad.shape[4]].sum(2)


class _Planes:
    """Sheets as complex planes of the transform's size, two samples each, and back."""

    def __init__(self, size: tuple[int, int], *like: Tensor) -> None:
        self.size = size
        self.number = torch.float64 if torch.float64 in [x.dtype for x in like] else torch.float32
        self._buffer: Tensor | None = None  # zero around the sheets; the first is the largest

    def spectra(self, sheet: Tensor) -> Tensor:
        """Transforms a sheet (B, N, T, P, D) to (N, Q, T, P', D')."""
        batch, neurons, steps = sheet.shape[:3]
        shape = (neurons, -(-batch // 2), steps, *self.size)
        count = math.prod(shape)
        if self._buffer is None:
            self._buffer = torch.zeros(count, 2, dtype=self.number, device=sheet.device)
        planes = self._buffer[:count].view(*shape, 2)
        self._copy(sheet, planes, None, TO_PLANES=True, DIVISOR=1)
        return torch.fft.fft2(torch.view_as_complex(planes))

    def write(self, spectra: Tensor, target: Tensor, bias: Tensor | None = None) -> None:
        """Transforms spectra (N, Q, T, P', D') back to a sheet, plus a bias (N, D)."""
        planes = torch.view_as_real(torch.fft.ifft2(spectra, norm="forward"))
        self._copy(target, planes, bias, TO_PLANES=False, DIVISOR=math.prod(self.size))

    def _copy(self, sheet: Tensor, planes: Tensor, bias: Tensor | None, **constants: int) -> None:
        samples, neurons, steps, rows, cols = sheet.shape
        planes = planes[..., :rows, :cols, :]
        pairs, strides = planes.shape[1], [stride // 2 for stride in planes.stride()[:4]]
        block = min(_MOST_PAIRS, cuda.power(pairs))
        width = min(_TILE // block, cuda.power(cols))
        _COPY.launch(
            (neurons * steps * rows * -(-cols // width) * -(-pairs // block),),
            sheet, planes, planes if bias is None else bias.contiguous(), *sheet.stride(), *strides,
            samples, pairs, steps, rows, cols,
            BIASED=bias is not None, PAIRS=block, COLS=width, **constants,
        )  # fmt: skip


def _lag_sums(spectra: Tensor, filters: Tensor, steps: int, *, past: bool) -> Tensor:
    """Sums products of spectra (N, Q, T, P', D') and filters' spectra (N, K, P', H) over lags: for
    the last `steps` steps and those before them, or for `steps` that end with the spectra's and
    those after them."""
    neurons, pairs, inputs, rows, cols = spectra.shape
    sums, k_time = spectra.new_empty(neurons, pairs, steps, rows, cols), filters.shape[1]
    block, blocks = min(_MOST_STEPS, cuda.power(steps)), -(-rows * (cols // 2 + 1) // _BLOCK)
    _LAG_SUM.launch(
        (neurons * blocks * -(-steps // block) * pairs,),
        *map(torch.view_as_real, (spectra, filters.contiguous(), sums)),
        pairs, inputs, steps, k_time, min(max(inputs, steps), k_time), inputs - steps, rows, cols,
        SIGN=-1 if past else 1, STEPS=block, BLOCK=_BLOCK,
    )  # fmt: skip
    return sums


def _correlations(spectra: Tensor, grads: Tensor, lags: int, totals: Tensor | None) -> Tensor:
    """Correlates inputs' spectra with later gradients', and adds to totals (N, lags, P', H)."""
    neurons, pairs, inputs, rows, cols = spectra.shape
    half, block = cols // 2 + 1, min(_MOST_STEPS, cuda.power(lags))
    result = spectra.new_empty(neurons, lags, rows, half) if totals is None else totals
    _CORRELATION.launch(
        (neurons * -(-rows * half // _BLOCK) * -(-lags // block),),
        *map(torch.view_as_real, (spectra, grads, result)),
        pairs, inputs, grads.shape[2], lags, rows, cols,
        ADD=totals is not None, LAGS=block, BLOCK=_BLOCK,
    )  # fmt: skip
    return result
