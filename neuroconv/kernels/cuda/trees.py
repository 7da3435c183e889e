"""Triton kernels of a small tree: from the axons' activity to the current, and back.

Weights and taps are merged into effective filters by one kernel. A program of the others computes
the branches' potentials of one neuron, for a block of samples and one step after another, in
registers: by products of small matrices (`tl.dot`) that accumulate in float32. Only currents are
written, and in the backward pass the gradients of each neuron's inputs, which `axon_kernel` adds up
over the neurons that an axon reaches. Nothing is added atomically: all sums have a fixed order.

Shapes: as in `kernels.tree_sum`. Activity, current and their gradients lie batch last, (T, F, B)
and (T, N, B): neighbouring threads read neighbouring samples of an axon.

Rows of a tile are the (step, axon) pairs that a tree reads, the newest step first: row r is axon
r % A, r // A steps ago. Rows before the window's start are then the last ones, and are skipped.
Outputs of a tile are branches, dendrite by dendrite, each dendrite's sites padded to a
power of two, as Triton needs it: so a tile splits into (dendrites, sites).
"""
# mypy: ignore-errors

import triton
import triton.language as tl

SUM, MEAN, MAX = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def _row(step, rows, row):
    """Returns the row of a (T, rows, ...) array, in 64 bits: 32 count no large population."""
    return tl.cast(step, tl.int64) * rows + row


@triton.jit
def merge_kernel(
    weight, filters, effective, synapses, k_time,
    A: tl.constexpr, SITES: tl.constexpr, DENDRITES: tl.constexpr, P: tl.constexpr,
    BRANCHES: tl.constexpr, ACROSS: tl.constexpr, ALONG: tl.constexpr, SIDEWAYS: tl.constexpr,
    CLAW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes a block of one neuron's effective filters, (K * A, O)."""
    O: tl.constexpr = SITES * DENDRITES  # noqa: E741
    neuron = tl.program_id(0).to(tl.int64)
    weight += neuron * synapses
    filters += neuron * k_time * BRANCHES * ACROSS
    number = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row, branch = number // O, number % O
    total = tl.full((BLOCK,), 0.0, tl.float32)
    for site in range(P if CLAW else 1):
        synapse = row % A * P + site if CLAW else row % A
        along = synapse % P + ALONG - branch % SITES
        across = synapse // P + SIDEWAYS - branch // SITES
        inside = (along >= 0) & (along < BRANCHES) & (across >= 0) & (across < ACROSS)
        inside = inside & (row < k_time * A) & (synapse < synapses)
        tap = (row // A * BRANCHES + along) * ACROSS + across
        product = tl.load(weight + synapse, mask=inside, other=0.0).to(tl.float32)
        total += product * tl.load(filters + tap, mask=inside, other=0.0)
    offset = neuron * k_time * A * O + number
    tl.store(effective + offset, total, mask=row < k_time * A)


@triton.jit
def weight_gradient_kernel(
    weight, filters, grad, to_weight, to_filters, to_bias, grad_stride, synapses, k_time,
    A: tl.constexpr, SITES: tl.constexpr, DENDRITES: tl.constexpr, P: tl.constexpr,
    BRANCHES: tl.constexpr, ACROSS: tl.constexpr, ALONG: tl.constexpr, SIDEWAYS: tl.constexpr,
    CLAW: tl.constexpr, SYNAPSES: tl.constexpr, TAPS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of one neuron's weights, taps and bias from that of `merge_kernel`'s
    result, with the bias's D' numbers after it."""
    O: tl.constexpr = SITES * DENDRITES  # noqa: E741
    PLANE: tl.constexpr = BRANCHES * ACROSS
    neuron = tl.program_id(0).to(tl.int64)
    grad += neuron * grad_stride
    synapse = tl.arange(0, SYNAPSES)
    axon = synapse // P if CLAW else synapse
    present = synapse < synapses
    w = tl.load(weight + neuron * synapses + synapse, mask=present, other=0.0).to(tl.float32)
    total = tl.full((TAPS, SYNAPSES), 0.0, tl.float32)
    for first in range(0, k_time * PLANE, TAPS):
        tap = first + tl.arange(0, TAPS)
        step, along, across = tap // PLANE, tap // ACROSS % BRANCHES, tap % ACROSS
        site = synapse[None, :] % P + ALONG - along[:, None]
        dendrite = synapse[None, :] // P + SIDEWAYS - across[:, None]
        inside = (site >= 0) & (site < SITES) & (dendrite >= 0) & (dendrite < DENDRITES)
        inside = inside & present[None, :] & (tap < k_time * PLANE)[:, None]
        offset = (step[:, None] * A + axon[None, :]) * O + dendrite * SITES + site
        g = tl.load(grad + offset, mask=inside, other=0.0)
        place = neuron * k_time * PLANE + tap
        f = tl.load(filters + place, mask=tap < k_time * PLANE, other=0.0).to(tl.float32)
        total += g * f[:, None]
        tl.store(to_filters + place, tl.sum(g * w[None, :], 1), mask=tap < k_time * PLANE)
    tl.store(to_weight + neuron * synapses + synapse, tl.sum(total, 0), mask=present)
    if BIAS > 0:
        number = tl.arange(0, BIAS)
        bias = tl.load(grad + k_time * A * O + number, mask=number < DENDRITES, other=0.0)
        tl.store(to_bias + neuron * DENDRITES + number, bias, mask=number < DENDRITES)


@triton.jit
def axon_kernel(
    to_inputs, order, starts, to_activity, inputs, axons, batch,
    LISTENERS: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    """Adds up one axon's gradient at one step, for a block of samples, over the neurons' inputs
    (T, inputs, B) that read it: those that `order` names from `starts[axon]` on."""
    blocks = (batch + BATCH - 1) // BATCH
    row = (tl.program_id(0) // blocks).to(tl.int64)  # of (T, F)
    sample = tl.program_id(0) % blocks * BATCH + tl.arange(0, BATCH)
    start, end = tl.load(starts + row % axons), tl.load(starts + row % axons + 1)
    total = tl.full((LISTENERS, BATCH), 0.0, tl.float32)
    for first in range(start, end, LISTENERS):
        index = first + tl.arange(0, LISTENERS)
        source = _row(row // axons, inputs, tl.load(order + index, mask=index < end, other=0))
        total += tl.load(
            to_inputs + source[:, None] * batch + sample[None, :],
            mask=(index < end)[:, None] & (sample < batch)[None, :], other=0.0,
        )  # fmt: skip
    tl.store(to_activity + row * batch + sample, tl.sum(total, 0), mask=sample < batch)


@triton.jit
def _load_inputs(
    activity, wiring, wiring_stride, rows, reach, step, axons, sample, batch, A: tl.constexpr
):
    """Loads a neuron's inputs, (rows, samples), zero from row `reach` on."""
    valid = rows < reach
    axon = tl.load(wiring + rows % A * wiring_stride, mask=valid, other=0).to(tl.int64)
    offset = _row(step - rows // A, axons, axon)[:, None] * batch + sample[None, :]
    inside = valid[:, None] & (sample < batch)[None, :]
    return tl.load(activity + offset, mask=inside, other=0.0)


@triton.jit
def _branches(OUTPUTS: tl.constexpr, SITES_PAD: tl.constexpr, SITES, DENDRITES):
    """Returns each output's dendrite, its branch, and whether there is such a branch."""
    output = tl.arange(0, OUTPUTS)
    dendrite, site = output // SITES_PAD, output % SITES_PAD
    return dendrite, dendrite * SITES + site, (site < SITES) & (dendrite < DENDRITES)


@triton.jit
def _load_filters(effective, branch, real, rows, lag, k_time, A: tl.constexpr, O: tl.constexpr):  # noqa: E741
    """Loads a neuron's effective filters, (outputs, rows), with offsets and mask.

    `lag` is the steps from each row to the output. In memory the oldest tap comes first.
    """
    offset = ((k_time - 1 - lag) * A + rows % A)[None, :] * O + branch[:, None]
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
            x = _load_inputs(
                activity, wiring, wiring_stride_a, rows, reach, step, axons, sample, batch, A
            )
            filters, _, _ = _load_filters(effective, branch, real, rows, rows // A, k_time, A, O)
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
        offset = _row(step, neurons, neuron) * batch + sample
        tl.store(current + offset, total, mask=sample < batch)


@triton.jit
def gradient_kernel(
    activity, wiring, effective, bias, grad, to_inputs, to_effective,
    wiring_stride_n, wiring_stride_a, batch, axons, steps, neurons, k_time, splits, split_stride,
    A: tl.constexpr, SITES: tl.constexpr, DENDRITES: tl.constexpr,
    SITES_PAD: tl.constexpr, OUTPUTS: tl.constexpr, ROWS: tl.constexpr, BATCH: tl.constexpr,
    BIASED: tl.constexpr, LINEAR: tl.constexpr, REDUCTION: tl.constexpr, PRECISION: tl.constexpr,
    TO_ACTIVITY: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of one neuron's inputs, (T, N * A, B), and of its effective filters and,
    after them, its bias, over the samples of one of the splits.

    ROWS covers all rows, since sums are kept in registers. An input's gradient is complete once the
    last step that reads it is through: until then it stays in the rows of its step modulo K, whose
    lag to the present changes from step to step.
    """
    O: tl.constexpr = SITES * DENDRITES  # noqa: E741
    DENDRITES_PAD: tl.constexpr = OUTPUTS // SITES_PAD
    neuron = (tl.program_id(0) // splits).to(tl.int64)
    part = tl.program_id(0) % splits
    dendrite, branch, real = _branches(OUTPUTS, SITES_PAD, SITES, DENDRITES)
    rows = tl.arange(0, ROWS)
    wiring += neuron * wiring_stride_n
    effective += neuron * k_time * A * O
    filters, offset, inside = _load_filters(effective, branch, real, rows, rows // A, k_time, A, O)
    if BIASED:
        rest = tl.load(bias + neuron * DENDRITES + dendrite, mask=real, other=0.0).to(tl.float32)
    filter_sum = tl.full((OUTPUTS, ROWS), 0.0, tl.float32)
    bias_sum = tl.full((OUTPUTS,), 0.0, tl.float32)
    for first in range(part * BATCH, batch, splits * BATCH):
        sample = first + tl.arange(0, BATCH)
        input_sum = tl.full((ROWS, BATCH), 0.0, tl.float32)
        for step in range(steps):
            reach = tl.minimum(step + 1, k_time) * A
            x = _load_inputs(
                activity, wiring, wiring_stride_a, rows, reach, step, axons, sample, batch, A
            )
            potential = tl.dot(filters, x, input_precision=PRECISION)
            if BIASED:
                potential += rest[:, None]
            now = _row(step, neurons, neuron) * batch + sample
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
                lag = (step - rows // A % k_time + k_time) % k_time
                now_filters, _, _ = _load_filters(effective, branch, real, rows, lag, k_time, A, O)
                input_sum = tl.dot(
                    tl.trans(now_filters), local, input_sum, input_precision=PRECISION
                )
                # The last step completes all rows.
                complete = (lag == k_time - 1) | (step == steps - 1)
                source = _row(step - lag, neurons, neuron) * A + rows % A
                stored = complete & (lag <= step) & (rows < k_time * A)
                tl.store(
                    to_inputs + source[:, None] * batch + sample[None, :],
                    input_sum, mask=stored[:, None] & (sample < batch)[None, :],
                )  # fmt: skip
                input_sum = tl.where(complete[:, None], 0.0, input_sum)
    to_effective += _row(part, neurons, neuron) * split_stride
    tl.store(to_effective + offset, filter_sum, mask=inside)
    if BIASED:
        by_dendrite = tl.sum(tl.reshape(bias_sum, (DENDRITES_PAD, SITES_PAD)), 1)
        dendrites = tl.arange(0, DENDRITES_PAD)
        tl.store(to_effective + k_time * A * O + dendrites, by_dendrite, mask=dendrites < DENDRITES)
