"""The dendritic convolution: one spatiotemporal filter for each neuron, by three backends.

Shapes: B batch, N neurons, T time steps, P sites along a dendrite, D dendrites;
K_T, K_P, K_D the filter's time steps, branches and dendrites.

All modes are cross-correlations and causal in time: history before the window is zero, and the
filter's last time tap applies to the present. Time always keeps its T steps.

    same           P x D out; pads (k - 1) // 2 before and the rest after. Dendrites are mixed.
    valid          (P - K_P + 1) x (D - K_D + 1) out; full overlaps only. Dendrites are mixed.
    per_dendrite   (P - K_P + 1) x D out; taps for each dendrite's column (K_D = D).

Backends compute the same numbers and differ in cost:

    direct   torch's conv3d with one group for each neuron; the reference
    fft      a real 2-D FFT over sites and dendrites, the time taps summed in the frequency domain;
             in float32 for half-precision inputs
    matmul   batched matrix products: a Toeplitz matrix of the filter on a small sheet, or, where it
             spans all dendrites, one product over them
    auto     the fastest by a model of their times; see `choose_backend`
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels import native
from neuroconv.kernels.cache import FilterCache
from neuroconv.kernels.conv.choice import choose_backend, runs_native
from neuroconv.kernels.conv.costs import matmul_form
from neuroconv.kernels.conv.fourier import fft_conv
from neuroconv.kernels.conv.full_width import full_width_conv
from neuroconv.kernels.conv.sizes import (
    Backend,
    ConvProblem,
    Mode,
    needed_steps,
    output_size,
    padding,
    plain_sizes,
)
from neuroconv.kernels.conv.spectra import fft_size, filter_spectra
from neuroconv.kernels.conv.toeplitz import toeplitz_matrices
from neuroconv.kernels.conv.toeplitz_conv import toeplitz_conv
from neuroconv.kernels.operator import kernels_enabled


def dendritic_conv(
    sheet: Tensor,
    filters: Tensor,
    mode: Mode = "same",
    backend: Backend = "auto",
    bias: Tensor | None = None,
    steps: int | None = None,
    transformed: Tensor | None = None,
    *,
    cache: FilterCache | None = None,
    source: Tensor | None = None,
) -> Tensor:
    """Filters every neuron's dendritic sheet with its filter; modes and backends as above.

    Args:
        sheet: synaptic potentials, (B, N, T, P, D). With the batch innermost in memory, as the
            synapses write them, the matrix products copy nothing.
        filters: (N, K_T, K_P, K_D).
        bias: resting potentials of the output dendrites, (N, D').
        steps: how many of the last steps to compute, by default all.
        transformed: spectra or matrices of these filters, used while no gradient is needed.
        cache: keeps the transform from call to call while no gradient is needed.
        source: the tensor that the filters are computed from, which the cache compares.

    Returns:
        the dendritic potential, (B, N, steps, P', D').

    Raises:
        ValueError: a wrong number of axes, disagreeing sizes, a filter larger than its sheet where
            the mode needs full overlaps, or an unknown mode or backend.
    """
    _check(sheet, filters)
    batch, neurons, time_steps, sites, dendrites = plain_sizes(sheet)
    _, k_time, branches, across = plain_sizes(filters)
    output_size((sites, dendrites), (branches, across), mode)
    steps = time_steps if steps is None else int(steps)
    if not 1 <= steps <= time_steps:
        raise ValueError(f"steps={steps}; expected 1 to {time_steps}, the steps of the sheet")
    window, taps = (time_steps, sites, dendrites), (k_time, branches, across)
    problem = ConvProblem(window, taps, mode, batch, neurons, steps)
    gradients = torch.is_grad_enabled() and (sheet.requires_grad or filters.requires_grad)
    backend = backend if kernels_enabled() else "direct"
    chosen = choose_backend(problem, backend, gradients=gradients, device=sheet.device.type)
    if cache is not None and source is not None:
        transformed = _cached_transform(cache, source, filters, problem, chosen)
    if steps < time_steps:
        sheet = sheet[:, :, -needed_steps(time_steps, k_time, steps) :]
    if mode == "per_dendrite":  # each dendrite becomes a neuron whose sheet is one column
        columns = dendritic_conv(
            _columns(sheet, batch_last=chosen == "matmul"),
            _column_filters(filters),
            "valid",
            chosen,
            None if bias is None else bias.flatten().unsqueeze(-1),
            steps,
            transformed,
        )
        return columns.squeeze(-1).unflatten(1, (-1, dendrites)).movedim(2, 4)
    if chosen == "matmul":
        if matmul_form(problem) == "toeplitz":
            return toeplitz_conv(sheet, filters, mode, bias, steps, transformed)
        potential = full_width_conv(sheet, filters, steps)
    elif chosen == "fft":
        return fft_conv(sheet, filters, bias, mode, steps, transformed)
    else:
        potential = _direct_conv(sheet, filters, mode, steps)
    return potential if bias is None else potential + bias[:, None, None, :]


def _cached_transform(
    cache: FilterCache, source: Tensor, filters: Tensor, problem: ConvProblem, backend: Backend
) -> Tensor | None:
    """Returns a backend's transform of filters, None where it takes them as they are."""
    columns = problem.as_columns()
    device = filters.device.type
    native_filters = filters.dtype in native.DTYPES and runs_native(problem, device)
    if backend == "fft":
        rows, cols = fft_size(*columns.plane())
        transform, numbers = filter_spectra, 2 * columns.taps[0] * rows * (cols // 2 + 1)
    elif backend == "matmul" and matmul_form(problem) == "toeplitz" and not native_filters:
        points = columns.sheet[1] * columns.sheet[2] * math.prod(output_size(*columns.plane()))
        transform, numbers = toeplitz_matrices, columns.taps[0] * points
    else:
        return None

    def compute() -> Tensor:
        taps = _column_filters(filters) if problem.mode == "per_dendrite" else filters
        return transform(taps, columns.sheet[1:], columns.mode)

    key = (backend, problem.sheet[0], problem.steps)
    return cache.get((source,), key, columns.neurons * numbers, compute)


def _check(sheet: Tensor, filters: Tensor) -> None:
    if sheet.dim() != 5:
        raise ValueError(
            f"sheet has shape {tuple(sheet.shape)}; expected five axes "
            "(batch, neurons, time_steps, sites, dendrites)"
        )
    if filters.dim() != 4:
        raise ValueError(
            f"filters have shape {tuple(filters.shape)}; expected four axes "
            "(neurons, time_steps, branches, dendrites)"
        )
    if sheet.shape[1] != filters.shape[0]:
        raise ValueError(
            f"the sheet holds {sheet.shape[1]} neurons and there are {filters.shape[0]} filters; "
            "expected one filter for each neuron"
        )


def _columns(sheet: Tensor, batch_last: bool) -> Tensor:
    """Turns (B, N, T, P, D) into (B, N * D, T, P, 1), copying to the backend's order in memory."""
    if batch_last:
        return sheet.permute(1, 4, 2, 3, 0).flatten(0, 1).permute(3, 0, 1, 2).unsqueeze(-1)
    return sheet.movedim(4, 2).flatten(1, 2).unsqueeze(-1)


def _column_filters(filters: Tensor) -> Tensor:
    """Turns (N, K_T, K_P, D) into (N * D, K_T, K_P, 1)."""
    return filters.movedim(3, 1).flatten(0, 1).unsqueeze(-1)


def _direct_conv(sheet: Tensor, filters: Tensor, mode: Mode, steps: int) -> Tensor:
    neurons, k_time, branches, across = plain_sizes(filters)
    history = steps + k_time - 1 - int(sheet.shape[2])  # zeros before the window
    padded = F.pad(sheet, (*padding(across, mode), *padding(branches, mode), history, 0))
    return F.conv3d(padded, filters.unsqueeze(1), groups=neurons)
