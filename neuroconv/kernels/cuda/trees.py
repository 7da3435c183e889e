"""Triton kernels of a small tree: from the axons' activity to the current, and back.

A program computes the branches' potentials of one neuron, for a block of samples and one step after
another, in registers: by products of small matrices (`tl.dot`) that accumulate in float32. Only
currents are written.

Shapes: as in `kernels.tree_sum`. Activity, current and their gradients lie batch last, (T, F, B)
and (T, N, B): neighbouring threads read neighbouring samples of an axon.

Rows of a tile are the (step, axon) pairs that a tree reads, the newest step first: row r is axon
r % A, r // A steps ago. Rows before the window's start are then the last ones, and are skipped.
Outputs of a tile are branches, dendrite by dendrite, each dendrite's sites padded to a
power of two, as Triton needs it: so a tile splits into (dendrites, sites).

Offsets are 64 bits wide where a population can be larger than 32 bits count.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

SUM, MEAN, MAX = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def _load_inputs(
    activity, wiring, wiring_stride, rows, reach, step, axons, sample, batch, A: tl.constexpr
):
    """Loads a neuron's inputs, (rows, samples), zero from row `reach` on, with offsets and mask."""
    valid = rows < reach
    axon = tl.load(wiring + rows % A * wiring_stride, mask=valid, other=0).to(tl.int64)
    row = (step - rows // A) * axons + axon
    offset = row[:, None] * batch + sample[None, :]
    inside = valid[:, None] & (sample < batch)[None, :]
    return tl.load(activity + offset, mask=inside, other=0.0), offset, inside


@triton.jit
def _branches(OUTPUTS: tl.constexpr, SITES_PAD: tl.constexpr, SITES, DENDRITES):
    """Returns each output's dendrite, its branch, and whether there is such a branch."""
    output = tl.arange(0, OUTPUTS)
    dendrite, site = output // SITES_PAD, output % SITES_PAD
    return dendrite, dendrite * SITES + site, (site < SITES) & (dendrite < DENDRITES)


@triton.jit
def _load_filters(effective, branch, real, rows, k_time, A: tl.constexpr, O: tl.constexpr):  # noqa: E741
    """Loads a neuron's effective filters, (outputs, rows), with offsets and mask.

    In memory the oldest tap comes first.
    """
    offset = ((k_time - 1 - rows // A) * A + rows % A)[None, :] * O + branch[:, None]
    inside = (rows < k_time * A)[None, :] & real[:, None]
    return tl.load(effective + offset, mask=inside, other=0.0), offset, inside


@triton.jit
def _rate(potential, LINEAR: tl.constexpr):
    # Not tl.maximum, which would turn nan into zero.
    return potential if LINEAR else tl.where(potential <= 0, 0.0, potential)


@triton.jit
def _largest(rate, dendrite_mask, site_mask):
    """Returns the maximum over sites of (dendrites, sites, samples); nan where a rate is nan."""
    largest = tl.max(tl.where(site_mask[None, :, None], rate, float("-inf")), 1)
    broken = tl.max((rate != rate).to(tl.int32), 1)
    largest = tl.where(broken > 0, float("nan"), largest)
    return tl.where(dendrite_mask[:, None], largest, 0.0)


@triton.jit
def current_kernel(
    activity, wiring, effective, bias, current,
    wiring_stride_n, wiring_stride_a, batch, axons, steps, neurons, k_time,
    A: tl.constexpr, SITES: tl.constexpr, DENDRITES: tl.constexpr,
    SITES_PAD: tl.constexpr, OUTPUTS: tl.constexpr, ROWS: tl.constexpr, BATCH: tl.constexpr,
    BIASED: tl.constexpr, LINEAR: tl.constexpr, REDUCTION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes the current of one neuron and a block of samples, all steps."""
    O: tl.constexpr = SITES * DENDRITES  # noqa: E741
    # Blocks of one neuron follow one another: they read the same filters.
    blocks = (batch + BATCH - 1) // BATCH
    neuron = (tl.program_id(0) // blocks).to(tl.int64)
    sample = tl.program_id(0) % blocks * BATCH + tl.arange(0, BATCH)
    dendrite, branch, real = _branches(OUTPUTS, SITES_PAD, SITES, DENDRITES)
    wiring += neuron * wiring_stride_n
    effective += neuron * k_time * A * O
    if BIASED:
        rest = tl.load(bias + neuron * DENDRITES + dendrite, mask=real, other=0.0).to(tl.float32)
    for step in range(steps):
        reach = tl.minimum(step + 1, k_time) * A
        potential = tl.full((OUTPUTS, BATCH), 0.0, tl.float32)
        for first in range(0, reach, ROWS):
            rows = first + tl.arange(0, ROWS)
            x, _, _ = _load_inputs(
                activity, wiring, wiring_stride_a, rows, reach, step, axons, sample, batch, A
            )
            filters, _, _ = _load_filters(effective, branch, real, rows, k_time, A, O)
            potential = tl.dot(filters, x, potential, input_precision=PRECISION)
        if BIASED:
            potential += rest[:, None]
        rate = _rate(potential, LINEAR)
        if REDUCTION == MAX:
            split = tl.reshape(rate, (OUTPUTS // SITES_PAD, SITES_PAD, BATCH))
            dendrite_mask = tl.arange(0, OUTPUTS // SITES_PAD) < DENDRITES
            site_mask = tl.arange(0, SITES_PAD) < SITES
            total = tl.sum(_largest(split, dendrite_mask, site_mask), 0)
        else:
            total = tl.sum(rate, 0)  # outputs that are no branch have a rate of zero
            if REDUCTION == MEAN:
                total *= 1 / SITES
        offset = (step * neurons + neuron) * batch + sample
        tl.store(current + offset, total.to(current.dtype.element_ty), mask=sample < batch)


@triton.jit
def gradient_kernel(
    activity, wiring, effective, bias, grad, to_activity, to_effective, to_bias,
    wiring_stride_n, wiring_stride_a, batch, axons, steps, neurons, k_time,
    A: tl.constexpr, SITES: tl.constexpr, DENDRITES: tl.constexpr,
    SITES_PAD: tl.constexpr, OUTPUTS: tl.constexpr, ROWS: tl.constexpr, BATCH: tl.constexpr,
    BIASED: tl.constexpr, LINEAR: tl.constexpr, REDUCTION: tl.constexpr, PRECISION: tl.constexpr,
    TO_ACTIVITY: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of one neuron's filters and bias, over all samples.

    An axon's gradient, to which other neurons add, is added atomically. ROWS covers all rows, since
    the filters' gradient is summed in registers.
    """
    O: tl.constexpr = SITES * DENDRITES  # noqa: E741
    DENDRITES_PAD: tl.constexpr = OUTPUTS // SITES_PAD
    neuron = tl.program_id(0).to(tl.int64)
    dendrite, branch, real = _branches(OUTPUTS, SITES_PAD, SITES, DENDRITES)
    rows = tl.arange(0, ROWS)
    wiring += neuron * wiring_stride_n
    filters, offset, inside = _load_filters(
        effective + neuron * k_time * A * O, branch, real, rows, k_time, A, O
    )
    if BIASED:
        rest = tl.load(bias + neuron * DENDRITES + dendrite, mask=real, other=0.0).to(tl.float32)
    filter_sum = tl.full((OUTPUTS, ROWS), 0.0, tl.float32)
    bias_sum = tl.full((OUTPUTS,), 0.0, tl.float32)
    for first in range(0, batch, BATCH):
        sample = first + tl.arange(0, BATCH)
        for step in range(steps):
            reach = tl.minimum(step + 1, k_time) * A
            x, input_offset, valid = _load_inputs(
                activity, wiring, wiring_stride_a, rows, reach, step, axons, sample, batch, A
            )
            potential = tl.dot(filters, x, input_precision=PRECISION)
            if BIASED:
                potential += rest[:, None]
            now = (step * neurons + neuron) * batch + sample
            passed = tl.load(grad + now, mask=sample < batch, other=0.0).to(tl.float32)
            if REDUCTION == MEAN:
                passed *= 1 / SITES
            if REDUCTION == MAX:  # ties share the gradient, as in torch.amax
                split = tl.reshape(_rate(potential, LINEAR), (DENDRITES_PAD, SITES_PAD, BATCH))
                site_mask = tl.arange(0, SITES_PAD) < SITES
                dendrite_mask = tl.arange(0, DENDRITES_PAD) < DENDRITES
                largest = _largest(split, dendrite_mask, site_mask)
                is_largest = ((split == largest[:, None, :]) & site_mask[None, :, None]).to(
                    tl.float32
                )
                shared = passed[None, :] / tl.maximum(tl.sum(is_largest, 1), 1.0)
                local = tl.reshape(is_largest * shared[:, None, :], (OUTPUTS, BATCH))
            else:
                local = tl.broadcast_to(passed[None, :], (OUTPUTS, BATCH))
            passes = real[:, None] if LINEAR else real[:, None] & (potential > 0)
            local = tl.where(passes, local, 0.0)
            bias_sum += tl.sum(local, 1)
            local = local.to(x.dtype)
            filter_sum = tl.dot(local, tl.trans(x), filter_sum, input_precision=PRECISION)
            if TO_ACTIVITY:
                to_inputs = tl.dot(tl.trans(filters), local, input_precision=PRECISION)
                tl.atomic_add(to_activity + input_offset, to_inputs, mask=valid, sem="relaxed")
    tl.store(to_effective + neuron * k_time * A * O + offset, filter_sum, mask=inside)
    if BIASED:
        by_dendrite = tl.sum(tl.reshape(bias_sum, (DENDRITES_PAD, SITES_PAD)), 1)
        dendrites = tl.arange(0, DENDRITES_PAD)
        tl.store(
            to_bias + neuron * DENDRITES + dendrites, by_dendrite,
            mask=dendrites < DENDRITES,
        )  # fmt: skip
