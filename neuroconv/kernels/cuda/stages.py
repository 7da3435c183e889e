"""Triton kernels of `kernels.stages`: synapses, and the rates of dendrites.

Sums have a fixed order; they are in float32, of float64 in float64. Offsets are 64 bits wide.
"""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def release_kernel(
    rows, weight, wiring, sheet, synapses, positions, kinds, width,
    POSITIONS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the potentials (N * C, positions, width) of a block of one tree's positions: its
    axons' rows (F, width) times weights (N * C, S), and zeros behind the last synapse."""
    blocks, groups = (width + BLOCK - 1) // BLOCK, (positions + POSITIONS - 1) // POSITIONS
    program = tl.program_id(0) // blocks
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    tree, position = (program // groups).to(tl.int64), program % groups * POSITIONS
    position += tl.arange(0, POSITIONS)
    present, inside = position < synapses, (column < width)[None, :]
    axon = tl.load(wiring + tree // kinds * synapses + position, mask=present, other=0)
    w = tl.load(weight + tree * synapses + position, mask=present, other=0.0)
    offset = axon.to(tl.int64)[:, None] * width + column[None, :]
    x = tl.load(rows + offset, mask=present[:, None] & inside, other=0.0)
    offset = (tree * positions + position)[:, None] * width + column[None, :]
    tl.store(sheet + offset, x * w[:, None], mask=(position < positions)[:, None] & inside)


@triton.jit
def release_gradient_kernel(
    rows, weight, grad, order, starts, to_rows, to_weight,
    axons, synapses, positions, kinds, width, splits,
    SYNAPSES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of one axon's row and of the weights of its synapses, which `order`
    names from `starts[axon]` on. A split takes a part of them, with a row of its own."""
    axon, split = (tl.program_id(0) // splits).to(tl.int64), tl.program_id(0) % splits
    start, end = tl.load(starts + axon), tl.load(starts + axon + 1)
    share = (end - start + splits - 1) // splits
    start += split * share
    end = tl.minimum(end, start + share)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = (column < width)[None, :]
        x = tl.load(rows + axon * width + column, mask=column < width, other=0.0)[None, :]
        total = tl.zeros((SYNAPSES, BLOCK), to_rows.dtype.element_ty)
        for number in range(start * kinds, end * kinds, SYNAPSES):
            index = number + tl.arange(0, SYNAPSES)
            present = index < end * kinds
            synapse = tl.load(order + index // kinds, mask=present, other=0)
            tree = synapse // synapses * kinds + index % kinds
            position = synapse % synapses
            offset = (tree * positions + position)[:, None] * width + column[None, :]
            g = tl.load(grad + offset, mask=present[:, None] & inside, other=0.0).to(total.dtype)
            place = tree * synapses + position
            w = tl.load(weight + place, mask=present, other=0.0)
            total += g * w[:, None]
            by_synapse = tl.sum(g * x, 1)
            if first > 0:  # other threads of this program wrote it before
                tl.debug_barrier()
                by_synapse += tl.load(to_weight + place, mask=present, other=0.0)
            tl.store(to_weight + place, by_synapse, mask=present)
        offset = (split * axons + axon) * width + column
        tl.store(to_rows + offset, tl.sum(total, 0), mask=column < width)


@triton.jit
def _site(potential, place, inside, LINEAR: tl.constexpr, WIDE: tl.constexpr):
    """Loads a site's potentials; returns them and their rates."""
    wide = tl.load(potential + place, mask=inside, other=0.0).to(WIDE)
    return wide, wide if LINEAR else tl.where(wide <= 0, 0.0, wide)  # nan stays


@triton.jit
def _place(number, size_1, size_2, size_3, stride_0, stride_1, stride_2, stride_3):
    """Returns the offset of numbers, counted with the last of four axes innermost."""
    rest = number // size_3
    place = number % size_3 * stride_3 + rest % size_2 * stride_2
    rest = rest // size_2
    return place + rest % size_1 * stride_1 + rest // size_1 * stride_0


@triton.jit
def rate_kernel(
    potential, rates, total, sites, divisor, stride, size_1, size_2, size_3,
    stride_0, stride_1, stride_2, stride_3,
    LINEAR: tl.constexpr, LARGEST: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the rates of dendrites, in their order in memory: over their sites the sum divided by
    a number, or the largest, which is nan where one is."""
    WIDE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = number < total
    place = _place(number, size_1, size_2, size_3, stride_0, stride_1, stride_2, stride_3)
    result = tl.full((BLOCK,), float("-inf") if LARGEST else 0.0, WIDE)
    broken = number < 0
    for site in range(sites):
        _, rate = _site(potential, place + tl.cast(site, tl.int64) * stride, inside, LINEAR, WIDE)
        if LARGEST:
            result, broken = tl.where(rate > result, rate, result), broken | (rate != rate)
        else:
            result += rate
    result = tl.where(broken, float("nan"), result) if LARGEST else result / divisor
    tl.store(rates + number, result, mask=inside)


@triton.jit
def rate_gradient_kernel(
    potential, grad, to_potential, total, sites, divisor, stride, size_1, size_2, size_3,
    stride_0, stride_1, stride_2, stride_3, to_stride, to_0, to_1, to_2, to_3,
    LINEAR: tl.constexpr, LARGEST: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of the potentials that `rate_kernel` reads; of equal largest rates each
    has its share, as in torch.amax."""
    WIDE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = number < total
    place = _place(number, size_1, size_2, size_3, stride_0, stride_1, stride_2, stride_3)
    to_place = _place(number, size_1, size_2, size_3, to_0, to_1, to_2, to_3)
    passed = tl.load(grad + number, mask=inside, other=0.0).to(WIDE) / divisor
    largest = tl.full((BLOCK,), float("-inf"), WIDE)
    if LARGEST:
        equal = tl.zeros((BLOCK,), WIDE)
        for site in range(sites):
            at = place + tl.cast(site, tl.int64) * stride
            _, rate = _site(potential, at, inside, LINEAR, WIDE)
            equal = tl.where(rate > largest, 1.0, equal + (rate == largest))
            largest = tl.where(rate > largest, rate, largest)
        passed = passed / equal
    for site in range(sites):
        at = place + tl.cast(site, tl.int64) * stride
        wide, rate = _site(potential, at, inside, LINEAR, WIDE)
        result = passed if LINEAR else tl.where(wide <= 0, 0.0, passed)
        if LARGEST:
            result = tl.where(rate == largest, result, 0.0)
        tl.store(to_potential + to_place + tl.cast(site, tl.int64) * to_stride, result, mask=inside)
