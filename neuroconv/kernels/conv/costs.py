"""What each backend of the dendritic convolution multiplies, from sizes alone."""

import math

from neuroconv.core.cost import fft_macs
from neuroconv.kernels.conv.fourier import few_branches, fft_size
from neuroconv.kernels.conv.sizes import Backend, Job, Mode, Triple, output_size, step_pairs


def conv_macs(
    batch: int,
    neurons: int,
    sheet: Triple,
    taps: Triple,
    mode: Mode,
    backend: Backend,
    steps: int | None = None,
) -> dict[str, int]:
    """`job_macs` of the job with these sizes."""
    return job_macs(Job(sheet, taps, mode, batch, neurons, steps), backend)


def job_macs(job: Job, backend: Backend) -> dict[str, int]:
    """Multiply-adds of one forward pass by operator family, from sizes alone.

    The direct count takes padding zeros as executed. An FFT convolution transforms every sheet
    once forward for each step that is read and once back for each that comes out, and every filter
    once for each time tap: few branches along the dendrites, and along the sites by a product. Its
    spectral products are counted by `fft_products`. A matrix product takes the cheaper of its two
    forms.

    Args:
        backend: "direct", "fft" or "matmul"; `choose_backend` says what "auto" is.
    """
    job = job.as_columns()
    samples = job.batch * job.neurons
    if backend == "direct":
        points = job.asked * math.prod(output_size(*job.plane))
        return {"convolution": samples * points * math.prod(job.taps)}
    if backend == "matmul":
        return {"matmul": samples * min(matmul_macs(job).values())}
    if backend != "fft":
        raise ValueError(f"backend={backend!r}; expected 'direct', 'fft' or 'matmul'")
    rows, cols = fft_size(*job.plane)
    sheets = samples * (job.sheet[0] + job.asked) * fft_macs(rows * cols)
    filters, branches = job.neurons * job.taps[0], job.taps[1]
    if not few_branches(branches):
        return {"fft": sheets + filters * fft_macs(rows * cols)}
    # Complex numbers times complex numbers.
    waves = 4 * rows * branches * (cols // 2 + 1)
    return {"fft": sheets + filters * branches * fft_macs(cols), "matmul": filters * waves}


def job_flops(job: Job, backend: Backend) -> int:
    """FLOPs of one forward pass beside the multiply-adds of `job_macs`: the products of an FFT's
    spectra, and the sums along the diagonals of a product over the dendrites."""
    if backend == "fft":
        return fft_products(job)
    if backend != "matmul" or matmul_form(job) == "unrolled":
        return 0
    job = job.as_columns()
    (time_steps, sites, _), (k_time, branches, _) = job.sheet, job.taps
    sums = k_time * branches * time_steps + step_pairs(time_steps, k_time, job.asked) - job.asked
    return job.batch * job.neurons * (sites - branches + 1) * sums


def fft_products(job: Job) -> int:
    """FLOPs of the spectral products of an FFT convolution: 6 for the complex product that starts
    the sum of a step, 8 for each complex multiply-add that goes on."""
    job = job.as_columns()
    rows, cols = fft_size(*job.plane)
    flops = 8 * step_pairs(job.sheet[0], job.taps[0], job.asked) - 2 * job.asked
    return flops * job.batch * job.neurons * rows * (cols // 2 + 1)


def matmul_macs(job: Job) -> dict[str, int]:
    """Multiply-adds of a sample of one neuron (in columns: of one dendrite) by form: "unrolled",
    and where the filter spans all dendrites "across", a product over them."""
    job = job.as_columns()
    (time_steps, sites, dendrites), (k_time, branches, across) = job.sheet, job.taps
    joined = sites * dendrites * math.prod(output_size(*job.plane))
    forms = {"unrolled": joined * step_pairs(time_steps, k_time, job.asked)}
    if job.mode == "valid" and across == dendrites > 1:
        forms["across"] = k_time * branches * dendrites * time_steps * sites
    return forms


def matmul_form(job: Job) -> str:
    """The form of the matrix product that takes fewer multiply-adds; see `matmul_macs`."""
    forms = matmul_macs(job)
    return min(forms, key=lambda form: forms[form])
