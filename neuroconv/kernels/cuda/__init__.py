"""Small trees on CUDA as one Triton kernel: gathered inputs and potentials never go to memory.

`kernels.tree_sum` runs its plain path where `fits` returns False. Torch merges weights and taps,
and splits their gradients, once for a batch.

Shapes: as in `kernels.tree_sum`.
"""

import importlib.util
import os
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuroconv.core.counting import is_counting
from neuroconv.kernels.conv.sizes import output_size, plain_sizes
from neuroconv.kernels.cuda.launch import Kernel, is_recorded, takes
from neuroconv.kernels.effective_filters import TreeOperands, TreeSpec
from neuroconv.kernels.operator import Switch

_DTYPES = (torch.float32, torch.bfloat16)
# The backward pass keeps a neuron's effective filters and their gradient in registers: larger ones
# spill, and cuBLAS is faster.
_MOST_ROWS, _MOST_OUTPUTS, _MOST_NUMBERS = 128, 128, 4096
# Fewer neurons than this leave most of a GPU idle in the backward pass, one program for each.
_LEAST_NEURONS = 32
_TILE = 2048  # numbers of a (outputs, samples) or (rows, samples) tile
_LEAST = 16  # smallest axis of a matrix product on tensor cores

_CURRENT, _GRADIENT = Kernel("trees", "current_kernel"), Kernel("trees", "gradient_kernel")

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
        return max(_LEAST, _power(self.k_time * self.axons))

    @property
    def outputs(self) -> int:
        """P' * D', each padded."""
        return max(_LEAST, _power(self.sites) * _power(self.dendrites))

    def fit_registers(self) -> bool:
        """Returns whether a neuron's effective filters and their gradient fit the registers."""
        rows, outputs = self.rows, self.outputs
        return rows <= _MOST_ROWS and outputs <= _MOST_OUTPUTS and rows * outputs <= _MOST_NUMBERS


def fits(activity: Tensor, neurons: int, sizes: Sizes) -> bool:
    """Returns whether the kernels run these trees.

    They do for float32 and bfloat16 on CUDA, at least 32 neurons, and trees whose K * A and P' * D'
    are at most 128 and have a product, padded to powers of two, of at most 4,096. Counters need the
    operators of the plain path, which also runs empty batches.
    """
    return (
        fused_kernels.get()
        and state(activity.device) == "on"
        and activity.dtype in _DTYPES
        and takes(activity)
        and activity.numel() > 0
        and neurons >= _LEAST_NEURONS
        and sizes.fit_registers()
        and not is_counting()
    )


def current(operands: TreeOperands, effective: Tensor) -> Tensor:
    """Sums the dendrites' rates, (T, N, B), in the activity's precision.

    Args:
        effective: the result of `EffectiveFilters.merge`, (N, K * A, O).
    """
    activity, sizes = operands.activity, Sizes.of(operands.filters, operands.tree)
    call = _Call(operands, effective, sizes)
    batch, _, steps = activity.shape
    neurons = len(operands.filters)
    result = activity.new_empty(steps, neurons, batch)
    rows = min(sizes.rows, max(_LEAST, _power(sizes.axons)))  # steps cut short skip whole tiles
    width = _samples(batch, max(rows, sizes.outputs))
    _CURRENT.launch(
        (neurons * -(-batch // width),), *call.tensors, result, *call.numbers,
        **call.constants, ROWS=rows, BATCH=width, num_warps=_warps(sizes.outputs * width),
    )  # fmt: skip
    return result


def gradients(
    operands: TreeOperands, effective: Tensor, grad: Tensor, to_activity: bool
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Computes the gradients of activity (B, F, T), effective filters and bias, in float32.

    The activity's gradient is summed in no fixed order: `torch.use_deterministic_algorithms` takes
    the plain path.

    Args:
        grad: of the current, (T, N, B).
        to_activity: whether the activity needs a gradient.
    """
    activity, bias = operands.activity, operands.bias
    sizes = Sizes.of(operands.filters, operands.tree)
    call = _Call(operands, effective, sizes)
    batch, axons, steps = activity.shape
    # One element where no gradient is needed, since a kernel takes a pointer.
    shape = (steps, axons, batch) if to_activity else (1, 1, 1)
    to_inputs = torch.zeros(shape, dtype=torch.float32, device=activity.device)
    to_effective = torch.empty_like(call.tensors[2], dtype=torch.float32)
    to_bias = None if bias is None else torch.empty_like(call.tensors[3], dtype=torch.float32)
    width = _samples(batch, max(sizes.rows, sizes.outputs))
    _GRADIENT.launch(
        (len(operands.filters),), *call.tensors, grad.contiguous(), to_inputs, to_effective,
        to_effective if to_bias is None else to_bias, *call.numbers, **call.constants,
        ROWS=sizes.rows, BATCH=width, TO_ACTIVITY=to_activity,
        num_warps=_warps(max(sizes.rows * sizes.outputs, sizes.rows * width)),
    )  # fmt: skip
    return (to_inputs.permute(2, 1, 0) if to_activity else None), to_effective, to_bias


class _Call:
    """The arguments of both kernels."""

    def __init__(self, operands: TreeOperands, effective: Tensor, sizes: Sizes) -> None:
        activity, _, _, bias, tree = operands
        batch, axons, steps = activity.shape
        wiring = tree.presynaptic
        # A population's output has this order in memory and is not copied.
        rows = activity.permute(2, 1, 0).contiguous()
        effective = effective.to(activity.dtype).contiguous()
        self.tensors = (rows, wiring, effective, effective if bias is None else bias.contiguous())
        self.numbers = (*wiring.stride(), batch, axons, steps, len(wiring), sizes.k_time)
        self.constants: dict[str, Any] = {
            "A": sizes.axons,
            "SITES": sizes.sites,
            "DENDRITES": sizes.dendrites,
            "SITES_PAD": _power(sizes.sites),
            "OUTPUTS": sizes.outputs,
            "BIASED": bias is not None,
            "LINEAR": tree.linear,
            "REDUCTION": ("sum", "mean", "max").index(tree.reduction),
            "PRECISION": _precision(),
        }


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _samples(batch: int, most: int) -> int:
    """Returns the samples of a tile: a power of two that keeps the larger tile small."""
    return max(_LEAST, min(_power(batch), 64, _TILE // most))


def _warps(numbers: int) -> int:
    """Returns the warps that hold 512 numbers of the largest tile each: more would spill."""
    return min(8, _power(max(1, numbers // 512)))


def _precision() -> str:
    """Returns the precision of float32 products, exact unless torch's setting allows tf32."""
    precision = torch.backends.cuda.matmul.fp32_precision
    if precision == "none":  # then torch's general setting applies
        precision = getattr(torch.backends, "fp32_precision", "none")
    return "tf32" if precision == "tf32" else "ieee"


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def state(device: torch.device) -> str:
    """Returns "on" if Triton runs on the device or is traced, else "off" and the reason."""
    if not _has_triton():
        return "off: the package triton is not installed"
    if device.type == "cuda" and is_recorded():
        return "on"
    if device.type == "cuda":  # bfloat16 and tf32 on tensor cores came with compute capability 8
        major, minor = torch.cuda.get_device_capability(device)
        return "on" if major >= 8 else f"off: compute capability {major}.{minor}; 8.0 is needed"
    interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"  # by tests
    return "on" if interpreted else f"off: the device is {device.type}"
