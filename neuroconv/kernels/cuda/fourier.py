"""Triton kernels between the transforms of `kernels.conv.fourier_cuda`.

Two samples are the real and the imaginary part of one complex plane. Filters are real: their
products keep the two apart, and at a mirrored frequency (-u, -v) the conjugate replaces a spectrum.

Shapes: N neurons, Q pairs of samples, T time steps, K taps; planes (N, Q, T, P', D') of the
transform's size (P', D'); filters' spectra (N, K, P', H), H = D' // 2 + 1. Complex numbers are
pairs of real ones. Offsets are 64 bits wide.
"""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def copy_kernel(
    sheet, planes, bias,
    sheet_b, sheet_n, sheet_t, sheet_p, sheet_d, planes_n, planes_q, planes_t, planes_p,
    samples, pairs, steps, rows, cols,
    TO_PLANES: tl.constexpr, BIASED: tl.constexpr, DIVISOR: tl.constexpr,
    PAIRS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Copies a block of samples and columns of one row, from a sheet of any strides to planes or
    back: then divided, and with a bias (N, cols).

    It is transposed in registers, so that both sides are read and written in their own order.
    """
    blocks, groups = (cols + COLS - 1) // COLS, (pairs + PAIRS - 1) // PAIRS
    program = tl.program_id(0) // groups
    first, line = program % blocks * COLS, (program // blocks).to(tl.int64)
    pair = tl.program_id(0) % groups * PAIRS + tl.arange(0, PAIRS).to(tl.int64)
    sample = tl.program_id(0) % groups * 2 * PAIRS + tl.arange(0, 2 * PAIRS).to(tl.int64)
    row, step, neuron = line % rows, line // rows % steps, line // rows // steps
    col, number = first + tl.arange(0, COLS).to(tl.int64), 2 * first + tl.arange(0, 2 * COLS)
    sheet += neuron * sheet_n + step * sheet_t + row * sheet_p
    planes += 2 * (neuron * planes_n + step * planes_t + row * planes_p)
    on_sheet = sheet + col[:, None] * sheet_d + sample[None, :] * sheet_b
    on_planes = planes + 2 * pair[:, None] * planes_q + number[None, :]
    in_sheet = (col < cols)[:, None] & (sample < samples)[None, :]
    in_planes = (pair < pairs)[:, None] & (number < 2 * cols)[None, :]
    if TO_PLANES:  # the last of an odd number of samples has zeros as its other half
        value = tl.load(on_sheet, mask=in_sheet, other=0.0).to(planes.dtype.element_ty)
        value = tl.permute(tl.reshape(value, (COLS, PAIRS, 2)), (1, 0, 2))
        tl.store(on_planes, tl.reshape(value, (PAIRS, 2 * COLS)), mask=in_planes)
    else:
        value = tl.load(on_planes, mask=in_planes, other=0.0) / DIVISOR
        value = tl.permute(tl.reshape(value, (PAIRS, COLS, 2)), (1, 0, 2))
        value = tl.reshape(value, (COLS, 2 * PAIRS))
        if BIASED:
            rest = tl.load(bias + neuron * cols + col, mask=col < cols, other=0.0)
            value += rest.to(value.dtype)[:, None]
        tl.store(on_sheet, value.to(sheet.dtype.element_ty), mask=in_sheet)


@triton.jit
def _load(numbers, offset, inside):
    """Loads (rows, numbers), zero outside, as the real and the imaginary parts of half as many."""
    value = tl.load(numbers + offset, mask=inside, other=0.0)
    return tl.split(tl.reshape(value, (value.shape[0], value.shape[1] // 2, 2)))


@triton.jit
def _store(numbers, offset, real, imaginary, inside):
    value = tl.reshape(tl.join(real, imaginary), (real.shape[0], 2 * real.shape[1]))
    tl.store(numbers + offset, value, mask=inside)


@triton.jit
def _frequency(point, rows, cols, MIRRORED: tl.constexpr):
    """Returns the offset in a plane of a point of a filter's spectrum, or of its mirror."""
    u, v = point // (cols // 2 + 1), point % (cols // 2 + 1)
    if MIRRORED:
        u, v = tl.where(u == 0, 0, rows - u), tl.where(v == 0, 0, cols - v)
    return u * cols + v


@triton.jit
def lag_sum_kernel(
    planes, filters, sums, pairs, inputs, outputs, k_time, lags, shift, rows, cols,
    SIGN: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums planes times filters over lags: output step t reads input step t + shift + SIGN * lag.

    Programs that follow one another read the same filters.
    """
    half, windows = rows * (cols // 2 + 1), (outputs + STEPS - 1) // STEPS
    pair, program = tl.program_id(0) % pairs, tl.program_id(0) // pairs
    step = (program % windows * STEPS + tl.arange(0, STEPS))[:, None]
    program, blocks = program // windows, (half + BLOCK - 1) // BLOCK
    neuron = (program // blocks).to(tl.int64)
    part = (tl.arange(0, 2 * BLOCK) % 2)[None, :]
    point = (program % blocks * BLOCK + tl.arange(0, 2 * BLOCK) // 2)[None, :]
    for MIRRORED in tl.static_range(2):
        here, column = _frequency(point, rows, cols, MIRRORED), point % (cols // 2 + 1)
        inside = point < half
        if MIRRORED:  # some mirrors are in the spectrum themselves
            inside = inside & (column > 0) & (2 * column < cols)
        real = tl.zeros((STEPS, BLOCK), sums.dtype.element_ty)
        imaginary = real
        for lag in range(lags):
            origin = step + shift + SIGN * lag
            reached = (origin >= 0) & (origin < inputs) & (step < outputs) & inside
            offset = ((neuron * pairs + pair) * inputs + origin) * (rows * cols) + here
            x, y = _load(planes, 2 * offset + part, reached)
            tap = (neuron * k_time + k_time - 1 - lag) * half + point
            a, b = _load(filters, 2 * tap + part, inside)
            if MIRRORED:
                b = -b
            real += x * a - y * b
            imaginary += x * b + y * a
        offset = ((neuron * pairs + pair) * outputs + step) * (rows * cols) + here
        _store(sums, 2 * offset + part, real, imaginary, (step < outputs) & inside)


@triton.jit
def correlation_kernel(
    planes, grads, totals, pairs, inputs, outputs, lags, rows, cols,
    ADD: tl.constexpr, LAGS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes, or adds to, totals (N, lags, P', H), the largest lag first: sums over samples and
    steps of inputs times conjugate gradients `lag` steps later, which are of the last steps.

    The part of two samples' product that is the spectrum of a real filter is the sum of both.
    """
    half = rows * (cols // 2 + 1)
    blocks, groups = (half + BLOCK - 1) // BLOCK, (lags + LAGS - 1) // LAGS
    lag = (tl.program_id(0) % groups * LAGS + tl.arange(0, LAGS))[:, None]
    program = tl.program_id(0) // groups
    neuron = (program // blocks).to(tl.int64)
    part = (tl.arange(0, 2 * BLOCK) % 2)[None, :]
    point = (program % blocks * BLOCK + tl.arange(0, 2 * BLOCK) // 2)[None, :]
    inside = point < half
    real = tl.zeros((LAGS, BLOCK), totals.dtype.element_ty)
    imaginary = real
    for pair in range(pairs):
        for step in range(inputs):
            later = step + lag + outputs - inputs
            reached = (later >= 0) & (later < outputs) & (lag < lags) & inside
            for MIRRORED in tl.static_range(2):
                here, plane = _frequency(point, rows, cols, MIRRORED), neuron * pairs + pair
                offset = (plane * inputs + step) * (rows * cols) + here
                x, y = _load(planes, 2 * offset + part, inside)
                offset = (plane * outputs + later) * (rows * cols) + here
                a, b = _load(grads, 2 * offset + part, reached)
                real += x * a + y * b
                imaginary += x * b - y * a if MIRRORED else y * a - x * b
    offset = 2 * ((neuron * lags + lags - 1 - lag) * half + point) + part
    real, imaginary, inside = real * 0.5, imaginary * 0.5, (lag < lags) & inside
    if ADD:
        x, y = _load(totals, offset, inside)
        real, imaginary = real + x, imaginary + y
    _store(totals, offset, real, imaginary, inside)
