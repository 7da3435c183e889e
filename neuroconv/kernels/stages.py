"""Two stages of large trees: synapses, and the rates of dendrites.

Torch's operators write and read a sheet several times: gathered and weighted, rectified and summed.
On CUDA Triton's kernels (`kernels.cuda.stages`) write it once and read it once, and likewise in the
backward pass. On the CPU synapses run some at a time, whose rows stay in the cache.

Shapes: B batch, F axons, N neurons, C transmitters, T time steps, S synapses of a neuron, P sites,
D dendrites.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.counting import blocks, is_counting
from neuroconv.core.layout import memory_order
from neuroconv.kernels import cuda
from neuroconv.kernels.cuda.launch import Kernel
from neuroconv.kernels.operator import Operator, empty_grads, is_traced, kernels_enabled

_RELEASE, _RELEASE_GRADIENT = (
    Kernel("stages", name) for name in ("release_kernel", "release_gradient_kernel")
)
_RATE, _RATE_GRADIENT = Kernel("stages", "rate_kernel"), Kernel("stages", "rate_gradient_kernel")
_TILE, _BLOCK = 1024, 256
_CACHED_NUMBERS = 1 << 20  # of a sheet that a cache holds; an eighth are rows of a block


def runs(x: Tensor) -> bool:
    """Returns whether the kernels run; a compiler fuses torch's operators by itself."""
    return kernels_enabled() and not is_traced() and cuda.runs(x)


def release(rows: Tensor, weight: Tensor, wiring: Tensor, positions: int) -> Tensor:
    """Multiplies the rows that synapses read, (F, M), by their weights, (N * C, S).

    Args:
        wiring: (N, S) axons.
        positions: of a tree, at least S; those behind the last synapse are zero.

    Returns:
        potentials, (N * C, positions, M).
    """
    if _runs_in_blocks(rows, weight, wiring, positions):
        return _release_blocks(rows, weight, wiring)
    run = _release if runs(rows) else _release_reference
    return run(rows, weight, wiring, positions)


def _runs_in_blocks(rows: Tensor, weight: Tensor, wiring: Tensor, positions: int) -> bool:
    """Returns whether the CPU's sheet is too large for a cache, and one row for each synapse."""
    plain = rows.is_cpu and kernels_enabled() and not (is_traced() or is_counting())
    full = weight.shape == wiring.shape and positions == wiring.shape[1]
    return plain and full and wiring.numel() * rows.shape[1] > _CACHED_NUMBERS


def _release_reference(rows: Tensor, weight: Tensor, wiring: Tensor, positions: int) -> Tensor:
    neurons, synapses = wiring.shape
    presynaptic = rows.index_select(0, wiring.flatten()).view(neurons, 1, synapses, -1)
    potential = presynaptic * weight.view(neurons, -1, synapses, 1)
    potential, empty = potential.flatten(0, 1), positions - synapses
    return F.pad(potential, (0, 0, 0, empty)) if empty else potential


def _by_synapse(rows: Tensor, weight: Tensor, wiring: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields blocks of all neurons' synapses, and the rows that they read, in the same memory."""
    flat, height = wiring.flatten(), max(1, _CACHED_NUMBERS // 8 // rows.shape[1])
    scratch = rows.new_empty(height, rows.shape[1])
    for block in blocks(len(flat), height):
        presynaptic = scratch[: block.stop - block.start]
        yield block, torch.index_select(rows, 0, flat[block], out=presynaptic)


def _run_blocks(rows: Tensor, weight: Tensor, wiring: Tensor) -> Tensor:
    potential, column = rows.new_empty(wiring.numel(), rows.shape[1]), weight.reshape(-1, 1)
    for block, presynaptic in _by_synapse(rows, weight, wiring):
        torch.mul(presynaptic, column[block], out=potential[block])
    return potential.view(*weight.shape, -1)


def _run_blocks_gradient(
    grad: Tensor, rows: Tensor, weight: Tensor, wiring: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    to_rows, to_weight = empty_grads(grad, (rows, weight), needs)
    by_synapse, column, flat = (
        grad.reshape(wiring.numel(), -1),
        weight.reshape(-1, 1),
        wiring.flatten(),
    )
    to_rows.zero_()
    for block, product in _by_synapse(rows, weight, wiring):
        if needs[1]:
            torch.sum(product.mul_(by_synapse[block]), 1, out=to_weight.view(-1)[block])
        if needs[0]:
            torch.mul(by_synapse[block], column[block], out=product)
            to_rows.index_add_(0, flat[block], product)
    return to_rows, to_weight


def _run_release(rows: Tensor, weight: Tensor, wiring: Tensor, positions: int) -> Tensor:
    width = rows.shape[1]
    sheet = rows.new_empty(len(weight), positions, width)
    block = min(_BLOCK, cuda.power(width))
    height = min(cuda.power(positions), _TILE // block)
    _RELEASE.launch(
        (len(weight) * -(-positions // height) * -(-width // block),),
        rows.contiguous(), weight.contiguous(), wiring.contiguous(), sheet,
        wiring.shape[1], positions, len(weight) // len(wiring), width,
        POSITIONS=height, BLOCK=block,
    )  # fmt: skip
    return sheet


def _release_gradient_fake(
    grad: Tensor, rows: Tensor, weight: Tensor, wiring: Tensor
) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape), weight.new_empty(weight.shape)


def _run_release_gradient(
    grad: Tensor, rows: Tensor, weight: Tensor, wiring: Tensor
) -> tuple[Tensor, Tensor]:
    axons, width = rows.shape
    (neurons, synapses), kinds = wiring.shape, len(weight) // len(wiring)
    # Few axons have many synapses each, which several programs then share.
    wanted = -(-4 * cuda.processors(rows.device) // axons)
    splits = max(1, min(wanted, neurons * synapses // axons))
    wide = torch.promote_types(rows.dtype, torch.float32)
    to_rows = rows.new_empty(splits * axons, width, dtype=wide)
    to_weight = weight.new_empty(weight.shape)
    block = min(_BLOCK, cuda.power(width))
    _RELEASE_GRADIENT.launch(
        (axons * splits,), rows.contiguous(), weight.contiguous(), grad.contiguous(),
        *cuda.listeners(wiring, axons), to_rows, to_weight,
        axons, synapses, grad.shape[1], kinds, width, splits,
        SYNAPSES=_TILE // block, BLOCK=block,
    )  # fmt: skip
    if splits > 1:
        to_rows = to_rows.unflatten(0, (splits, axons)).sum(0)
    return to_rows.to(rows.dtype), to_weight


def site_rates(potential: Tensor, reduction: str, linear: bool) -> Tensor:
    """Rectifies potentials (B, N, T, P, D), unless `linear`, and reduces sites: (B, N, T, D)."""
    if runs(potential) and potential.shape[3] > 1:
        return _site_rates(potential, reduction, linear)
    if potential.stride(0) == 1:
        # The batch is innermost in memory: in that order a sum over sites is ten times faster.
        columns = potential.permute(1, 4, 3, 2, 0)
        return _rates_reference(columns, reduction, linear, sites=2).permute(3, 0, 2, 1)
    return _rates_reference(potential, reduction, linear)


def _rates_reference(potential: Tensor, reduction: str, linear: bool, sites: int = 3) -> Tensor:
    rate = potential if linear else potential.relu()
    if rate.shape[sites] == 1:
        return rate.squeeze(sites)
    if reduction == "max":
        return rate.amax(sites)
    total = rate.sum(sites)
    return total if reduction == "sum" else total * (1 / rate.shape[sites])


def _rates_fake(potential: Tensor, reduction: str, linear: bool) -> Tensor:
    return torch.empty_like(potential.select(3, 0))


def _run_rates(potential: Tensor, reduction: str, linear: bool) -> Tensor:
    rates = _rates_fake(potential, reduction, linear)
    numbers = _arguments(potential, memory_order(rates), reduction)
    _RATE.launch(
        (-(-rates.numel() // _BLOCK),), potential, rates, rates.numel(), *numbers,
        LINEAR=linear, LARGEST=reduction == "max", DOUBLE=potential.dtype == torch.float64,
        BLOCK=_BLOCK,
    )  # fmt: skip
    return rates


def _run_rates_gradient(grad: Tensor, potential: Tensor, reduction: str, linear: bool) -> Tensor:
    to_potential, rates = torch.empty_like(potential), torch.empty_like(potential.select(3, 0))
    order = memory_order(rates)
    numbers = _arguments(potential, order, reduction)
    strides = [to_potential.select(3, 0).stride(axis) for axis in order]
    _RATE_GRADIENT.launch(
        (-(-rates.numel() // _BLOCK),), potential, grad.permute(order).contiguous(), to_potential,
        rates.numel(), *numbers, to_potential.stride(3), *strides,
        LINEAR=linear, LARGEST=reduction == "max", DOUBLE=potential.dtype == torch.float64,
        BLOCK=_BLOCK,
    )  # fmt: skip
    return to_potential


def _arguments(potential: Tensor, order: Sequence[int], reduction: str) -> tuple[int, ...]:
    """Returns the sites, the divisor of their sum, a whole number since Triton takes others as
    float32, and sizes and strides of potentials, without the sites in this order."""
    sites, without = potential.shape[3], potential.select(3, 0)
    sizes = [without.shape[axis] for axis in order[1:]]
    strides = [without.stride(axis) for axis in order]
    divisor = sites if reduction == "mean" else 1
    return sites, divisor, potential.stride(3), *sizes, *strides


_release = Operator(
    "release(Tensor rows, Tensor weight, Tensor wiring, int positions) -> Tensor",
    None, fake=_release_reference, cpu=_run_release, cuda=_run_release,
)  # fmt: skip
_release_gradient = Operator(
    "release_backward(Tensor grad, Tensor rows, Tensor weight, Tensor wiring) -> (Tensor, Tensor)",
    None, fake=_release_gradient_fake, cpu=_run_release_gradient, cuda=_run_release_gradient,
)  # fmt: skip
_release.register_gradient(
    lambda grad, arguments, *_: _release_gradient(grad, *arguments[:3]), _release_reference
)
_release_blocks = Operator(
    "release_blocks(Tensor rows, Tensor weight, Tensor wiring) -> Tensor",
    None, fake=lambda rows, weight, wiring: rows.new_empty(*weight.shape, rows.shape[1]),
    cpu=_run_blocks,
)  # fmt: skip
_release_blocks_gradient = Operator(
    "release_blocks_backward(Tensor grad, Tensor rows, Tensor weight, Tensor wiring, bool[] needs)"
    " -> (Tensor, Tensor)",
    None, fake=lambda grad, *operands: empty_grads(grad, operands[:2], operands[3]),
    cpu=_run_blocks_gradient,
)  # fmt: skip
_release_blocks.register_gradient(
    lambda grad, arguments, _, needs: _release_blocks_gradient(grad, *arguments, list(needs[:2])),
    lambda rows, weight, wiring: _release_reference(rows, weight, wiring, wiring.shape[1]),
)
_site_rates = Operator(
    "site_rates(Tensor potential, str reduction, bool linear) -> Tensor",
    None, fake=_rates_fake, cpu=_run_rates, cuda=_run_rates,
)  # fmt: skip
_site_rates_gradient = Operator(
    "site_rates_backward(Tensor grad, Tensor potential, str reduction, bool linear) -> Tensor",
    None, fake=lambda grad, potential, *_: torch.empty_like(potential),
    cpu=_run_rates_gradient, cuda=_run_rates_gradient,
)  # fmt: skip
_site_rates.register_gradient(
    lambda grad, arguments, *_: (_site_rates_gradient(grad, *arguments),), _rates_reference
)
