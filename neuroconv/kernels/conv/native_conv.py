"""The dendritic convolution of small sheets in C++, samples innermost to fill SIMD vectors.

Shapes: as in `kernels.conv.toeplitz`; B' is the batch padded to whole vectors.
"""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from neuroconv.kernels import native
from neuroconv.kernels.conv.sizes import Mode, plain_sizes
from neuroconv.kernels.conv.tap_index import sheet_taps
from neuroconv.kernels.native.trees import TreeInputs, Trees, cells_at_once, pad_samples


def forward(sheet: Tensor, filters: Tensor, mode: Mode, bias: Tensor | None, steps: int) -> Tensor:
    """Convolves (B, N, T, P, D) with (N, K_T, K_P, K_D) to (steps, N, O, B), in rows of B'."""
    bias = None if bias is None else bias.to(filters.dtype)
    operands = _Operands(sheet, filters, mode, steps)
    result = sheet.new_empty(steps, operands.neurons, operands.taps.outputs, operands.samples)
    for cells in operands.chunks():
        rest = None if bias is None else bias[cells]
        operands.trees(cells, rest).potentials(result[:, cells])
    # No view: autograd refuses to change a custom function's view in place.
    shape, storage = (*result.shape[:3], len(sheet)), result.untyped_storage()
    return sheet.new_empty(0).set_(storage, 0, shape, result.stride())


def backward(
    grad: Tensor, sheet: Tensor, filters: Tensor, mode: Mode, grads: tuple[Tensor, ...]
) -> None:
    """Writes the gradients of sheet, filters and bias to `grads`, those that are not empty."""
    to_sheet, to_filters, to_bias = grads
    needs = (to_sheet.numel() > 0, False, to_filters.numel() > 0, to_bias.numel() > 0)
    operands = _Operands(sheet, filters, mode, len(grad))
    grad = pad_samples(grad)
    sites, dendrites = operands.plane
    for cells in operands.chunks():
        back, _, taps, rest = operands.trees(cells, None).gradients(grad[:, cells], needs)
        if back is not None:
            points = back[..., : len(sheet)].unflatten(2, (dendrites, sites))
            to_sheet.permute(1, 2, 4, 3, 0)[cells] = points
        if taps is not None:
            to_filters[cells] = taps
        if rest is not None:
            to_bias[cells] = rest


class _Operands:
    """The operands, packed for some neurons at a time."""

    def __init__(self, sheet: Tensor, filters: Tensor, mode: Mode, steps: int) -> None:
        batch, self.neurons, self.time_steps, sites, dendrites = plain_sizes(sheet)
        self.filters, self.steps = filters, steps
        self.sheet, self.plane = sheet, (sites, dendrites)
        self.inputs = sites * dendrites
        taps = (int(filters.shape[2]), int(filters.shape[3]))
        self.taps = sheet_taps(self.plane, taps, mode, self.inputs)
        self.samples = native.padded(batch)

    def chunks(self) -> Iterator[slice]:
        numbers = self.time_steps * self.inputs * self.samples
        return cells_at_once(self.neurons, numbers + self.filters[0].numel())

    def trees(self, cells: slice, bias: Tensor | None) -> Trees:
        points = self.sheet[:, cells]
        sample, neuron, step, site, dendrite = points.stride()
        position = _positions(self.plane, (site, dendrite))
        inputs = TreeInputs(points, position, step, sample, self.time_steps, len(points), neuron)
        filters = self.filters[cells]
        return Trees(inputs, self.neurons, self.taps, None, filters, bias, self.steps)


@lru_cache(maxsize=256)
def _positions(plane: tuple[int, int], strides: tuple[int, int]) -> Tensor:
    """Returns the offsets of a sheet's points, dendrite by dendrite."""
    along, across = (
        torch.arange(n, device="cpu") * by for n, by in zip(plane, strides, strict=True)
    )
    return (across[:, None] + along).flatten()
