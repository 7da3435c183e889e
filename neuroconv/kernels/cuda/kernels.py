"""Triton kernels of a small tree: from the axons' activity to the current, and back.

A program computes the branches' potentials of one neuron, for a block of samples and one step after
another, in registers: by products of small matrices (`tl.dot`) that accumulate in float32. Only
currents are written.

Shapes: as in `kernels.tree_sum`. Activity, current and their gradients lie batch last, (T, F, B)
and (T, N, B): neighbouring threads read neighbouring samples of the one axon that they hear.

Rows of a tile are the (step, axon) pairs that a tree hears, the newest step first: row r is axon
r % A, r // A steps ago. What a window's start cuts off is then the last rows, and is not gone
through. Outputs of a tile are branches, dendrite by dendrite, each dendrite's sites padded to a
power of two, as Triton wants all axes: so a tile splits into (dendrites, sites).

Offsets are 64 bits wide where a population can be larger than 32 bits count.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

SUM, MEAN, MAX = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def _heard(activity, wires, wire_stride, rows, reach, step, axons, sample, batch, A: tl.constexpr):
    """What a neuron hears, (rows, samples), and where it lies; zero past its reach."""
    there = rows < reach
    axon = tl.load(wires + rows % A * wire_stride, mask=there, other=0).to(tl.int64)
    row = (step - rows // A) * axons + axon
    place = row[:, None] * batch + sample[None, :]
    inside = there[:, None] & (sample < batch)[None, :]
    return tl.load(activity + place, mask=inside, other=0.0), place, inside


@triton.jit
def _branches(OUTPUTS: tl.constexpr, SITES_PAD: tl.constexpr, SITES, DENDRITES):
    """Of a tile's outputs: the dendrite, the number of the branch, and whether there is one."""
    output = tl.arange(0, OUTPUTS)
    dendrite, site = output // SITES_PAD, output % SITES_PAD
    return dendrite, dendrite * SITES + site, (site < SITES) & (dendrite < DENDRITES)


@triton.jit
def _response(responses, branch, real, rows, k_time, A: tl.constexpr, O: tl.constexpr):  # noqa: E741
    """(outputs, rows) of a neuron's responses, and where they lie: in memory the oldest tap comes
    first."""
    place = ((k_time - 1 - rows // A) * A + rows % A)[None, :] * O + branch[:, None]
    inside = (rows < k_time * A)[None, :] & real[:, None]
    return tl.load(responses + place, mask=inside, other=0.0), place, inside


@triton.jit
def _rate(potential, LINEAR: tl.constexpr):
    # Not tl.maximum, which would make a zero of what is no number and hide it.
    return potential if LINEAR else tl.where(potential <= 0, 0.0, potential)


@triton.jit
def _largest(rate, dendrites_there, sites_there):
    """(dendrites, 1, samples) of (dendrites, sites, samples); nan where a rate is no number."""
    largest = tl.max(tl.where(sites_there[None, :, None], rate, float("-inf")), 1)
    broken = tl.max((rate != rate).to(tl.int32), 1)
    largest = tl.where(broken > 0, float("nan"), largest)
    return tl.where(dendrites_there[:, None], largest, 0.0)


@triton.jit
def current_kernel(
    activity, wires, responses, bias, current,
    wire_stride_n, wire_stride_a, batch, axons, steps, neurons, k_time,
    A: tl.constexpr, SITES: tl.constexpr, DENDRITES: tl.constexpr,
    SITES_PAD: tl.constexpr, OUTPUTS: tl.constexpr, ROWS: tl.constexpr, BATCH: tl.constexpr,
    BIASED: tl.constexpr, LINEAR: tl.constexpr, REDUCTION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes the current of one neuron and a block of samples, all steps."""
    O: tl.constexpr = SITES * DENDRITES  # noqa: E741
    # Blocks of one neuron follow one another: they read the same responses.
    blocks = (batch + BATCH - 1) // BATCH
    neuron = (tl.program_id(0) // blocks).to(tl.int64)
    sample = tl.program_id(0) % blocks * BATCH + tl.arange(0, BATCH)
    dendrite, branch, real = _branches(OUTPUTS, SITES_PAD, SITES, DENDRITES)
    wires += neuron * wire_stride_n
    responses += neuron * k_time * A * O
    if BIASED:
        rest = tl.load(bias + neuron * DENDRITES + dendrite, mask=real, other=0.0).to(tl.float32)
    for step in range(steps):
        reach = tl.minimum(step + 1, k_time) * A
        potential = tl.full((OUTPUTS, BATCH), 0.0, tl.float32)
        for first in range(0, reach, ROWS):
            rows = first + tl.arange(0, ROWS)
            x, _, _ = _heard(
                activity, wires, wire_stride_a, rows, reach, step, axons, sample, batch, A
            )
            response, _, _ = _response(responses, branch, real, rows, k_time, A, O)
            potential = tl.dot(response, x, potential, input_precision=PRECISION)
        if BIASED:
            potential += rest[:, None]
        rate = _rate(potential, LINEAR)
        if REDUCTION == MAX:
            split = tl.reshape(rate, (OUTPUTS // SITES_PAD, SITES_PAD, BATCH))
            dendrites_there = tl.arange(0, OUTPUTS // SITES_PAD) < DENDRITES
            sites_there = tl.arange(0, SITES_PAD) < SITES
            total = tl.sum(_largest(split, dendrites_there, sites_there), 0)
        else:
            total = tl.sum(rate, 0)  # outputs that are no branch have a rate of zero
            if REDUCTION == MEAN:
                total *= 1 / SITES
        place = (step * neurons + neuron) * batch + sample
        tl.store(current + place, total.to(current.dtype.element_ty), mask=sample < batch)


@triton.jit
def gradient_kernel(
    activity, wires, responses, bias, grad, to_activity, to_responses, to_bias,
    wire_stride_n, wire_stride_a, batch, axons, steps, neurons, k_time,
    A: tl.constexpr, SITES: tl.constexpr, DENDRITES: tl.constexpr,
    SITES_PAD: tl.constexpr, OUTPUTS: tl.constexpr, ROWS: tl.constexpr, BATCH: tl.constexpr,
    BIASED: tl.constexpr, LINEAR: tl.constexpr, REDUCTION: tl.constexpr, PRECISION: tl.constexpr,
    TO_ACTIVITY: tl.constexpr,
):  # fmt: skip
    """Gradients of one neuron: a program goes through all samples and owns its neuron's responses
    and bias. An axon's gradient, to which other neurons add, is added atomically.

    Here ROWS holds all rows, since the gradient to the responses is summed in registers.
    """
    O: tl.constexpr = SITES * DENDRITES  # noqa: E741
    DENDRITES_PAD: tl.constexpr = OUTPUTS // SITES_PAD
    neuron = tl.program_id(0).to(tl.int64)
    dendrite, branch, real = _branches(OUTPUTS, SITES_PAD, SITES, DENDRITES)
    rows = tl.arange(0, ROWS)
    wires += neuron * wire_stride_n
    response, place, inside = _response(
        responses + neuron * k_time * A * O, branch, real, rows, k_time, A, O
    )
    if BIASED:
        rest = tl.load(bias + neuron * DENDRITES + dendrite, mask=real, other=0.0).to(tl.float32)
    response_sum = tl.full((OUTPUTS, ROWS), 0.0, tl.float32)
    bias_sum = tl.full((OUTPUTS,), 0.0, tl.float32)
    for first in range(0, batch, BATCH):
        sample = first + tl.arange(0, BATCH)
        for step in range(steps):
            reach = tl.minimum(step + 1, k_time) * A
            x, heard, there = _heard(
                activity, wires, wire_stride_a, rows, reach, step, axons, sample, batch, A
            )
            potential = tl.dot(response, x, input_precision=PRECISION)
            if BIASED:
                potential += rest[:, None]
            now = (step * neurons + neuron) * batch + sample
            passed = tl.load(grad + now, mask=sample < batch, other=0.0).to(tl.float32)
            if REDUCTION == MEAN:
                passed *= 1 / SITES
            if REDUCTION == MAX:  # ties share it, as amax has it
                split = tl.reshape(_rate(potential, LINEAR), (DENDRITES_PAD, SITES_PAD, BATCH))
                sites_there = tl.arange(0, SITES_PAD) < SITES
                dendrites_there = tl.arange(0, DENDRITES_PAD) < DENDRITES
                largest = _largest(split, dendrites_there, sites_there)
                won = ((split == largest[:, None, :]) & sites_there[None, :, None]).to(tl.float32)
                shared = passed[None, :] / tl.maximum(tl.sum(won, 1), 1.0)
                own = tl.reshape(won * shared[:, None, :], (OUTPUTS, BATCH))
            else:
                own = tl.broadcast_to(passed[None, :], (OUTPUTS, BATCH))
            open_ = real[:, None] if LINEAR else real[:, None] & (potential > 0)
            own = tl.where(open_, own, 0.0)
            bias_sum += tl.sum(own, 1)
            own = own.to(x.dtype)
            response_sum = tl.dot(own, tl.trans(x), response_sum, input_precision=PRECISION)
            if TO_ACTIVITY:
                back = tl.dot(tl.trans(response), own, input_precision=PRECISION)
                tl.atomic_add(to_activity + heard, back, mask=there, sem="relaxed")
    tl.store(to_responses + neuron * k_time * A * O + place, response_sum, mask=inside)
    if BIASED:
        by_dendrite = tl.sum(tl.reshape(bias_sum, (DENDRITES_PAD, SITES_PAD)), 1)
        own_dendrite = tl.arange(0, DENDRITES_PAD)
        tl.store(
            to_bias + neuron * DENDRITES + own_dendrite, by_dendrite,
            mask=own_dendrite < DENDRITES,
        )  # fmt: skip
