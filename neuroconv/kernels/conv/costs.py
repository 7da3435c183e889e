"""Closed forms of the operations of each backend of the dendritic convolution."""

import math

from neuroconv.core.cost import fft_macs
from neuroconv.kernels.conv.sizes import Backend, ConvProblem, axis_pairs, output_size, step_pairs
from neuroconv.kernels.conv.spectra import few_branches, fft_size


def problem_macs(problem: ConvProblem, backend: Backend) -> dict[str, int]:
    """Counts the multiply-adds of one forward pass by operator family.

    The direct count takes padding zeros as executed. An FFT convolution transforms every sheet
    once forward for each input step and once back for each output step, and every filter once for
    each time tap, with few branches by an FFT along the dendrites and a product along the sites.
    A matrix product takes the cheaper of its two forms.
    """
    problem = problem.as_columns()
    samples = problem.batch * problem.neurons
    if backend == "direct":
        points = problem.out_steps() * math.prod(output_size(*problem.plane()))
        return {"convolution": samples * points * math.prod(problem.taps)}
    if backend == "matmul":
        return {"matmul": samples * min(matmul_macs(problem).values())}
    if backend != "fft":
        raise ValueError(f"backend={backend!r}; expected 'direct', 'fft' or 'matmul'")
    rows, cols = fft_size(*problem.plane())
    sheets = samples * (problem.sheet[0] + problem.out_steps()) * fft_macs(rows * cols)
    filters = filter_macs(problem, backend)
    return {**filters, "fft": sheets + filters["fft"]}


def filter_macs(problem: ConvProblem, backend: Backend) -> dict[str, int]:
    """Counts those of `problem_macs` that transform the filters."""
    if backend != "fft":
        return {}
    problem = problem.as_columns()
    rows, cols = fft_size(*problem.plane())
    filters, branches = problem.neurons * problem.taps[0], problem.taps[1]
    if not few_branches(branches):
        return {"fft": filters * fft_macs(rows * cols)}
    # Complex numbers times complex numbers.
    waves = 4 * rows * branches * (cols // 2 + 1)
    return {"fft": filters * branches * fft_macs(cols), "matmul": filters * waves}


def past_macs(problem: ConvProblem, backend: Backend) -> int:
    """Counts those of `problem_macs` that transform the steps before those that are computed."""
    problem = problem.as_columns()
    past = (problem.sheet[0] - problem.out_steps()) * problem.batch * problem.neurons
    return past * fft_macs(math.prod(fft_size(*problem.plane()))) if backend == "fft" else 0


def problem_zeros(problem: ConvProblem, backend: Backend) -> int:
    """Counts the multiply-adds of a Toeplitz matrix's zeros: of positions that no tap connects."""
    if backend != "matmul" or matmul_form(problem) != "toeplitz":
        return 0
    columns = problem.as_columns()
    sheet, taps, mode = columns.plane()
    connected = math.prod(axis_pairs(n, k, mode) for n, k in zip(sheet, taps, strict=True))
    pairs = math.prod(sheet) * math.prod(output_size(*columns.plane())) - connected
    steps = step_pairs(columns.sheet[0], columns.taps[0], columns.out_steps())
    return columns.batch * columns.neurons * pairs * steps


def problem_flops(problem: ConvProblem, backend: Backend) -> int:
    """Counts the other FLOPs: an FFT's spectral products, a full-width product's diagonal sums."""
    if backend == "fft":
        return fft_products(problem)
    if backend != "matmul" or matmul_form(problem) == "toeplitz":
        return 0
    problem = problem.as_columns()
    (time_steps, sites, _), (k_time, branches, _) = problem.sheet, problem.taps
    sums = k_time * branches * time_steps - problem.out_steps()
    sums += step_pairs(time_steps, k_time, problem.out_steps())
    return problem.batch * problem.neurons * (sites - branches + 1) * sums


def fft_products(problem: ConvProblem) -> int:
    """Counts the FLOPs of an FFT convolution's spectral products.

    A step's first complex product takes 6, each complex multiply-add after it 8.
    """
    problem = problem.as_columns()
    rows, cols = fft_size(*problem.plane())
    pairs = step_pairs(problem.sheet[0], problem.taps[0], problem.out_steps())
    flops = 8 * pairs - 2 * problem.out_steps()
    return flops * problem.batch * problem.neurons * rows * (cols // 2 + 1)


def matmul_macs(problem: ConvProblem) -> dict[str, int]:
    """Counts the multiply-adds of a sample of one neuron (in columns: of one dendrite) by form.

    The forms are "toeplitz" and, where the filter spans all dendrites, "full_width".
    """
    problem = problem.as_columns()
    (time_steps, sites, dendrites), (k_time, branches, across) = problem.sheet, problem.taps
    pairs = sites * dendrites * math.prod(output_size(*problem.plane()))
    forms = {"toeplitz": pairs * step_pairs(time_steps, k_time, problem.out_steps())}
    if problem.mode == "valid" and across == dendrites > 1:
        forms["full_width"] = k_time * branches * dendrites * time_steps * sites
    return forms


def matmul_form(problem: ConvProblem) -> str:
    """Returns the form of the matrix product with the fewest multiply-adds; see `matmul_macs`."""
    forms = matmul_macs(problem)
    return min(forms, key=lambda form: forms[form])
