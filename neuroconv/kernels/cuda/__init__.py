"""Small trees on CUDA as Triton kernels: gathered inputs and potentials never go to memory.

`kernels.tree_sum` runs its plain path where `fits` returns False.

Shapes: as in `kernels.tree_sum`.
"""

import importlib.util
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuroconv.core.counting import is_counting
from neuroconv.kernels.constants import derived
from neuroconv.kernels.conv.sizes import output_size, padding, plain_sizes
from neuroconv.kernels.cuda.launch import Kernel, is_recorded, takes
from neuroconv.kernels.effective_filters import TreeOperands, TreeSpec
from neuroconv.kernels.operator import Switch, empty_grads

_HAS_TRITON = importlib.util.find_spec("triton") is not None
_DTYPES = (torch.float32, torch.bfloat16)
# The backward pass keeps a neuron's effective filters and their gradient in registers: larger ones
# spill, and cuBLAS is faster.
_MOST_ROWS, _MOST_NUMBERS, _MOST_PAIRS = 128, 4096, 1 << 16
_PROGRAMS = 4  # for each processor, at least, in the backward pass: few neurons split the batch
_TILE = 2048  # numbers of a (outputs, samples) or (rows, samples) tile
_LEAST = 16  # smallest axis of a matrix product on tensor cores

_MERGE, _CURRENT = Kernel("trees", "merge_kernel"), Kernel("trees", "current_kernel")
_GRADIENT, _AXON = Kernel("trees", "gradient_kernel"), Kernel("trees", "axon_kernel")
_WEIGHT_GRADIENT = Kernel("trees", "weight_gradient_kernel")

# Allows or forbids the fused kernels on CUDA inside a context, for comparisons.
fused_kernels = Switch("fused")


class Sizes(NamedTuple):
    """Sizes of one tree: presynaptic axons A, time taps K, output sites P' and dendrites D'."""

    axons: int
    k_time: int
    sites: int
    dendrites: int

    @classmethod
    def of(cls, filters: Tensor, tree: TreeSpec) -> "Sizes":
        """Returns the sizes of a population's trees."""
        k_time, *taps = plain_sizes(filters)[1:]
        return cls(tree.fan_in, k_time, *output_size(tree.sheet, (taps[0], taps[1]), tree.mode))

    @property
    def rows(self) -> int:
        """K * A, padded as a kernel needs it."""
        return max(_LEAST, power(self.k_time * self.axons))

    @property
    def outputs(self) -> int:
        """P' * D', each padded."""
        return max(_LEAST, power(self.sites) * power(self.dendrites))


def runs(x: Tensor) -> bool:
    """Returns whether kernels run for a tensor that is not empty; counters need the operators of
    the plain path."""
    on = fused_kernels.get() and state(x.device) == "on"
    return on and takes(x) and x.numel() > 0 and not is_counting()


def fits(operands: TreeOperands) -> bool:
    """Returns whether the kernels run these trees.

    They do for float32 and bfloat16 on CUDA, and trees whose K * A and P' * D' are at most 128 and
    have a product, padded to powers of two, of at most 4,096, and that have at most 65,536 pairs of
    a synapse and a tap.
    """
    activity, weight, filters, _, tree = operands
    sizes = Sizes.of(filters, tree)
    return (
        runs(activity)
        and activity.dtype in _DTYPES
        and max(sizes.rows, sizes.outputs) <= _MOST_ROWS
        and sizes.rows * sizes.outputs <= _MOST_NUMBERS
        and weight.shape[1] * filters[0].numel() <= _MOST_PAIRS
    )


def current(operands: TreeOperands) -> Tensor:
    """Sums the dendrites' rates, (T, N, B), in the activity's precision."""
    call, (batch, _, steps) = _Call(operands), operands.activity.shape
    sizes, neurons = call.sizes, len(operands.filters)
    result = operands.activity.new_empty(steps, neurons, batch)
    rows = min(sizes.rows, max(_LEAST, power(sizes.axons)))  # steps cut short skip whole tiles
    width = _samples(batch, max(rows, sizes.outputs))
    _CURRENT.launch(
        (neurons * -(-batch // width),), *call.tensors, result, *call.numbers,
        **call.constants, ROWS=rows, BATCH=width, num_warps=_warps((sizes.outputs + rows) * width),
    )  # fmt: skip
    return result


def gradients(
    operands: TreeOperands, grad: Tensor, to_activity: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Computes the gradients of activity (B, F, T), weights, filters and bias, in their precision.

    Those of a missing bias and of an activity that needs none are empty. All sums have a fixed
    order: the results are the same in each run.

    Args:
        grad: of the current, (T, N, B).
        to_activity: whether the activity needs a gradient.
    """
    activity, weight, filters, bias, tree = operands
    call, (batch, axons, steps) = _Call(operands), activity.shape
    sizes, neurons = call.sizes, len(filters)
    inputs = neurons * sizes.axons
    # One element where no gradient is needed, since a kernel takes a pointer.
    to_inputs = activity.new_empty((steps, inputs, batch) if to_activity else (1, 1, 1))
    wanted = -(-_PROGRAMS * processors(activity.device) // neurons)
    width = _samples(-(-batch // wanted), max(sizes.rows, sizes.outputs))
    splits = min(wanted, -(-batch // width))
    # Of the effective filters, and after them of the bias.
    numbers = call.effective[0].numel() + sizes.dendrites
    partial = activity.new_empty(splits, neurons, numbers, dtype=torch.float32)
    _GRADIENT.launch(
        (neurons * splits,), *call.tensors, grad.contiguous(), to_inputs, partial,
        *call.numbers, splits, numbers, **call.constants, ROWS=sizes.rows, BATCH=width,
        TO_ACTIVITY=to_activity,
        num_warps=_warps(sizes.rows * max(sizes.outputs, width) * activity.itemsize // 2),
    )  # fmt: skip
    total = partial.sum(0) if splits > 1 else partial[0]
    to_weight, to_filters, to_bias = empty_grads(activity, (weight, filters, bias), [True] * 3)
    synapses = max(_LEAST, power(weight.shape[1]))
    taps = max(1, min(power(filters[0].numel()), _TILE // synapses))
    _WEIGHT_GRADIENT.launch(
        (neurons,), *call.learned, total, to_weight, to_filters, to_bias, numbers,
        weight.shape[1], sizes.k_time, **call.merge_constants, SYNAPSES=synapses, TAPS=taps,
        BIAS=0 if bias is None else power(sizes.dendrites), num_warps=_warps(synapses * taps),
    )  # fmt: skip
    if not to_activity:
        return activity.new_empty(0), to_weight, to_filters, to_bias
    result = activity.new_empty(steps, axons, batch)
    width = min(128, power(batch))
    lists = listeners(tree.wiring, axons, tree.sheet[0] if tree.claw else 1)
    _AXON.launch(
        (steps * axons * -(-batch // width),), to_inputs, *lists, result, inputs, axons, batch,
        LISTENERS=max(1, 512 // width), BATCH=width, num_warps=1,
    )  # fmt: skip
    return result.permute(2, 1, 0), to_weight, to_filters, to_bias


class _Call:
    """The arguments of the kernels, and the effective filters (N, K * A, O)."""

    def __init__(self, operands: TreeOperands) -> None:
        activity, weight, filters, bias, tree = operands
        sizes = self.sizes = Sizes.of(filters, tree)
        (batch, axons, steps), (branches, across) = activity.shape, filters.shape[2:]
        self.merge_constants: dict[str, Any] = {
            "A": sizes.axons, "SITES": sizes.sites, "DENDRITES": sizes.dendrites,
            "P": tree.sheet[0], "BRANCHES": branches, "ACROSS": across, "CLAW": tree.claw,
            "ALONG": padding(branches, tree.mode)[0], "SIDEWAYS": padding(across, tree.mode)[0],
        }  # fmt: skip
        self.learned = weight.contiguous(), filters.contiguous()
        rows, outputs = sizes.k_time * sizes.axons, sizes.sites * sizes.dendrites
        effective = self.effective = activity.new_empty(len(filters), rows, outputs)
        block = min(1024, power(rows * outputs))
        _MERGE.launch(
            (len(filters), -(-rows * outputs // block)), *self.learned, effective, weight.shape[1],
            sizes.k_time, **self.merge_constants, BLOCK=block,
        )  # fmt: skip
        wiring = tree.presynaptic
        self.tensors = (
            activity.permute(2, 1, 0).contiguous(),  # as a population returns it
            wiring, effective, effective if bias is None else bias.contiguous(),
        )  # fmt: skip
        self.numbers = (*wiring.stride(), batch, axons, steps, len(wiring), sizes.k_time)
        self.constants: dict[str, Any] = {
            "A": sizes.axons, "SITES": sizes.sites, "DENDRITES": sizes.dendrites,
            "SITES_PAD": power(sizes.sites), "OUTPUTS": sizes.outputs, "LINEAR": tree.linear,
            "REDUCTION": ("sum", "mean", "max").index(tree.reduction),
            "BIASED": bias is not None, "PRECISION": _precision(),
        }  # fmt: skip


def listeners(wiring: Tensor, axons: int, sites: int = 1) -> tuple[Tensor, Tensor]:
    """Returns the inputs n * A + a of all trees in the order of their axons, (N * A,), and each
    axon's first one in that order, (F + 1,); computed on the device, until the wiring changes.

    Args:
        wiring: (N, S) or (N, 1, S); of each `sites` synapses one is read, all of three axes.
    """

    def compute() -> tuple[Tensor, Tensor]:
        axon, order = wiring[:, ::sites].flatten().sort(stable=True)
        numbers = torch.arange(axons + 1, device=axon.device, dtype=axon.dtype)
        return order, torch.searchsorted(axon, numbers)

    return derived(wiring, ("listeners", axons, sites), compute)


def processors(device: torch.device) -> int:
    """Returns the streaming multiprocessors of a GPU; an H200's where there is none."""
    if device.type != "cuda" or is_recorded():
        return 132
    return torch.cuda.get_device_properties(device).multi_processor_count


def power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _samples(batch: int, most: int) -> int:
    """Returns the samples of a tile: a power of two that keeps the larger tile small."""
    return max(_LEAST, min(power(batch), 64, _TILE // most))


def _warps(numbers: int) -> int:
    """Returns the warps that hold 512 numbers of the largest tiles each: more would spill."""
    return min(16, power(max(1, numbers // 512)))


def _precision() -> str:
    """Returns the precision of float32 products, exact unless torch's setting allows tf32."""
    precision = torch.backends.cuda.matmul.fp32_precision
    if precision == "none":  # then torch's general setting applies
        precision = getattr(torch.backends, "fp32_precision", "none")
    return "tf32" if precision == "tf32" else "ieee"


def state(device: torch.device) -> str:
    """Returns "on" if Triton runs on the device or is traced, else "off" and the reason."""
    if not _HAS_TRITON:
        return "off: the package triton is not installed"
    if device.type == "cuda" and is_recorded():
        return "on"
    if device.type == "cuda" and torch.version.hip:
        return "off: ROCm, on which these kernels have not run"
    if device.type == "cuda":  # bfloat16 and tf32 on tensor cores came with compute capability 8
        major, minor = torch.cuda.get_device_capability(device)
        return "on" if major >= 8 else f"off: compute capability {major}.{minor}; 8.0 is needed"
    interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"  # by tests
    return "on" if interpreted else f"off: the device is {device.type}"
