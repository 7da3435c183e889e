"""The dendrites of an image layer on CUDA, after their filters: norm, rectifier and sum in one
stage, which reads channels-last maps once, and in training once before for a norm's statistics.

The soma's filter in time, norm and rectifier are the same stage of one dendrite.

Shapes: B batch, W columns of a map, H' x W' positions of the sum; D dendrites, U units, T time
steps, K taps. The numbers of a position are adjacent, (T, U).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels import cuda
from neuroconv.kernels.columns import scale_and_offset, summed_rates
from neuroconv.kernels.cuda.launch import Kernel
from neuroconv.kernels.operator import Operator, is_traced, or_empty
from neuroconv.kernels.soma import causal_matrix

MOST_TAPS = 8  # more would not fit the registers
_SUM, _STATISTICS = Kernel("maps", "sum_kernel"), Kernel("maps", "statistics_kernel")
_GRADIENT = Kernel("maps", "gradient_kernel")
_FILTER_GRADIENT = Kernel("maps", "filter_gradient_kernel")
_TILE = {"ROWS": 128, "LANES": 32}
_PROGRAMS = 4096  # that take sums over positions; on any GPU, whose sums then agree
_MOST_POSITIONS = 1 << 30  # which are counted in 32 bits; offsets have 64


def runs(maps: Tensor, dtype: torch.dtype) -> bool:
    """Returns whether the kernels take maps (B, C, T, H, W) as numbers of this dtype: on CUDA, in
    float32 or bfloat16. Counters, compilers and transforms need the stages one by one."""
    return (
        not is_traced()
        and cuda.runs(maps)
        and dtype in (torch.float32, torch.bfloat16)
        and maps.numel() // maps.shape[1] < _MOST_POSITIONS
    )


def maps_sum(
    maps: Sequence[Tensor],
    taps: Tensor | None,
    starts: Sequence[int],
    columns: int,
    units: int,
    linear: bool,
    gain: Tensor | None,
    shift: Tensor | None,
    eps: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums max(0, gain * potential + shift) over the dendrites, (B, H', W', T * U).

    Args:
        maps: potentials, (B, H', W, D * T * U), or a map for each dendrite.
        taps: (K,), the last for the present, if potentials are the maps filtered in time.
        starts: each dendrite's first column in its map, from which on it reads W', and zeros where
            there are none; all at the same distance if they share the map.
        columns: W'.
        linear, gain, shift, eps: as in `patch_sum`, with its results.
    """
    learned = (None if x is None else x.float().contiguous() for x in (taps, gain, shift))
    return _maps_sum(list(maps), *learned, starts, columns, units, eps, linear)


class _Call:
    """The operator's arguments, and launches on them."""

    def __init__(self, *arguments: Any) -> None:
        maps, self.taps, self.gain, self.shift, self.starts, *rest = arguments
        self.maps = [map.contiguous() for map in maps]  # of one sample they may be permuted
        self.columns, self.units, self.eps, self.linear = rest
        batch, rows, _, width = self.maps[0].shape
        self.count = len(self.starts) // len(self.maps)  # dendrites of a map
        self.lines, self.size = batch * rows, width // self.count
        self.shape = (batch, rows, self.columns, self.size)
        self.blocks = -(-self.size // _TILE["LANES"])
        self.tiles = -(-self.lines * self.columns // _TILE["ROWS"])
        self.parts = max(1, min(self.tiles, _PROGRAMS // (self.count * self.blocks)))

    def launch(self, kernel: Kernel, index: int, programs: int, *arguments: Any) -> None:
        """Launches a kernel on one map."""
        map, first = self.maps[index], index * self.count
        shift = self.starts[first + 1] - self.starts[first] if self.count > 1 else 0
        kernel.launch(
            (programs * self.blocks,), map, self.taps, self.lines, self.columns, map.shape[2],
            self.starts[first], shift, first, *arguments,
            COUNT=self.count, SIZE=self.size, UNITS=self.units, LINEAR=self.linear, num_warps=8,
            TAPS=0 if self.taps is None else len(self.taps), **_TILE,
        )  # fmt: skip

    def reduce(self, kernel: Kernel, sums: int, *arguments: Any) -> Any:
        """Takes sums over parts of the positions, (sums, parts, D, T, U). An argument may be a list
        with an entry for each map."""
        partial = self.new(sums, self.parts, len(self.starts), self.size) if sums else None
        share = self.units / (self.lines * self.columns * self.size)  # of a value among a unit's
        for index in range(len(self.maps)):
            own = (x[index] if isinstance(x, list) else x for x in arguments)
            programs = self.parts * self.count
            self.launch(kernel, index, programs, *own, partial, len(self.starts), share)
        return None if partial is None else partial.unflatten(3, (-1, self.units))

    def affine(self, mean: Tensor, variance: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return scale_and_offset(self.gain, self.shift, self.eps, mean, variance)

    def new(self, *shape: int) -> Tensor:
        return self.maps[0].new_empty(shape, dtype=torch.float32)


def _reference(*arguments: Any) -> tuple[Tensor, ...]:
    """Sums whole potentials at once, in float32 at least."""
    call = _Call(*arguments)
    potentials: list[Tensor] = []
    for map in call.maps:
        wide = map.to(torch.promote_types(map.dtype, torch.float32))
        for x in wide.unflatten(3, (call.count, -1, call.units)).unbind(3):
            start = call.starts[len(potentials)]
            sides = (max(0, -start), max(0, start + call.columns - x.shape[2]))
            x = F.pad(x, (0, 0, 0, 0, *sides))[:, :, max(0, start) :][:, :, : call.columns]
            x = x if call.taps is None else causal_matrix(call.taps, x.shape[3]) @ x
            potentials.append(x.flatten(0, 2))
    stacked = torch.stack(potentials)
    total, *moments = summed_rates(stacked, call.gain, call.shift, call.eps, call.linear)
    return total.transpose(0, 1).reshape(call.shape).to(call.maps[0].dtype), *moments


def _run(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = _Call(*arguments)
    mean = variance = call.new(0)
    if call.eps is not None:
        weight, means, squares = call.reduce(_STATISTICS, 3)
        mean = (weight * means).sum((0, 2))
        deviation = means - mean[:, None]
        variance = torch.addcmul(squares, weight * deviation, deviation).sum((0, 2))
    affine, total = call.affine(mean, variance), None
    for index, map in enumerate(call.maps):
        is_last, before = index + 1 == len(call.maps), total
        total = map.new_empty(call.shape) if is_last else call.new(*call.shape)
        call.launch(_SUM, index, call.tiles, *affine, before, total)
    assert total is not None
    return total, mean, variance


def _run_backward(grad: Tensor, *arguments: Any) -> tuple[Any, ...]:
    call, (mean, variance) = _Call(*arguments[:9]), arguments[9:]
    maps, taps, eps = call.maps, call.taps, call.eps
    grad, results = grad.contiguous(), [torch.empty_like(map) for map in maps]
    operands = (*call.affine(mean, variance), None if eps is None else mean)
    to_taps = to_gain = to_shift = None
    outputs = results if eps is None else None  # the norm's gradient needs the sums first
    learns = call.shift is not None
    sums = call.reduce(_GRADIENT, 2 * learns, *operands, None, None, grad, outputs)
    if learns:
        to_shift, to_gain = sums.sum((1, 3))
    if eps is not None:
        deviation = (variance + eps).rsqrt()
        to_gain = to_gain * deviation
        slope = to_gain * deviation
        call.reduce(_GRADIENT, 0, *operands, slope, to_shift, grad, results)
    if taps is not None:
        filtered, results = results[0], [torch.empty_like(maps[0])]
        programs = call.parts * call.blocks
        partial = call.new(programs, len(taps))
        _FILTER_GRADIENT.launch(
            (programs,), maps[0], taps, filtered, results[0], partial, call.lines * call.columns,
            SIZE=call.size, UNITS=call.units, TAPS=len(taps), num_warps=8,
            TAPS_PAD=cuda.power(len(taps)), **_TILE,
        )  # fmt: skip
        to_taps = partial.sum(0)
    return results, *or_empty(mean, to_taps, None if call.gain is None else to_gain, to_shift)


def _fake_backward(grad: Tensor, *arguments: Any) -> tuple[Any, ...]:
    grads = (None if x is None else torch.empty_like(x) for x in arguments[1:4])
    return [torch.empty_like(map) for map in arguments[0]], *or_empty(arguments[9], *grads)


_SCHEMA = (
    "Tensor[] maps, Tensor? taps, Tensor? gain, Tensor? shift, int[] starts, SymInt columns, "
    "int units, float? eps, bool linear"
)
_maps_sum = Operator(
    f"maps_sum({_SCHEMA}) -> (Tensor, Tensor, Tensor)", None, fake=_reference, cpu=_run, cuda=_run
)
_maps_sum_backward = Operator(
    f"maps_sum_backward(Tensor grad, {_SCHEMA}, Tensor mean, Tensor variance) -> "
    "(Tensor[], Tensor, Tensor, Tensor)",
    None, fake=_fake_backward, cpu=_run_backward, cuda=_run_backward,
)  # fmt: skip
_maps_sum.register_gradient(
    lambda grad, arguments, others, _: _maps_sum_backward(grad, *arguments, *others), _reference
)
