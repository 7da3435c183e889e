"""The dendritic convolution: one spatiotemporal filter for each neuron, by three backends.

Shapes: B batch, N neurons, T time steps, P sites along a dendrite, D dendrites;
K_T, K_P, K_D the filter's time steps, branches and dendrites.

All modes are cross-correlations and causal in time: history before the window is zero, and the
filter's last time tap meets the present. Time always keeps its T steps.

    same           P x D out; pads (k - 1) // 2 before and the rest after. Dendrites are mixed.
    valid          (P - K_P + 1) x (D - K_D + 1) out; full overlaps only. Dendrites are mixed.
    per_dendrite   (P - K_P + 1) x D out; each dendrite's column meets its own taps (K_D = D).

Backends compute the same numbers and differ in cost:

    direct   torch's conv3d with one group for each neuron; the reference
    fft      a real 2-D FFT over sites and dendrites, the time taps summed in the frequency domain
    matmul   the filter unrolled to a banded matrix, one batched product; for sheets of few points
    auto     matmul for small sheets, else the cheaper of the other two; see `choose_backend`
"""

import math
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroconv.layers.checks import check_choice
from neuroconv.layers.cost import fft_macs

Mode = Literal["same", "valid", "per_dendrite"]
Backend = Literal["auto", "direct", "fft", "matmul"]
MODES: tuple[str, ...] = get_args(Mode)
BACKENDS: tuple[str, ...] = get_args(Backend)

# A sheet of at most this many points is worth unrolling to a matrix, although most of the matrix is
# zeros: a product of small dense matrices is far faster than a convolution of many small groups.
_MATMUL_POINTS = 256
# Measured on CPU cores at the full Purkinje sheet, an FFT convolution gets through this many times
# the MACs per second of a grouped conv3d (3 times forward, 8 with both gradients).
_FFT_SPEED = 4


def dendritic_conv(
    sheet: Tensor,
    filters: Tensor,
    mode: Mode = "same",
    backend: Backend = "auto",
    bias: Tensor | None = None,
    steps: int | None = None,
) -> Tensor:
    """Filters every neuron's dendritic sheet with the neuron's own filter.

    Args:
        sheet: synaptic potentials, (B, N, T, P, D).
        filters: one filter for each neuron, (N, K_T, K_P, K_D).
        mode: "same", "valid" or "per_dendrite"; see the module's docstring.
        backend: "auto", "direct", "fft" or "matmul".
        bias: a resting potential for each dendrite that comes out, (N, D').
        steps: how many of the last steps to compute, for a stream that has seen the others; by
            default all. No earlier step is worked on than these need.

    Returns:
        The dendritic potential, (B, N, steps, P', D') with P' and D' as the mode says.

    Raises:
        ValueError: a wrong number of axes, disagreeing sizes, a filter larger than its sheet where
            the mode needs full overlaps, or an unknown mode or backend.
    """
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
    time_steps, sites, dendrites = _sizes(sheet)[2:]
    _, k_time, branches, across = _sizes(filters)
    output_size((sites, dendrites), (branches, across), mode)
    steps = time_steps if steps is None else int(steps)
    if not 1 <= steps <= time_steps:
        raise ValueError(f"steps={steps}; expected 1 to {time_steps}, the steps of the sheet")
    if steps < time_steps:
        sheet = sheet[:, :, -needed_steps(time_steps, k_time, steps) :]
        time_steps = int(sheet.shape[2])
    if mode == "per_dendrite":  # a dendrite on its own is a neuron whose sheet is one column
        columns = dendritic_conv(
            sheet.movedim(4, 2).flatten(1, 2).unsqueeze(-1),
            filters.movedim(3, 1).flatten(0, 1).unsqueeze(-1),
            "valid",
            backend,
            None if bias is None else bias.flatten().unsqueeze(-1),
            steps,
        )
        return columns.squeeze(-1).unflatten(1, (-1, dendrites)).movedim(2, 4)
    window = (time_steps, sites, dendrites)
    chosen = choose_backend(window, (k_time, branches, across), mode, backend)
    if chosen == "matmul":
        return _matmul_conv(sheet, filters, mode, bias, steps)
    conv = _fft_conv if chosen == "fft" else _direct_conv
    potential = conv(sheet, filters, mode, steps)
    return potential if bias is None else potential + bias[:, None, None, :]


def output_size(sheet: tuple[int, int], taps: tuple[int, int], mode: Mode) -> tuple[int, int]:
    """Sites and dendrites (P', D') that come out of a (P, D) sheet under (K_P, K_D) taps.

    Raises:
        ValueError: an unknown mode, or taps that do not fit into the sheet.
    """
    (sites, dendrites), (branches, across) = sheet, taps
    check_choice("mode", mode, MODES)
    if mode == "same":
        return sites, dendrites
    if mode == "per_dendrite" and across != dendrites:
        raise ValueError(
            f"the filter spans {across} dendrites and the sheet has {dendrites}; mode "
            "'per_dendrite' needs taps for each: "
            f"filter_shape=({branches}, {dendrites}, time_steps)"
        )
    if branches > sites or across > dendrites:
        raise ValueError(
            f"a filter of {branches} branches x {across} dendrites does not fit into a sheet of "
            f"{sites} sites x {dendrites} dendrites; mode {mode!r} takes full overlaps only: "
            "make the filter smaller or use mode='same'"
        )
    return sites - branches + 1, dendrites if mode == "per_dendrite" else dendrites - across + 1


def choose_backend(
    sheet: tuple[int, int, int], taps: tuple[int, int, int], mode: Mode, backend: Backend = "auto"
) -> Backend:
    """The backend that `dendritic_conv` runs for a (T, P, D) sheet and (K_T, K_P, K_D) taps."""
    check_choice("backend", backend, BACKENDS)
    if backend != "auto":
        return backend
    sheet, taps, mode, _ = _columns(sheet, taps, mode)
    time_steps, sites, dendrites = sheet
    if time_steps * sites * dendrites <= _MATMUL_POINTS:
        return "matmul"
    direct = conv_macs(1, 1, sheet, taps, mode, "direct")["convolution"]
    transforms = conv_macs(1, 1, sheet, taps, mode, "fft")["fft"]
    return "fft" if _FFT_SPEED * direct > transforms else "direct"


def conv_macs(
    batch: int,
    neurons: int,
    sheet: tuple[int, int, int],
    taps: tuple[int, int, int],
    mode: Mode,
    backend: Backend,
    steps: int | None = None,
) -> dict[str, int]:
    """Multiply-adds of one forward pass by operator family, from sizes alone.

    The direct count takes padding zeros as executed. An FFT convolution transforms every sheet
    once forward for each step that is read and once back for each that comes out (`steps`, the last
    ones; by default all), and every filter once for each time tap; its spectral products are
    counted by `fft_products`.
    """
    steps = sheet[0] if steps is None else steps
    sheet = (needed_steps(sheet[0], taps[0], steps), *sheet[1:])
    backend = choose_backend(sheet, taps, mode, backend)
    (time_steps, sites, dendrites), (k_time, branches, across), mode, columns = _columns(
        sheet, taps, mode
    )
    cells = neurons * columns
    rows, cols = output_size((sites, dendrites), (branches, across), mode)
    if backend == "direct":
        points = steps * rows * cols
        return {"convolution": batch * cells * points * k_time * branches * across}
    if backend == "matmul":
        return {"matmul": batch * cells * time_steps * steps * sites * dendrites * rows * cols}
    size = _fft_size((sites, dendrites), (branches, across), mode)
    transforms = cells * (batch * (time_steps + steps) + k_time)
    return {"fft": transforms * fft_macs(size[0] * size[1])}


def fft_products(
    batch: int,
    neurons: int,
    sheet: tuple[int, int, int],
    taps: tuple[int, int, int],
    mode: Mode,
    steps: int | None = None,
) -> int:
    """FLOPs of the spectral products of an FFT convolution: 6 for the complex product that starts
    the sum of a step, 8 for each complex multiply-add that goes on."""
    (time_steps, sites, dendrites), (k_time, branches, across), mode, columns = _columns(
        sheet, taps, mode
    )
    size = _fft_size((sites, dendrites), (branches, across), mode)
    steps = time_steps if steps is None else steps
    late = min(steps, max(0, time_steps - k_time + 1))  # of the last steps, those with all taps
    early = steps - late  # before them, each step has one more past step than the one before
    pairs = late * k_time + early * (2 * (time_steps - steps) + early + 1) // 2
    flops = 8 * pairs - 2 * steps
    return flops * batch * neurons * columns * size[0] * (size[1] // 2 + 1)


def _columns(
    sheet: tuple[int, int, int], taps: tuple[int, int, int], mode: Mode
) -> tuple[tuple[int, int, int], tuple[int, int, int], Mode, int]:
    """Rewrites "per_dendrite" as the "valid" problem of `columns` one-dendrite neurons."""
    if mode != "per_dendrite":
        return sheet, taps, mode, 1
    return (*sheet[:2], 1), (*taps[:2], 1), "valid", sheet[2]


def needed_steps(time_steps: int, k_time: int, steps: int) -> int:
    """How many of the last steps the last `steps` outputs read."""
    return min(time_steps, steps + k_time - 1)


def _sizes(tensor: Tensor) -> list[int]:
    """A tensor's shape in plain integers, which it does not hold while a tracer records."""
    return [int(size) for size in tensor.shape]


def _padding(taps: int, mode: Mode) -> tuple[int, int]:
    """Zeros before and after an axis: for an even filter the longer side is after."""
    return ((taps - 1) // 2, taps // 2) if mode == "same" else (0, 0)


def _direct_conv(sheet: Tensor, filters: Tensor, mode: Mode, steps: int) -> Tensor:
    neurons, k_time, branches, across = _sizes(filters)
    history = steps + k_time - 1 - int(sheet.shape[2])  # before the window all is zero
    padded = F.pad(sheet, (*_padding(across, mode), *_padding(branches, mode), history, 0))
    return F.conv3d(padded, filters.unsqueeze(1), groups=neurons)


def _matmul_conv(
    sheet: Tensor, filters: Tensor, mode: Mode, bias: Tensor | None, steps: int
) -> Tensor:
    _, neurons, time_steps, sites, dendrites = _sizes(sheet)
    _, k_time, branches, across = _sizes(filters)
    rows, cols = output_size((sites, dendrites), (branches, across), mode)
    band = _band((time_steps, sites, dendrites), (k_time, branches, across), mode, steps)
    place, tap = band.to(filters.device)
    # Points in the order that synapses leave them in, batch innermost: nothing is copied here.
    points = sheet.permute(1, 4, 3, 2, 0).flatten(1, 3)
    entries = rows * cols * steps * points.shape[1]
    taps = filters.flatten(1).index_select(1, tap)
    matrices = filters.new_zeros(neurons, entries).index_copy(1, place, taps)
    potentials = torch.bmm(matrices.view(neurons, -1, points.shape[1]), points)
    if bias is not None:
        # Added while a dendrite's numbers lie together: its gradient is then a sum over
        # neighbours, several times faster than over the permuted result.
        together = potentials.view(neurons, cols, -1) + bias.unsqueeze(-1)
        potentials = together.view_as(potentials)
    return potentials.unflatten(1, (cols, rows, steps)).permute(4, 0, 3, 2, 1)


@torch.compiler.assume_constant_result
def _band(
    sheet: tuple[int, int, int], taps: tuple[int, int, int], mode: Mode, steps: int
) -> Tensor:
    """(2, entries): the places of the (output, input) matrix that hold a tap, and the tap of each.

    Points are numbered dendrite by dendrite, site by site, step by step; outputs are the last
    `steps` ones.
    """
    grids = []
    for axis, (points, k) in enumerate(zip(sheet, taps, strict=True)):
        before, after = (k - 1, 0) if axis == 0 else _padding(k, mode)
        out = points + before + after - k + 1
        first = out - steps if axis == 0 else 0
        tap = np.arange(points)[None, :] + before - np.arange(first, out)[:, None]
        grids.append(np.where((tap >= 0) & (tap < k), tap, -1))
    time = grids[0][None, None, :, None, None, :]
    site = grids[1][None, :, None, None, :, None]
    dendrite = grids[2][:, None, None, :, None, None]
    tap = ((time * taps[1] + site) * taps[2] + dendrite).ravel()
    joined = ((time >= 0) & (site >= 0) & (dendrite >= 0)).ravel()
    return torch.from_numpy(np.stack([np.flatnonzero(joined), tap[joined]]))


def _fft_size(sheet: tuple[int, int], taps: tuple[int, int], mode: Mode) -> tuple[int, int]:
    """Transform lengths: the sheet and its longer padding, rounded up to small prime factors.

    A circular correlation of this length is free of wrap-around where it is read, because the
    zeros after the sheet serve both of its ends. The filter has to fit in as well.
    """
    rows, cols = (max(n + max(_padding(k, mode)), k) for n, k in zip(sheet, taps, strict=True))
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


def _fft_conv(sheet: Tensor, filters: Tensor, mode: Mode, steps: int) -> Tensor:
    needs_grad = torch.is_grad_enabled() and (sheet.requires_grad or filters.requires_grad)
    if needs_grad and not torch.jit.is_tracing():  # a tracer cannot look into a Function
        result: Tensor = _FFTConv.apply(sheet, filters, mode, steps)
        return result
    return _fft_forward(sheet, filters, mode, steps)


def _real(tensor: Tensor) -> Tensor:
    """Half-precision inputs are transformed in float32: the FFT takes no bfloat16."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _chunk(sheet: Tensor, size: tuple[int, int]) -> int:
    """Samples to transform at once: their spectra stay in a CPU's cache, or in a GPU's memory."""
    points = 1 << (26 if sheet.is_cuda else 20)
    return max(1, points // (sheet.shape[1] * sheet.shape[2] * size[0] * (size[1] // 2 + 1)))


def _filter_spectra(filters: Tensor, size: tuple[int, int], before: tuple[int, int]) -> Tensor:
    padded = F.pad(filters, (0, size[1] - filters.shape[3], 0, size[0] - filters.shape[2]))
    return torch.fft.rfft2(torch.roll(padded, (-before[0], -before[1]), dims=(2, 3)))


def _conjugate(spectrum: Tensor) -> Tensor:
    return spectrum.conj().resolve_conj()


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


def _fft_forward(sheet: Tensor, filters: Tensor, mode: Mode, steps: int) -> Tensor:
    sites, dendrites = _sizes(sheet)[3:]
    branches, across = _sizes(filters)[2:]
    size = _fft_size((sites, dendrites), (branches, across), mode)
    rows, cols = output_size((sites, dendrites), (branches, across), mode)
    before = (_padding(branches, mode)[0], _padding(across, mode)[0])
    kernels = _conjugate(_filter_spectra(_real(filters), size, before))
    potentials = []
    for part in _real(sheet).contiguous().split(_chunk(sheet, size)):
        inputs = torch.fft.rfft2(part, s=size)
        spectra = _sum_past(inputs, kernels, steps)
        potentials.append(torch.fft.irfft2(spectra, s=size)[..., :rows, :cols])
    return torch.cat(potentials).to(sheet.dtype)


class _FFTConv(torch.autograd.Function):
    """The FFT convolution with its backward written out.

    Both passes go through the batch in chunks. The input's spectra are computed again in the
    backward pass: they are larger than the sheet itself, and memory is what a full Purkinje
    population runs out of first.
    """

    @staticmethod
    def forward(ctx: Any, sheet: Tensor, filters: Tensor, mode: Mode, steps: int) -> Tensor:
        ctx.save_for_backward(sheet, filters)
        ctx.mode = mode
        return _fft_forward(sheet, filters, mode, steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        sheet, filters = ctx.saved_tensors
        time_steps, sites, dendrites = _sizes(sheet)[2:]
        # Steps that were not computed passed nothing on.
        grad = F.pad(grad, (0, 0, 0, 0, time_steps - int(grad.shape[2]), 0))
        _, k_time, branches, across = _sizes(filters)
        size = _fft_size((sites, dendrites), (branches, across), ctx.mode)
        before = (_padding(branches, ctx.mode)[0], _padding(across, ctx.mode)[0])
        kernels = _filter_spectra(_real(filters), size, before)
        total = torch.zeros_like(kernels)
        grad_sheets = []
        chunk = _chunk(sheet, size)
        parts = zip(_real(sheet).contiguous().split(chunk), _real(grad).split(chunk), strict=True)
        for part, grad_part in parts:
            grads = torch.fft.rfft2(grad_part, s=size)
            if ctx.needs_input_grad[0]:
                spectra = _sum_future(grads, kernels)
                back = torch.fft.irfft2(spectra, s=size)
                grad_sheets.append(back[..., :sites, :dendrites])
            if ctx.needs_input_grad[1]:
                inputs, conjugates = torch.fft.rfft2(part, s=size), _conjugate(grads)
                for lag in range(min(time_steps, k_time)):
                    early, late = inputs[:, :, : time_steps - lag], conjugates[:, :, lag:]
                    total[:, k_time - 1 - lag] += _sum_steps(early, late)
        grad_filters = None
        if ctx.needs_input_grad[1]:
            # The forward pass shifted the filter by its padding; the gradient is shifted back.
            shifted = torch.roll(torch.fft.irfft2(total, s=size), before, dims=(2, 3))
            grad_filters = shifted[..., :branches, :across].to(filters.dtype)
        grad_sheet = torch.cat(grad_sheets).to(sheet.dtype) if grad_sheets else None
        return grad_sheet, grad_filters, None, None
