"""The dendritic convolution as products of small Toeplitz matrices.

A neuron's filter is one matrix from the points of the last K steps to the points of an output step.
It is the same for every step, so that a window of any length needs one matrix, and a step near the
window's start needs only its last columns.

Some neurons are computed at a time, so that intermediate results stay in the cache.

Shapes: N neurons, T time steps, A inputs of a neuron and step (points of its sheet, or axons),
O outputs, B batch, K time taps. In memory inputs are (N, T, A, B), so that the last K steps of all
inputs are the rows of a matrix, with no copy; matrices are (N, K * A, O).
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.counting import blocks
from neuroconv.kernels.constants import constant
from neuroconv.kernels.conv.sizes import Mode, output_size, padding, plain_sizes

# Floats of a chunk of neurons with its operands, of the order of a core's second-level cache.
_CHUNK_FLOATS = 1 << 20
_LEAST_NEURONS = 16
# From this multiple of the filter's length on, the windows of all steps are copied side by side for
# one product instead of a product for each step.
_FEW_WINDOWS = 3
# Most elements of the matrix that adds up the gradients of a tap.
_MOST_CHOSEN = 1 << 26


def within_window(filters: Tensor, time_steps: int) -> Tensor:
    """Drops the taps older than the window, which would only read the zeros before it."""
    return filters[:, -time_steps:] if filters.shape[1] > time_steps else filters


def toeplitz_matrices(filters: Tensor, sheet: tuple[int, int], mode: Mode) -> Tensor:
    """Expands filters (N, K_T, K_P, K_D) on a (P, D) sheet to matrices (N, K * A, O).

    Points are numbered dendrite by dendrite, site by site, on both sides.
    """
    neurons, k_time, branches, across = plain_sizes(filters)
    tap = _taps(sheet, (branches, across), mode, filters.device)
    # One row for each neuron and step; its last number stands for pairs of points without a tap.
    taps = F.pad(filters.flatten(2), (0, 1)).flatten(0, 1)
    entries = taps.index_select(1, tap.flatten())
    outputs = math.prod(output_size(sheet, (branches, across), mode))
    return entries.view(neurons, k_time * sheet[0] * sheet[1], outputs)


def toeplitz_transpose(
    grad: Tensor, shape: torch.Size, sheet: tuple[int, int], mode: Mode
) -> Tensor:
    """Transposes `toeplitz_matrices`: sums the matrices' gradient to that of the filters.

    If not too large, as a product with a matrix of zeros and ones: scatter-adds take far longer.
    """
    neurons, k_time, branches, across = shape
    tap = _taps(sheet, (branches, across), mode, grad.device).flatten()
    numbers = grad.reshape(neurons * k_time, -1)
    if len(tap) * branches * across > _MOST_CHOSEN:
        taps = numbers.new_zeros(len(numbers), branches * across + 1)  # the last: without a tap
        return taps.index_add_(1, tap, numbers)[:, :-1].reshape(shape)
    # Not by one_hot, which looks at the values and would wait for a GPU.
    number = torch.arange(branches * across, device=grad.device)
    return (numbers @ (tap[:, None] == number).to(grad.dtype)).view(shape)


@constant
def _taps(
    sheet: tuple[int, int], taps: tuple[int, int], mode: Mode, device: torch.device
) -> Tensor:
    """Returns the index of the (K_P, K_D) tap between two points, (A, O), K_P * K_D for none."""
    inside, grids = [], []
    for points, k in zip(sheet, taps, strict=True):
        before, after = padding(k, mode)
        out = torch.arange(points + before + after - k + 1, device=device)
        tap = torch.arange(points, device=device)[:, None] + before - out
        inside.append((tap >= 0) & (tap < k))
        grids.append(tap)
    # In the order of points on both sides: (D, P, D', P').
    tap = grids[0][None, :, None, :] * taps[1] + grids[1][:, None, :, None]
    both = inside[0][None, :, None, :] & inside[1][:, None, :, None]
    return torch.where(both, tap, taps[0] * taps[1]).view(sheet[0] * sheet[1], -1)


def window_products(
    matrices: Tensor, inputs: Tensor, k_time: int, steps: int, out: Tensor | None = None
) -> list[Tensor]:
    """Computes each of the last `steps`, (N, O, B), in `out` (steps, N, O, B) if that is given."""
    time_steps, axons = inputs.shape[1:3]
    columns = inputs.flatten(1, 2)
    first = time_steps - steps
    long = steps > _FEW_WINDOWS * k_time
    stepwise = max(0, k_time - 1 - first) if long else steps  # then no window is cut short
    products = []
    for index in range(stepwise):
        now = first + index
        lags = min(now + 1, k_time)  # before the window all is zero
        left = matrices[:, (k_time - lags) * axons :].transpose(1, 2)
        right = columns[:, (now + 1 - lags) * axons : (now + 1) * axons]
        if out is None:
            products.append(torch.bmm(left, right))
        else:
            products.append(torch.bmm(left, right, out=out[index]))
    if long:
        windows = _side_by_side(inputs[:, first + stepwise - k_time + 1 :], k_time)
        rest = torch.bmm(matrices.transpose(1, 2), windows)  # (N, O, steps * B)
        by_step = rest.unflatten(2, (steps - stepwise, -1)).permute(2, 0, 1, 3)
        if out is None:
            products.extend(by_step.unbind())
        else:
            out[stepwise:] = by_step
    return products


def _side_by_side(inputs: Tensor, k_time: int) -> Tensor:
    """Copies all windows of K steps to columns, (N, K * A, windows * B), K times as large."""
    windows = inputs.unfold(1, k_time, 1)  # (N, windows, A, B, K)
    return windows.permute(0, 4, 2, 1, 3).flatten(1, 2).flatten(2)


def input_gradient(matrices: Tensor, grad: Tensor, k_time: int, time_steps: int) -> Tensor:
    """Computes the gradient of the inputs, (T, N, A, B), from that of the last steps,
    (N, steps, O, B); a step affects K outputs."""
    neurons, steps, outputs, batch = grad.shape
    first = time_steps - steps
    # The tap of the present first: (N, A, K, O), whose rows meet the outputs in order of time.
    flipped = matrices.unflatten(1, (k_time, -1)).flip(1).transpose(1, 2).flatten(2)
    if time_steps > _FEW_WINDOWS * k_time:
        padded_grad = F.pad(grad, (0, 0, 0, 0, first, k_time - 1))
        back = torch.bmm(flipped, _side_by_side(padded_grad, k_time))
        return back.unflatten(2, (time_steps, batch)).permute(2, 0, 1, 3)
    columns = grad.flatten(1, 2)
    result = grad.new_zeros(time_steps, neurons, flipped.shape[1], batch)
    for step in range(max(0, first - k_time + 1), time_steps):
        start, end = max(first, step), min(time_steps, step + k_time)
        left = flipped[:, :, (start - step) * outputs : (end - step) * outputs]
        right = columns[:, (start - first) * outputs : (end - first) * outputs]
        torch.bmm(left, right, out=result[step])
    return result


def matrix_gradient(inputs: Tensor, grad: Tensor, k_time: int) -> Tensor:
    """Computes the gradient of the matrices, (N, K * A, O), summed over steps and batch.

    Inputs (N, K - 1 + T, A, B) have the history before the window, zeros; grad is (N, steps, O, B).
    """
    axons, steps = inputs.shape[2], grad.shape[1]
    first = inputs.shape[1] - k_time + 1 - steps
    if steps > _FEW_WINDOWS * k_time:
        windows = _side_by_side(inputs[:, first:], k_time)
        return torch.bmm(windows, grad.transpose(1, 2).flatten(2).transpose(1, 2))
    columns = inputs.flatten(1, 2)
    total = grad.new_zeros(len(grad), k_time * axons, grad.shape[2])
    for index in range(steps):
        window = columns[:, (first + index) * axons : (first + index + k_time) * axons]
        total.baddbmm_(window, grad[:, index].transpose(1, 2))
    return total


def neuron_chunks(tensor: Tensor, neurons: int, floats: int) -> Iterator[slice]:
    """Returns slices of neurons, of `floats` each, that fit a CPU's cache; elsewhere one of all."""
    width = neurons
    if tensor.is_cpu or tensor.is_meta:  # counts on meta are the CPU's
        width = max(_LEAST_NEURONS, _CHUNK_FLOATS // max(1, floats))
    return blocks(neurons, width, tensor.is_meta)
