"""Triton kernels of `kernels.maps_sum`: norm, rectifier and sum of channels-last maps.

A program takes tiles of positions x lanes. Lanes are the numbers of one dendrite at one position,
unit by unit, step by step (SIZE = T * U); a row of a map holds those of COUNT dendrites. Dendrite
`first` + i is the map's i-th, and reads column w + start + i * shift of the map for column w of
the sum, and zeros where there is none. With taps a potential is the map filtered in time, computed
wherever it is read: a position's steps are in the cache.

Arithmetic is in float32, and offsets are 64 bits wide. Sums over positions are taken in two stages
of a fixed order: a program writes those of its part.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

# A program for any of these numbers: layers differ in them.
_SIZES = ["lines", "columns", "width", "start", "shift", "first", "dendrites", "rows"]


@triton.jit
def _program(COUNT: tl.constexpr, SIZE: tl.constexpr, LANES: tl.constexpr):
    """Returns lanes, dendrite, part, and the number of parts. Programs that read the same rows are
    neighbours."""
    blocks: tl.constexpr = (SIZE + LANES - 1) // LANES
    program = tl.program_id(0)
    lane = program % blocks * LANES + tl.arange(0, LANES)
    parts = tl.num_programs(0) // (blocks * COUNT)
    return lane, program // blocks % COUNT, program // (blocks * COUNT), parts


@triton.jit
def _rows(tile, lines, low, extent, start, width, columns, ROWS: tl.constexpr):
    """Returns the tile's rows in the map and in the sum, and which there are; a line has `extent`
    columns of the map, or beside it, from `low` on."""
    index = tile * ROWS + tl.arange(0, ROWS)
    column, line = index % extent + low, (index // extent).to(tl.int64)
    exists, output = index < lines * extent, column - start
    in_map = exists & (column >= 0) & (column < width)
    in_sum = exists & (output >= 0) & (output < columns)
    return line * width + column, in_map[:, None], line * columns + output, in_sum[:, None]


@triton.jit
def _potential(maps, taps, place, inside, lane, UNITS: tl.constexpr, TAPS: tl.constexpr):
    if TAPS == 0:
        potential = tl.load(maps + place, mask=inside, other=0.0).to(tl.float32)
    else:
        potential = tl.zeros(place.shape, tl.float32)
        for lag in tl.static_range(TAPS):
            past = inside & (lane >= lag * UNITS)[None, :]
            x = tl.load(maps + place - lag * UNITS, mask=past, other=0.0).to(tl.float32)
            potential += tl.load(taps + TAPS - 1 - lag) * x
    return potential


@triton.jit
def _normal(potential, scale, offset, unit):
    """Scales and shifts; either may be None."""
    if scale is not None:
        potential *= tl.load(scale + unit)[None, :]
    if offset is not None:
        potential += tl.load(offset + unit)[None, :]
    return potential


@triton.jit(do_not_specialize=_SIZES)
def sum_kernel(
    maps, taps, lines, columns, width, start, shift, first, scale, offset, before, total,
    COUNT: tl.constexpr, SIZE: tl.constexpr, UNITS: tl.constexpr, TAPS: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, LINEAR: tl.constexpr,
):  # fmt: skip
    """Writes the sum of a map's rates, and of `before` if there is one, to `total`."""
    lane, _, tile, _ = _program(1, SIZE, LANES)
    real = (lane < SIZE)[None, :]
    rates = tl.zeros((ROWS, LANES), tl.float32)
    for i in tl.static_range(COUNT):
        low = start + i * shift
        row, in_map, output, in_sum = _rows(tile, lines, low, columns, low, width, columns, ROWS)
        place = row[:, None] * (COUNT * SIZE) + (i * SIZE + lane)[None, :]
        rate = _potential(maps, taps, place, in_map & real, lane, UNITS, TAPS)
        rate = _normal(rate, scale, offset, (first + i) * UNITS + lane % UNITS)
        # Not tl.maximum, which would turn nan into zero.
        rates += rate if LINEAR else tl.where(rate <= 0, 0.0, rate)
    place = output[:, None] * SIZE + lane[None, :]
    if before is not None:
        rates += tl.load(before + place, mask=in_sum & real, other=0.0)
    tl.store(total + place, rates.to(total.dtype.element_ty), mask=in_sum & real)


@triton.jit(do_not_specialize=_SIZES)
def statistics_kernel(
    maps, taps, lines, columns, width, start, shift, first, partial, dendrites, share,
    COUNT: tl.constexpr, SIZE: tl.constexpr, UNITS: tl.constexpr, TAPS: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, LINEAR: tl.constexpr,
):  # fmt: skip
    """Writes weight, mean and weighted variance of each part, (3, parts, dendrites, SIZE): a value
    weighs `share`."""
    lane, i, part, parts = _program(COUNT, SIZE, LANES)
    real, low = (lane < SIZE)[None, :], start + i * shift
    count = tl.zeros((ROWS, 1), tl.float32)
    mean = tl.zeros((ROWS, LANES), tl.float32)
    squares = tl.zeros((ROWS, LANES), tl.float32)
    for tile in range(part, tl.cdiv(lines * columns, ROWS), parts):
        row, in_map, _, in_sum = _rows(tile, lines, low, columns, low, width, columns, ROWS)
        place = row[:, None] * (COUNT * SIZE) + (i * SIZE + lane)[None, :]
        potential = _potential(maps, taps, place, in_map & real, lane, UNITS, TAPS)
        count += in_sum.to(tl.float32)
        deviation = tl.where(in_sum, potential - mean, 0.0)
        mean += deviation * (1 / tl.maximum(count, 1.0))
        squares += deviation * (potential - mean)
    weight = tl.sum(count, 0)
    centre = tl.sum(mean * count, 0) / tl.maximum(weight, 1.0)
    squares += count * (mean - centre[None, :]) * (mean - centre[None, :])
    partial += (part.to(tl.int64) * dendrites + first + i) * SIZE + lane
    stride = parts.to(tl.int64) * dendrites * SIZE
    tl.store(partial, weight * share + 0.0 * centre, mask=lane < SIZE)
    tl.store(partial + stride, centre, mask=lane < SIZE)
    tl.store(partial + 2 * stride, tl.sum(squares, 0) * share, mask=lane < SIZE)


@triton.jit(do_not_specialize=_SIZES)
def gradient_kernel(
    maps, taps, lines, columns, width, start, shift, first,
    scale, offset, mean, slope, level, grad, to_maps, partial, dendrites, share,
    COUNT: tl.constexpr, SIZE: tl.constexpr, UNITS: tl.constexpr, TAPS: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, LINEAR: tl.constexpr,
):  # fmt: skip
    """Writes the sums over each part of the gradient that the rectifier passes, and of its product
    with potential - mean, (2, parts, dendrites, SIZE); and the potentials' gradient, scale * (grad
    - share * (slope * (potential - mean) + level)), zero where no sum reads it. `to_maps` or
    `partial` may be None."""
    lane, i, part, parts = _program(COUNT, SIZE, LANES)
    real, unit = (lane < SIZE)[None, :], (first + i) * UNITS + lane % UNITS
    start += i * shift
    low = tl.minimum(start, 0)  # all columns of the map, and those that are read as zeros
    extent = tl.maximum(start + columns, width) - low
    sums = tl.zeros((ROWS, LANES), tl.float32)
    products = tl.zeros((ROWS, LANES), tl.float32)
    for tile in range(part, tl.cdiv(lines * extent, ROWS), parts):
        row, in_map, output, in_sum = _rows(tile, lines, low, extent, start, width, columns, ROWS)
        place = row[:, None] * (COUNT * SIZE) + (i * SIZE + lane)[None, :]
        potential = _potential(maps, taps, place, in_map & real, lane, UNITS, TAPS)
        local = grad + output[:, None] * SIZE + lane[None, :]
        local = tl.load(local, mask=in_sum & real, other=0.0).to(tl.float32)
        if not LINEAR:
            local = tl.where(_normal(potential, scale, offset, unit) <= 0, 0.0, local)
        if mean is not None:
            potential -= tl.load(mean + unit)[None, :]
        if partial is not None:
            sums += local
            products += local * potential
        if to_maps is not None:
            if slope is not None:
                local -= tl.where(in_sum, _normal(potential, slope, level, unit) * share, 0.0)
            local = _normal(local, scale, None, unit)
            tl.store(to_maps + place, local.to(to_maps.dtype.element_ty), mask=in_map & real)
    if partial is not None:
        partial += (part.to(tl.int64) * dendrites + first + i) * SIZE + lane
        tl.store(partial, tl.sum(sums, 0), mask=lane < SIZE)
        partial += parts.to(tl.int64) * dendrites * SIZE
        tl.store(partial, tl.sum(products, 0), mask=lane < SIZE)


@triton.jit(do_not_specialize=_SIZES)
def filter_gradient_kernel(
    maps, taps, grad, to_maps, partial, rows,
    SIZE: tl.constexpr, UNITS: tl.constexpr, TAPS: tl.constexpr, TAPS_PAD: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of a map that is filtered in time from that of its potentials, and each
    program's sums for that of the taps, (programs, TAPS)."""
    lane, _, part, parts = _program(1, SIZE, LANES)
    tap = tl.arange(0, TAPS_PAD)
    to_taps = tl.zeros((TAPS_PAD,), tl.float32)
    for tile in range(part, tl.cdiv(rows, ROWS), parts):
        row = tile * ROWS + tl.arange(0, ROWS)
        place = row.to(tl.int64)[:, None] * SIZE + lane[None, :]
        exists = (row < rows)[:, None] & (lane < SIZE)[None, :]
        now = tl.load(maps + place, mask=exists, other=0.0).to(tl.float32)
        back = tl.zeros((ROWS, LANES), tl.float32)
        for lag in tl.static_range(TAPS):
            later = exists & (lane + lag * UNITS < SIZE)[None, :]
            local = tl.load(grad + place + lag * UNITS, mask=later, other=0.0).to(tl.float32)
            back += tl.load(taps + TAPS - 1 - lag) * local
            to_taps += tl.where(tap == TAPS - 1 - lag, tl.sum(tl.sum(local * now, 1), 0), 0.0)
        tl.store(to_maps + place, back.to(to_maps.dtype.element_ty), mask=exists)
    tl.store(partial + tl.program_id(0) * TAPS + tap, to_taps, mask=tap < TAPS)
