"""Triton kernels of dendrites that read one channel each: their maps, and the gradients.

Sums have a fixed order: the results are the same in each run. Offsets are 64 bits wide.

Shapes: as in `kernels.claw_maps`; tiles are (positions, units), or (positions, channels).
"""
# mypy: ignore-errors

import triton
import triton.language as tl

# Places in SIZES, as `kernels.claw_maps` fills it.
(
    STEPS, CHANNELS, HEIGHT, WIDTH, UNITS, TAPS, BRANCHES, DENDRITES, ROWS, COLUMNS, ROW_STRIDE,
    STRIDE, ROW_DILATION, DILATION, TOP, LEFT,
) = map(tl.constexpr, range(16))  # fmt: skip


@triton.jit
def _units(channels, dendrite, SIZES: tl.constexpr, LANES: tl.constexpr):
    """Returns a block's units, whether they are real, and the channels that they read."""
    unit = tl.program_id(1).to(tl.int64) * LANES + tl.arange(0, LANES)
    real = unit < SIZES[UNITS]
    return unit, real, tl.load(channels + unit * SIZES[DENDRITES] + dendrite, mask=real, other=0)


@triton.jit
def _tap(unit, lag, branch, dendrite, SIZES: tl.constexpr):
    """Returns the offset of a tap in the weights, whose oldest comes first."""
    time = unit * SIZES[TAPS] + SIZES[TAPS] - 1 - lag
    return (time * SIZES[BRANCHES] + branch) * SIZES[DENDRITES] + dendrite


@triton.jit
def _read(frames, number, positions, step, branch, dendrite, channel, real, SIZES: tl.constexpr):
    """Loads what a branch reads at output positions, zeros outside of the frames."""
    line = number // SIZES[COLUMNS]
    row = line % SIZES[ROWS] * SIZES[ROW_STRIDE] - SIZES[TOP] + branch * SIZES[ROW_DILATION]
    column = number % SIZES[COLUMNS] * SIZES[STRIDE] - SIZES[LEFT] + dendrite * SIZES[DILATION]
    inside = (row >= 0) & (row < SIZES[HEIGHT]) & (column >= 0) & (column < SIZES[WIDTH])
    pixel = (line // SIZES[ROWS] * SIZES[HEIGHT] + row) * SIZES[WIDTH] + column
    offset = (pixel * SIZES[STEPS] + step)[:, None] * SIZES[CHANNELS] + channel[None, :]
    mask = (inside & (number < positions))[:, None] & real[None, :]
    return tl.load(frames + offset, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def maps_kernel(
    frames, weight, channels, maps, positions,
    SIZES: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Writes the potentials of one dendrite of some units at one step."""
    dendrite, step = tl.program_id(2) // SIZES[STEPS], tl.program_id(2) % SIZES[STEPS]
    number = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    unit, real, channel = _units(channels, dendrite, SIZES, LANES)
    potential = tl.zeros([TILE, LANES], tl.float32)
    for lag in range(tl.minimum(SIZES[TAPS], step + 1)):
        for branch in range(SIZES[BRANCHES]):
            tap = tl.load(weight + _tap(unit, lag, branch, dendrite, SIZES), mask=real, other=0.0)
            x = _read(frames, number, positions, step - lag, branch, dendrite, channel, real, SIZES)
            potential += x * tap[None, :]
    row = (number * SIZES[DENDRITES] + dendrite) * SIZES[STEPS] + step
    mask = (number < positions)[:, None] & real[None, :]
    tl.store(maps + row[:, None] * SIZES[UNITS] + unit[None, :], potential, mask=mask)


@triton.jit
def tap_gradient_kernel(
    frames, channels, grad, partial, positions, tiles,
    SIZES: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Sums the gradient of one tap of some units over some tiles of positions and all steps,
    (parts, U, K_T, K_H, D)."""
    tap = tl.program_id(2)
    lag, branch = tap % SIZES[TAPS], tap // SIZES[TAPS] % SIZES[BRANCHES]
    dendrite = tap // (SIZES[TAPS] * SIZES[BRANCHES])
    unit, real, channel = _units(channels, dendrite, SIZES, LANES)
    products = tl.zeros([TILE, LANES], tl.float32)
    for tile in range(tiles):
        start = (tl.program_id(0).to(tl.int64) * tiles + tile) * TILE
        number = start + tl.arange(0, TILE)
        mask = (number < positions)[:, None] & real[None, :]
        for step in range(lag, SIZES[STEPS]):
            row = (number * SIZES[DENDRITES] + dendrite) * SIZES[STEPS] + step
            offset = row[:, None] * SIZES[UNITS] + unit[None, :]
            x = _read(frames, number, positions, step - lag, branch, dendrite, channel, real, SIZES)
            products += tl.load(grad + offset, mask=mask, other=0.0).to(tl.float32) * x
    size = SIZES[UNITS] * SIZES[TAPS] * SIZES[BRANCHES] * SIZES[DENDRITES]
    part = partial + tl.program_id(0).to(tl.int64) * size
    tl.store(part + _tap(unit, lag, branch, dendrite, SIZES), tl.sum(products, 0), mask=real)


@triton.jit
def frame_gradient_kernel(
    grad, weight, readers, first, result, pixels,
    SIZES: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of some channels at one step. `readers` lists the dendrites of all units,
    u * D + d, by the channel that they read, and `first` where each channel's begin."""
    pixel = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    channel, step = tl.program_id(1) * LANES + tl.arange(0, LANES), tl.program_id(2)
    real = channel < SIZES[CHANNELS]
    begin = tl.load(first + channel, mask=real, other=0)
    count = tl.load(first + channel + 1, mask=real, other=0) - begin
    sample, line = pixel // SIZES[WIDTH] // SIZES[HEIGHT], pixel // SIZES[WIDTH] % SIZES[HEIGHT]
    total = tl.zeros([TILE, LANES], tl.float32)
    for index in range(tl.max(count)):
        reads = index < count
        reader = tl.load(readers + begin + index, mask=reads, other=0)
        unit, dendrite = reader // SIZES[DENDRITES], reader % SIZES[DENDRITES]
        shift = (pixel % SIZES[WIDTH] + SIZES[LEFT])[:, None] - (dendrite * SIZES[DILATION])[
            None, :
        ]
        column = shift // SIZES[STRIDE]
        meets = (shift >= 0) & (shift % SIZES[STRIDE] == 0) & (column < SIZES[COLUMNS])
        meets = meets & (pixel < pixels)[:, None] & reads[None, :]
        for branch in range(SIZES[BRANCHES]):
            down = line + SIZES[TOP] - branch * SIZES[ROW_DILATION]
            row = down // SIZES[ROW_STRIDE]
            fits = (down >= 0) & (down % SIZES[ROW_STRIDE] == 0) & (row < SIZES[ROWS])
            number = (sample * SIZES[ROWS] + row)[:, None] * SIZES[COLUMNS] + column
            for lag in range(tl.minimum(SIZES[TAPS], SIZES[STEPS] - step)):
                tap = tl.load(weight + _tap(unit, lag, branch, dendrite, SIZES))
                later = (number * SIZES[DENDRITES] + dendrite[None, :]) * SIZES[STEPS] + step + lag
                offset = later * SIZES[UNITS] + unit[None, :]
                local = tl.load(grad + offset, mask=meets & fits[:, None], other=0.0)
                total += local.to(tl.float32) * tap[None, :]
    offset = (pixel * SIZES[STEPS] + step)[:, None] * SIZES[CHANNELS] + channel[None, :]
    tl.store(result + offset, total, mask=(pixel < pixels)[:, None] & real[None, :])
