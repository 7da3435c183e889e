"""What each backend of the dendritic convolution multiplies, from sizes alone."""

from neuroconv.layers.conv.fourier import fft_size
from neuroconv.layers.conv.sizes import (
    Backend,
    Mode,
    Triple,
    as_columns,
    needed_steps,
    output_size,
    step_pairs,
)
from neuroconv.layers.cost import fft_macs


def conv_macs(
    batch: int,
    neurons: int,
    sheet: Triple,
    taps: Triple,
    mode: Mode,
    backend: Backend,
    steps: int | None = None,
) -> dict[str, int]:
    """Multiply-adds of one forward pass by operator family, from sizes alone.

    The direct count takes padding zeros as executed. An FFT convolution transforms every sheet
    once forward for each step that is read and once back for each that comes out (`steps`, the last
    ones; by default all), and every filter once for each time tap; its spectral products are
    counted by `fft_products`. A matrix product takes the cheaper of its two forms.

    Args:
        sheet: (T, P, D).
        taps: (K_T, K_P, K_D).
        backend: "direct", "fft" or "matmul"; `choose_backend` says what "auto" is.
    """
    steps = sheet[0] if steps is None else steps
    sheet = (needed_steps(sheet[0], taps[0], steps), *sheet[1:])
    (time_steps, sites, dendrites), (k_time, branches, across), mode, columns = as_columns(
        sheet, taps, mode
    )
    cells = neurons * columns
    rows, cols = output_size((sites, dendrites), (branches, across), mode)
    if backend == "direct":
        points = steps * rows * cols
        return {"convolution": batch * cells * points * k_time * branches * across}
    if backend == "matmul":
        form = min(matmul_macs((time_steps, sites, dendrites), (k_time, branches, across), mode,
                               steps).values())  # fmt: skip
        return {"matmul": batch * cells * form}
    if backend != "fft":
        raise ValueError(f"backend={backend!r}; expected 'direct', 'fft' or 'matmul'")
    size = fft_size((sites, dendrites), (branches, across), mode)
    transforms = cells * (batch * (time_steps + steps) + k_time)
    return {"fft": transforms * fft_macs(size[0] * size[1])}


def matmul_macs(sheet: Triple, taps: Triple, mode: Mode, steps: int) -> dict[str, int]:
    """Multiply-adds of a sample of one neuron by form: "unrolled", and where the filter spans all
    dendrites "across", a product over them. Not for mode "per_dendrite", which is columns."""
    (time_steps, sites, dendrites), (k_time, branches, across) = sheet, taps
    rows, cols = output_size((sites, dendrites), (branches, across), mode)
    joined = sites * dendrites * rows * cols
    forms = {"unrolled": joined * step_pairs(time_steps, k_time, steps)}
    if mode == "valid" and across == dendrites > 1:
        forms["across"] = k_time * branches * dendrites * time_steps * sites
    return forms


def fft_products(
    batch: int, neurons: int, sheet: Triple, taps: Triple, mode: Mode, steps: int | None = None
) -> int:
    """FLOPs of the spectral products of an FFT convolution: 6 for the complex product that starts
    the sum of a step, 8 for each complex multiply-add that goes on."""
    (time_steps, sites, dendrites), (k_time, branches, across), mode, columns = as_columns(
        sheet, taps, mode
    )
    size = fft_size((sites, dendrites), (branches, across), mode)
    steps = time_steps if steps is None else steps
    flops = 8 * step_pairs(time_steps, k_time, steps) - 2 * steps
    return flops * batch * neurons * columns * size[0] * (size[1] // 2 + 1)


def conv_flops(
    batch: int,
    neurons: int,
    sheet: Triple,
    taps: Triple,
    mode: Mode,
    backend: Backend,
    steps: int | None = None,
) -> int:
    """FLOPs of one forward pass beside the multiply-adds of `conv_macs`: the products of an FFT's
    spectra, and the sums along the diagonals of a product over the dendrites."""
    if backend == "fft":
        return fft_products(batch, neurons, sheet, taps, mode, steps)
    steps = sheet[0] if steps is None else steps
    window, taps, mode, columns = as_columns(
        (needed_steps(sheet[0], taps[0], steps), *sheet[1:]), taps, mode
    )
    if backend != "matmul" or matmul_form(window, taps, mode, steps) == "unrolled":
        return 0
    rows = window[1] - taps[1] + 1
    pairs = step_pairs(window[0], taps[0], steps)
    each = rows * (taps[0] * taps[1] * window[0] + pairs - steps)
    return batch * neurons * columns * each


def matmul_form(sheet: Triple, taps: Triple, mode: Mode, steps: int) -> str:
    """The form of the matrix product that takes fewer multiply-adds; see `matmul_macs`."""
    sheet, taps, mode, _ = as_columns(sheet, taps, mode)
    forms = matmul_macs(sheet, taps, mode, steps)
    return min(forms, key=lambda form: forms[form])
