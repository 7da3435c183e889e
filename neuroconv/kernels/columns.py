"""The dendrites of an image layer after their filters: norm, rectifier and sum as one stage.

The potentials of the dendrites are by far the largest tensors of an image layer, and a batch norm,
a rectifier and a sum would each read and write them. Here they are read once for their statistics
and once more, some rows at a time, for everything else, and likewise in the backward pass.
Layers with few inputs use `kernels.patch_sum` instead.

Shapes: M positions (batch x height x width), T time steps, U units; a column holds the potentials
of one dendrite of all units, (M, T * U), contiguous. The sum has the steps outermost, (T, M, U), as
the soma's filter takes them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuroconv.core.counting import blocks, is_counting
from neuroconv.kernels.operator import Operator, needs_reference

# Floats of a column that are processed at once: they stay in the second-level caches of two cores.
_CHUNK_FLOATS = 1 << 20
_ROW_FLOATS = 1024


def columns_sum(
    columns: Sequence[Tensor],
    units: int,
    linear: bool,
    gain: Tensor | None,
    shift: Tensor | None,
    eps: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises, rectifies and sums columns; see `summed_rates`."""
    steps = columns[0].shape[1] // units
    run = _reference if needs_reference() else _columns_sum
    total, mean, variance, *_ = run(_folded(columns), gain, shift, steps, units, eps, linear)
    return total, mean, variance


def _folded(columns: Sequence[Tensor]) -> list[Tensor]:
    """Puts several positions side by side in a row, long enough for an operator's inner loop."""
    positions, width = columns[0].shape
    fold = 1
    while positions % (2 * fold) == 0 and 2 * fold * width <= _ROW_FLOATS:
        fold *= 2
    return [column.reshape(positions // fold, fold * width) for column in columns]


def _statistics(columns: Sequence[Tensor], units: int) -> tuple[Tensor, Tensor]:
    """Returns mean and biased variance of each unit, (dendrites, U), over the rows first."""
    moments = []
    for column in columns:
        if column.is_meta or is_counting():  # neither supports batch_norm_update_stats
            variance, mean = torch.var_mean(column, 0, correction=0)
        else:  # thirty times as fast as var_mean
            mean, variance = torch.ops.aten.batch_norm_update_stats(column, None, None, 0.0)
        moments.append(torch.stack([mean, variance]))
    mean, variance = torch.stack(moments).view(len(columns), 2, -1, units).unbind(1)
    centre = mean.mean(1)
    return centre, variance.mean(1) + (mean - centre.unsqueeze(1)).square().mean(1)


def _rows(column: Tensor) -> Iterator[slice]:
    height = max(1, _CHUNK_FLOATS // max(1, column.shape[1]))
    return blocks(column.shape[0], height, column.is_meta)


class _Operands(NamedTuple):
    columns: Sequence[Tensor]
    gain: Tensor | None
    shift: Tensor | None
    steps: int
    units: int
    eps: float | None
    linear: bool


def _reference(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Sums whole columns at once, without operators in place."""
    columns, gain, shift, steps, units, eps, linear = _Operands(*arguments)
    potential = torch.stack([column.reshape(-1, steps, units) for column in columns])
    return summed_rates(potential, gain, shift, eps, linear)


def summed_rates(
    potential: Tensor, gain: Tensor | None, shift: Tensor | None, eps: float | None, linear: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises, rectifies and sums potentials (dendrites, M, T, U) to (T, M, U).

    With an eps mean and biased variance, (dendrites, U), come with the sum, without gradient.
    """
    mean, variance = potential.new_empty(0), potential.new_empty(0)
    if eps is not None:
        assert gain is not None
        assert shift is not None
        variance, mean = torch.var_mean(potential, (1, 2), correction=0)
        gain = gain * (variance + eps).rsqrt()
        shift = shift - mean * gain
    if gain is not None:
        potential = potential * gain[:, None, None]
    if shift is not None:
        potential = potential + shift[:, None, None]
    rate = potential if linear else potential.relu()
    return rate.sum(0).transpose(0, 1), mean.detach(), variance.detach()


def scale_and_offset(
    gain: Tensor | None, shift: Tensor | None, eps: float | None, mean: Tensor, variance: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Returns the scale and the offset that normalise potentials, (dendrites, U)."""
    if eps is None or gain is None or shift is None:
        return gain, shift
    scale = gain * (variance + eps).rsqrt()
    return scale, torch.addcmul(shift, mean, scale, value=-1)


def _plain(*arguments: Any) -> tuple[Tensor, ...]:
    columns, gain, shift, steps, units, eps, linear = _Operands(*arguments)
    mean, variance = columns[0].new_empty(0), columns[0].new_empty(0)
    if eps is not None:
        mean, variance = _statistics(columns, units)
    affine = scale_and_offset(gain, shift, eps, mean, variance)
    saved = [
        columns[0].new_empty(0) if eps is None or values is None else values for values in affine
    ]
    width = columns[0].shape[1]
    by_column = [None if values is None else _repeat(values, width) for values in affine]
    total = columns[0].new_empty(steps, columns[0].numel() // (steps * units), units)
    for rows in _rows(columns[0]):
        positions = _positions(rows, columns[0], (steps, units))
        # The steps of one position are not adjacent in the sum.
        part = total.view_as(columns[0])[rows] if steps == 1 else torch.empty_like(columns[0][rows])
        scratch = torch.empty_like(part)
        for dendrite, column in enumerate(columns):
            rate = _scaled(column[rows], by_column, dendrite, scratch if dendrite else part)
            if not linear:
                torch.clamp_min(rate, 0, out=scratch if dendrite else part)
                rate = scratch if dendrite else part
            if dendrite:
                part += rate
            elif rate is not part:
                part.copy_(rate)
        if steps > 1:
            total[:, positions] = part.view(-1, steps, units).transpose(0, 1)
    return total, mean, variance, *saved


def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    columns, _, _, steps, units, eps, _ = _Operands(*arguments)
    total = columns[0].new_empty(steps, columns[0].numel() // (steps * units), units)
    shape = (0,) if eps is None else (len(columns), units)
    return total, *(columns[0].new_empty(shape) for _ in range(4))


def _plain_backward(grad: Tensor, *arguments: Any) -> tuple[list[Tensor], Tensor, Tensor]:
    columns, gain, shift, steps, units, eps, linear = _Operands(*arguments[:7])
    mean, variance, *affine = arguments[7:]
    width = columns[0].shape[1]
    grad = grad.contiguous()
    scale, offset = (gain, shift) if eps is None else affine
    by_column = [None if values is None else _repeat(values, width) for values in (scale, offset)]
    results = [torch.empty_like(column) for column in columns]
    # Sums of the gradient, and of the gradient times the potential, for each entry of a row.
    sums = grad.new_zeros(len(columns), 2, width)
    scratch = torch.empty_like(columns[0][next(_rows(columns[0]))])
    for rows in _rows(columns[0]):
        if steps == 1:
            passed = grad.view_as(columns[0])[rows]
        else:
            positions = _positions(rows, columns[0], (steps, units))
            passed = grad[:, positions].transpose(0, 1).reshape(-1, width)
        rest = scratch[: len(passed)]
        for dendrite, column in enumerate(columns):
            local, potential = results[dendrite][rows], column[rows]
            if linear:
                local.copy_(passed)
            else:
                z = _scaled(potential, by_column, dendrite, rest)
                torch.ops.aten.threshold_backward.grad_input(passed, z, 0, grad_input=local)
            if gain is not None:
                sums[dendrite] += _sums(local, potential, rest)
            elif shift is not None:
                sums[dendrite, 0] += local.sum(0)
    to_shift, products = sums.view(len(columns), 2, -1, units).sum(2).movedim(1, 0).contiguous()
    to_gain = None
    if gain is not None and eps is not None:  # by the columns' own statistics
        count = columns[0].numel() // units
        assert scale is not None
        norm = (scale, mean, variance)
        to_gain, slope, start = norm_backward(norm, eps, count, to_shift, products)
        terms = (_repeat(values, width) for values in (scale, slope, start))
        for local, column, *factors in zip(results, columns, *terms, strict=True):
            for rows in _rows(column):
                part = local[rows]
                other = torch.addcmul(
                    factors[2], column[rows], factors[1], out=scratch[: len(part)]
                )
                torch.addcmul(other, part, factors[0], out=part)
    elif gain is not None:
        to_gain = products
        assert by_column[0] is not None
        for local, factor in zip(results, by_column[0], strict=True):
            local.mul_(factor)
    return results, grad.new_empty(0) if to_gain is None else to_gain, to_shift


def _fake_backward(grad: Tensor, *arguments: Any) -> tuple[list[Tensor], Tensor, Tensor]:
    columns, gain, *_ = arguments
    shape = (len(columns), grad.shape[2])
    to_gain = grad.new_empty((0,) if gain is None else shape)
    return [torch.empty_like(column) for column in columns], to_gain, grad.new_empty(shape)


def _positions(rows: slice, column: Tensor, sizes: tuple[int, int]) -> slice:
    """Returns the positions in these rows of a folded column."""
    fold = column.shape[1] // (sizes[0] * sizes[1])
    return slice(rows.start * fold, rows.stop * fold)


def _sums(grad: Tensor, potential: Tensor, scratch: Tensor) -> Tensor:
    """Sums the gradient, and the gradient times the potential, over the rows."""
    if grad.is_meta or is_counting():  # a counter would count a whole norm
        return torch.stack([grad.sum(0), torch.mul(grad, potential, out=scratch).sum(0)])
    zeros, ones = grad.new_zeros(grad.shape[1]), grad.new_ones(grad.shape[1])
    norm = torch.ops.aten.native_batch_norm_backward
    mask = [False, True, True]
    _, products, passed = norm(grad, potential, ones, None, None, zeros, ones, True, 0.0, mask)
    return torch.stack([passed, products])


def norm_backward(
    norm: tuple[Tensor, Tensor, Tensor], eps: float, count: int, to_shift: Tensor, products: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiates a norm with respect to its gain and its batch statistics.

    The gradient of a norm's input is scale * gradient of its output + slope * potential + start.

    Args:
        norm: scale, mean and variance.
        count: normalised values of a unit.
        to_shift, products: sums of the output's gradient, and of it times the potential.

    Returns:
        the gain's gradient, slope and start, all (dendrites, U).
    """
    scale, mean, variance = norm
    deviation = (variance + eps).rsqrt()
    to_gain = (products - mean * to_shift) * deviation
    slope = -scale * deviation * to_gain / count
    return to_gain, slope, -scale * to_shift / count - mean * slope


def _repeat(values: Tensor, width: int) -> Tensor:
    """Repeats (dendrites, U) over the steps and positions of a row."""
    return values.repeat(1, width // values.shape[1])


def _scaled(column: Tensor, by_column: list[Tensor | None], dendrite: int, out: Tensor) -> Tensor:
    """Returns the column, or writes its normalised potentials to `out`."""
    scale, offset = by_column
    if offset is None:
        return column
    if scale is None:
        return torch.add(column, offset[dendrite], out=out)
    return torch.addcmul(offset[dendrite], column, scale[dendrite], out=out)


_SCHEMA = (
    "Tensor[] columns, Tensor? gain, Tensor? shift, int steps, int units, float? eps, bool linear"
)
_columns_sum = Operator(
    f"columns_sum({_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)", _plain, fake=_fake
)  # fmt: skip
_columns_sum_backward = Operator(
    f"columns_sum_backward(Tensor grad, {_SCHEMA}, Tensor mean, Tensor variance, "
    "Tensor scale, Tensor offset) -> (Tensor[], Tensor, Tensor)",
    _plain_backward, fake=_fake_backward,
)  # fmt: skip


_columns_sum.register_gradient(
    lambda grad, arguments, others, _: _columns_sum_backward(grad, *arguments, *others), _reference
)
