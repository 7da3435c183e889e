"""The dendrites of an image layer after their filters: norm, rectifier and sum as one stage.

Of all that an image layer computes, the potentials of its dendrites are by far the most numbers,
and each of a batch norm, a rectifier and a sum reads and writes them again. Here they are read once
for their statistics and once more, some rows at a time, for everything else; the backward pass is
written out and does the same. Layers of few inputs run by `kernels.patch_sum` instead.

Shapes: M places (batch x height x width), T time steps, U units; a column holds the potentials of
one dendrite of all units, (M, T * U), contiguous. In the sum the steps lie outermost, (T, M, U), as
the soma's filter wants them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuroconv.core.counting import is_counting
from neuroconv.kernels.operator import Operator, needs_reference

# Floats of a column to go through at once: they stay in the second-level caches of two cores.
_CHUNK_FLOATS = 1 << 20
_ROW_FLOATS = 1024


def columns_sum(
    columns: Sequence[Tensor],
    gain: Tensor | None,
    shift: Tensor | None,
    units: int,
    eps: float | None,
    linear: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """With an eps by the columns' own statistics, which are returned too."""
    steps = columns[0].shape[1] // units
    run = _reference if needs_reference() else _columns_sum
    result: tuple[Tensor, Tensor, Tensor] = run(
        _folded(columns), gain, shift, steps, units, eps, linear
    )
    return result


def _folded(columns: Sequence[Tensor]) -> list[Tensor]:
    """Several places side by side in a row, as more steps: what an operator broadcasts over rows
    is then long enough for its inner loop."""
    places, width = columns[0].shape
    fold = 1
    while places % (2 * fold) == 0 and 2 * fold * width <= _ROW_FLOATS:
        fold *= 2
    return [column.reshape(places // fold, fold * width) for column in columns]


def _statistics(columns: Sequence[Tensor], units: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each (M, T * U) for each unit, (dendrites, U).

    First of every number of a row over the rows, as a batch norm takes them, then of those.
    """
    found = []
    for column in columns:
        if column.is_meta or is_counting():  # which know no statistics alone
            variance, mean = torch.var_mean(column, 0, correction=0)
        else:  # thirty times as fast as var_mean
            mean, variance = torch.ops.aten.batch_norm_update_stats(column, None, None, 0.0)
        found.append(torch.stack([mean, variance]))
    mean, variance = torch.stack(found).view(len(columns), 2, -1, units).unbind(1)
    centre = mean.mean(1)
    return centre, variance.mean(1) + (mean - centre.unsqueeze(1)).square().mean(1)


def _rows(column: Tensor) -> list[slice]:
    height = max(1, _CHUNK_FLOATS // max(1, column.shape[1]))
    places = column.shape[0]
    return [slice(start, min(start + height, places)) for start in range(0, places, height)]


def _reference(
    columns: Sequence[Tensor],
    gain: Tensor | None,
    shift: Tensor | None,
    steps: int,
    units: int,
    eps: float | None,
    linear: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The whole columns at once, by operators that change nothing in place."""
    potential = torch.stack([column.reshape(-1, steps, units) for column in columns])
    return summed_rates(potential, gain, shift, eps, linear)


def summed_rates(
    potential: Tensor, gain: Tensor | None, shift: Tensor | None, eps: float | None, linear: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises, rectifies and sums potentials (dendrites, M, T, U).

    Returns:
        the sum, (T, M, U); with an eps mean and biased variance, (dendrites, U), without gradient.
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
    """The factor and the summand that normalise potentials, (dendrites, U)."""
    if eps is None or gain is None or shift is None:
        return gain, shift
    scale = gain * (variance + eps).rsqrt()
    return scale, torch.addcmul(shift, mean, scale, value=-1)


def _plain(
    columns: Sequence[Tensor],
    gain: Tensor | None,
    shift: Tensor | None,
    steps: int,
    units: int,
    eps: float | None,
    linear: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance = columns[0].new_empty(0), columns[0].new_empty(0)
    if eps is not None:
        mean, variance = _statistics(columns, units)
    affine = scale_and_offset(gain, shift, eps, mean, variance)
    width = columns[0].shape[1]
    across = [None if values is None else _across(values, width) for values in affine]
    total = columns[0].new_empty(steps, columns[0].numel() // (steps * units), units)
    for rows in _rows(columns[0]):
        places = _places(rows, columns[0], (steps, units))
        # Of several steps, those of one position do not lie together in the sum.
        part = total.view_as(columns[0])[rows] if steps == 1 else torch.empty_like(columns[0][rows])
        spare = torch.empty_like(part)
        for dendrite, column in enumerate(columns):
            rate = _scaled(column[rows], across, dendrite, spare if dendrite else part)
            if not linear:
                torch.clamp_min(rate, 0, out=spare if dendrite else part)
                rate = spare if dendrite else part
            if dendrite:
                part += rate
            elif rate is not part:
                part.copy_(rate)
        if steps > 1:
            total[:, places] = part.view(-1, steps, units).transpose(0, 1)
    return total, mean, variance


def _fake(
    columns: Sequence[Tensor],
    gain: Tensor | None,
    shift: Tensor | None,
    steps: int,
    units: int,
    eps: float | None,
    linear: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    total = columns[0].new_empty(steps, columns[0].numel() // (steps * units), units)
    shape = (0,) if eps is None else (len(columns), units)
    return total, columns[0].new_empty(shape), columns[0].new_empty(shape)


def _plain_backward(
    grad: Tensor,
    columns: Sequence[Tensor],
    gain: Tensor | None,
    shift: Tensor | None,
    eps: float | None,
    linear: bool,
    mean: Tensor,
    variance: Tensor,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    (steps, _, units), width = grad.shape, columns[0].shape[1]
    grad = grad.contiguous()
    scale, offset = scale_and_offset(gain, shift, eps, mean, variance)
    across = [None if values is None else _across(values, width) for values in (scale, offset)]
    results = [torch.empty_like(column) for column in columns]
    # For each number of a row: the gradient, and the potential times it.
    sums = grad.new_zeros(len(columns), 2, width)
    spare = torch.empty_like(columns[0][_rows(columns[0])[0]])
    for rows in _rows(columns[0]):
        if steps == 1:
            pushed = grad.view_as(columns[0])[rows]
        else:
            places = _places(rows, columns[0], (steps, units))
            pushed = grad[:, places].transpose(0, 1).reshape(-1, width)
        rest = spare[: len(pushed)]
        for dendrite, column in enumerate(columns):
            local, potential = results[dendrite][rows], column[rows]
            if linear:
                local.copy_(pushed)
            else:
                z = _scaled(potential, across, dendrite, rest)
                torch.ops.aten.threshold_backward.grad_input(pushed, z, 0, grad_input=local)
            if gain is not None:
                sums[dendrite] += _sums(local, potential, rest)
            elif shift is not None:
                sums[dendrite, 0] += local.sum(0)
    to_shift, products = sums.view(len(columns), 2, -1, units).sum(2).unbind(1)
    to_gain = None
    if gain is not None and eps is not None:  # by the columns' own statistics
        count = columns[0].numel() // units
        assert scale is not None
        norm = (scale, mean, variance)
        to_gain, slope, start = through_a_norm(norm, eps, count, to_shift, products)
        terms = (_across(values, width) for values in (scale, slope, start))
        for local, column, *affine in zip(results, columns, *terms, strict=True):
            for rows in _rows(column):
                part = local[rows]
                other = torch.addcmul(affine[2], column[rows], affine[1], out=spare[: len(part)])
                torch.addcmul(other, part, affine[0], out=part)
    elif gain is not None:
        to_gain = products
        assert across[0] is not None
        for local, factor in zip(results, across[0], strict=True):
            local.mul_(factor)
    return grad.new_empty(0) if to_gain is None else to_gain, to_shift, results


def _fake_backward(
    grad: Tensor,
    columns: Sequence[Tensor],
    gain: Tensor | None,
    shift: Tensor | None,
    eps: float | None,
    linear: bool,
    mean: Tensor,
    variance: Tensor,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    shape = (len(columns), grad.shape[2])
    to_gain = grad.new_empty((0,) if gain is None else shape)
    return to_gain, grad.new_empty(shape), [torch.empty_like(column) for column in columns]


def _gradient(
    grad: Tensor, arguments: Sequence[Any], others: Sequence[Tensor], needs: Sequence[Any]
) -> tuple[Any, ...]:
    columns, gain, shift, _, _, eps, linear = arguments
    to_gain, to_shift, results = _columns_sum_backward(
        grad, columns, gain, shift, eps, linear, *others
    )
    learned = (to_gain if gain is not None else None, to_shift if shift is not None else None)
    return (results, *learned, None, None, None, None)


def _places(rows: slice, column: Tensor, sizes: tuple[int, int]) -> slice:
    """The places that lie side by side in these rows of a folded column."""
    fold = column.shape[1] // (sizes[0] * sizes[1])
    return slice(rows.start * fold, rows.stop * fold)


def _sums(own: Tensor, potential: Tensor, spare: Tensor) -> Tensor:
    """Of each number of a row, over the rows: the gradient, and the potential times it."""
    if own.is_meta or is_counting():  # an operator that a counter would take for a whole norm
        return torch.stack([own.sum(0), torch.mul(own, potential, out=spare).sum(0)])
    none, one = own.new_zeros(own.shape[1]), own.new_ones(own.shape[1])
    norm = torch.ops.aten.native_batch_norm_backward
    asked = [False, True, True]
    _, met, pushed = norm(own, potential, one, None, None, none, one, True, 0.0, asked)
    return torch.stack([pushed, met])


def through_a_norm(
    norm: tuple[Tensor, Tensor, Tensor], eps: float, count: int, to_shift: Tensor, met: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient to a norm's gain, and what moves the mean and the variance of all `count`
    values: a gradient before the norm is scale * that after it + slope * potential + start.

    Args:
        norm: scale, mean and variance.
        to_shift, met: sums of the gradient after the norm, and of it times the potential.

    Returns:
        the gradient, slope and start, all (dendrites, U).
    """
    scale, mean, variance = norm
    deviation = (variance + eps).rsqrt()
    to_gain = (met - mean * to_shift) * deviation
    slope = -scale * deviation * to_gain / count
    return to_gain, slope, -scale * to_shift / count - mean * slope


def _across(values: Tensor, width: int) -> Tensor:
    """(dendrites, U) repeated over the steps and places of a row."""
    return values.repeat(1, width // values.shape[1])


def _scaled(column: Tensor, across: list[Tensor | None], dendrite: int, out: Tensor) -> Tensor:
    """The column itself, or its potentials as the norm leaves them, written to `out`."""
    scale, offset = across
    if offset is None:
        return column
    if scale is None:
        return torch.add(column, offset[dendrite], out=out)
    return torch.addcmul(offset[dendrite], column, scale[dendrite], out=out)


_SETTINGS = "Tensor? gain, Tensor? shift"
_columns_sum = Operator(
    f"columns_sum(Tensor[] columns, {_SETTINGS}, int steps, int units, float? eps, bool linear) "
    "-> (Tensor, Tensor, Tensor)",
    _plain, fake=_fake,
)  # fmt: skip
_columns_sum_backward = Operator(
    f"columns_sum_backward(Tensor grad, Tensor[] columns, {_SETTINGS}, float? eps, bool linear, "
    "Tensor mean, Tensor variance) -> (Tensor, Tensor, Tensor[])",
    _plain_backward, fake=_fake_backward,
)  # fmt: skip
_columns_sum.register_gradient(_gradient, _reference)
