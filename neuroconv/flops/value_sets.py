"""A run of a model on sets of values instead of numbers, which tells who reads what.

A layer of units makes new values, and notes which ones each unit reads. All that lies between
layers (pooling, norms, pointwise functions, sums, attention's mixing) unites sets.

Shapes: P positions, K values before a unit at a position, U units, S of the K that a unit reads,
T time steps.
"""

from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from neuroconv.flops.calls import Call, name_of, tensors_of
from neuroconv.flops.rules import DATA

UNION, VALUE, INPUT = range(3)  # kinds of sets
_CHUNK = 4_000_000  # pairs in memory at a time
_ZERO = {reason: {*names.split()} for reason, names in DATA["zero"].items()}
_ALLOCATES = _ZERO["allocates or fills"]
_MOVES = _ZERO["moves elements"] | _ZERO["copies, or changes the type"]
_FAMILIES = {
    name: entry["rule"].partition(":")[0]
    for entry in DATA["exact"]
    for name in entry["operators"].split()
}


class _Sets(Tensor):
    """A tensor whose elements are sets of values, by number; 0 is the empty set."""

    numbers: Tensor
    tracer: "Trace"
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, numbers: Tensor, dtype: torch.dtype, tracer: "Trace") -> "_Sets":
        sets: _Sets = Tensor._make_wrapper_subclass(
            cls, numbers.shape, strides=numbers.stride(), dtype=dtype, device=torch.device("cpu")
        )
        sets.numbers, sets.tracer = numbers, tracer
        return sets

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        tracer = next(x.tracer for x in tree_leaves((args, kwargs)) if isinstance(x, _Sets))
        return tracer.run(func, args, kwargs or {})


def _numbers(tensor: Tensor) -> Tensor:
    """Returns the numbers of a tensor's sets; those of a constant are empty."""
    if isinstance(tensor, _Sets):
        return tensor.numbers
    return torch.zeros(tensor.shape, dtype=torch.int64)


def _chosen(mask: Tensor) -> Tensor:
    """Returns the columns that are true in each row of a mask (N, K), -1 after the last."""
    columns = mask.int().argsort(stable=True, dim=1, descending=True)[:, : mask.sum(1).max()]
    return columns.where(mask.gather(1, columns), -1)


def _windows(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """Gathers windows (out, taps) along an axis, the taps as a new last axis; -1 is outside."""
    padded = torch.cat([x, torch.zeros_like(x.narrow(axis, 0, 1))], axis)
    windows = padded.index_select(axis, index.flatten() % padded.shape[axis])
    return windows.unflatten(axis, index.shape).movedim(axis + 1, -1)


class Trace:
    """The sets of one run. A value is a set of itself, a union has members of lower numbers."""

    def __init__(self, limit: int) -> None:
        self.limit, self.pairs = limit, 0
        self.wires = np.zeros(3, np.int64)  # by the kind of the value
        self.kinds, self.is_read = np.zeros(1, np.int8), np.zeros(1, bool)
        self.members, self.counts = np.zeros(0, np.int64), np.zeros(1, np.int64)

    def _add(self, kind: int, members: Tensor, counts: Tensor) -> None:
        self.kinds = np.append(self.kinds, np.full(len(counts), kind, np.int8))
        self.is_read = np.append(self.is_read, np.zeros(len(counts), bool))
        self.members, self.counts = np.append(self.members, members), np.append(self.counts, counts)

    def new(self, shape: Any, dtype: torch.dtype, kind: int = VALUE) -> Tensor:
        """Returns values that no other tensor has."""
        self._look_at(prod(shape))
        values = torch.arange(len(self.kinds), len(self.kinds) + prod(shape))
        self._add(kind, values, torch.ones_like(values))
        return _Sets(values.reshape(shape), dtype, self)

    def input(self, x: Tensor) -> Tensor:
        """Returns input values; integers, such as a mask, are none."""
        if x.is_floating_point():
            return self.new(x.shape, x.dtype, INPUT)
        return torch.zeros_like(x, device="cpu") if x.is_meta else x.cpu()

    def unite(self, sets: Tensor) -> Tensor:
        """Unites sets (..., N) along their last axis."""
        rows = sets.reshape(-1, sets.shape[-1])
        result = rows.amax(1)  # where all the others are the same set, or empty
        several = ((rows != result[:, None]) & (rows != 0)).any(1)
        rows = rows[several]
        result[several] = torch.arange(len(self.kinds), len(self.kinds) + len(rows))
        if len(rows):
            self._add(UNION, rows[rows != 0], (rows != 0).sum(1))
        return result.reshape(sets.shape[:-1])

    def _look_at(self, pairs: int) -> None:
        self.pairs += pairs
        if self.pairs > self.limit:
            raise ValueError(f"more than limit={self.limit:,} pairs of a value and a reader")

    def layer(self, values: Tensor, units: int, index: Tensor | None = None) -> Tensor:
        """Lets units read values (B, F, ...), and returns theirs (B, U, ...); see `count_axons`."""
        x = _numbers(values)
        self.read(x.unsqueeze(-1).flatten(2), index, units if index is None else 1)
        return self.new((len(values), units, *values.shape[2:]), values.dtype)

    def read(self, x: Tensor, index: Tensor | None, copies: int = 1) -> None:
        """Lets units at P positions read sets x (P, K, T): those of K that index (U, S) names, -1
        for none, or all. `copies` units read the same."""
        from scipy import sparse  # slow to import

        index = torch.arange(x.shape[1])[None] if index is None else index
        width, units, sets = index.shape[1] * x.shape[2], len(index), len(self.kinds)
        self._look_at(len(x) * units * width)
        x = F.pad(x, (0, 0, 0, 1))  # -1 takes the empty set
        ends = np.append(0, self.counts.cumsum())
        ones = np.ones(len(self.members), np.int32)
        members = sparse.csr_array((ones, self.members, ends), (sets, sets))
        for pairs in torch.arange(len(x) * units).split(max(1, _CHUNK // max(1, width))):
            rows = x[(pairs // units)[:, None], index[pairs % units]].flatten(1)
            present = (rows != 0).numpy()
            data, ends = np.ones(present.sum(), np.int32), np.append(0, present.sum(1).cumsum())
            read = sparse.csr_array((data, rows.numpy()[present], ends), (len(rows), sets))
            read.sum_duplicates()
            while (self.kinds[read.indices] == UNION).any():
                self._look_at(read.nnz)
                read = read @ members
                read.data[:] = 1
            self.wires += copies * np.bincount(self.kinds[read.indices], minlength=3)
            self.is_read[read.indices] = True

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs an operator of which an argument has sets."""
        name, in_place = name_of(func), func._schema.name.endswith("_")
        first = next(x for x in tree_leaves((args, kwargs)) if isinstance(x, _Sets))
        if in_place and (first is not args[0] or name in _ALLOCATES):
            raise ValueError(f"{func} writes a constant; no rule for that")
        if name in _ALLOCATES:
            plain = tree_map_only(_Sets, lambda x: torch.zeros(x.shape, dtype=x.dtype), args)
            return func(*plain, **kwargs)
        if func.is_view or name in _MOVES:
            dtype = kwargs.get("dtype") or first.dtype
            kwargs = {key: x for key, x in kwargs.items() if key != "dtype"}
            args = args[:2] if name == "constant_pad_nd" else args  # by the empty set

            def numbers_of(x: Tensor) -> Tensor:  # an index remains one
                if isinstance(x, _Sets) and x is not first and not x.is_floating_point():
                    raise ValueError(f"{func} by an index that is computed; no rule for that")
                return _numbers(x) if isinstance(x, _Sets) or x.is_floating_point() else x

            args, kwargs = tree_map_only(Tensor, numbers_of, (args, kwargs))
            results = func(*args, **kwargs)
            if in_place:
                return first
            return tree_map_only(Tensor, lambda x: _Sets(x, dtype, self), results)
        empty = tree_map_only(
            Tensor, lambda x: torch.empty(x.shape, dtype=x.dtype, device="meta"), (args, kwargs)
        )
        results = func(*empty[0], **empty[1])
        call = Call.of(func, args, kwargs, results)
        shape = call.results[0].shape
        numbers = self._result(func, call, shape)
        if in_place:
            first.numbers.copy_(numbers)
            return first

        def with_sets(x: Tensor) -> Tensor:  # a norm's statistics have none
            if x.shape != shape:
                return torch.zeros(x.shape, dtype=x.dtype)
            return _Sets(numbers, x.dtype, self)

        return tree_map_only(Tensor, with_sets, results)

    def _result(self, func: Any, call: Call, shape: torch.Size) -> Tensor:
        """Returns the sets of an operator's first result."""
        name, values, operands = call.operator, call.arguments, call.operands
        family, x = _FAMILIES.get(name, ""), _numbers(operands[0])
        are_sets = [isinstance(operand, _Sets) for operand in operands]
        if family == "convolution" and not any(are_sets[1:]) and not values.get("transposed", True):
            return self._convolve(x, values, shape)
        if family == "matmul" and not any(are_sets[:-2]):
            return self._multiply(operands[-2], operands[-1], shape)
        if family == "pooling":
            return self._pool(func, call)
        if "softmax" in name:
            united = self.unite(x.movedim(values["dim"], -1))
            return united.unsqueeze(values["dim"]).expand(shape)
        if family == "normalisation":
            return x
        if family == "reduction" and "other" not in values and not name.startswith("cum"):
            axes = values.get("dim")
            axes = [axes] if isinstance(axes, int) else axes or [*range(x.dim())]
            rows = x.movedim(axes, [*range(-len(axes), 0)])
            return self.unite(rows.flatten(-len(axes))).reshape(shape)
        if family == "pointwise" or torch.Tag.pointwise in func.tags:
            return self.unite(torch.stack([_numbers(o).expand(shape) for o in operands], -1))
        raise ValueError(
            f"no rule for what the results of {func} depend on; give the module that runs it a "
            "method `trace_axons`, see `count_axons`"
        )

    def _multiply(self, a: Tensor, b: Tensor, shape: torch.Size) -> Tensor:
        """Multiplies (..., M, K) by (..., K, N): a layer of units, or the mixing of two tensors."""
        a, b = (a if a.dim() > 1 else a[None]), (b if b.dim() > 1 else b[:, None])
        if isinstance(a, _Sets) and isinstance(b, _Sets):
            rows, columns = self.unite(a.numbers), self.unite(b.numbers.mT)
            pairs = torch.broadcast_tensors(rows.unsqueeze(-1), columns.unsqueeze(-2))
            return self.unite(torch.stack(pairs, -1)).reshape(shape)
        x, present = (_numbers(a), b.mT != 0) if isinstance(a, _Sets) else (_numbers(b).mT, a != 0)
        units, width = present.shape[-2:]
        if present.all():
            self.read(x.reshape(-1, width, 1), None, units)
        else:
            matrices = present.reshape(-1, units, width)
            for number, positions in enumerate(x.reshape(len(matrices), -1, width, 1)):
                self.read(positions, _chosen(matrices[number]))
        return self._values(shape)

    def _convolve(self, x: Tensor, values: Any, shape: torch.Size) -> Tensor:
        """Convolves: in one or three dimensions the first is time, and no position."""
        weight, groups, dims = values["weight"], values["groups"], len(shape) - 2
        windows = (values[key] for key in ("stride", "padding", "dilation"))
        for axis, (taps, *window) in enumerate(zip(weight.shape[2:], *windows, strict=True), 2):
            stride, padding, dilation = window
            first = torch.arange(shape[axis])[:, None] * stride - padding
            index = first + torch.arange(taps) * dilation
            x = _windows(x, axis, index.where((index >= 0) & (index < x.shape[axis]), -1))
        x = x if dims % 2 else x.unsqueeze(2)
        # (B, C, T, positions ..., taps ...) -> (P, K, T)
        x = x.movedim((1, 2), (-2 - dims, -1)).flatten(-2 - dims, -2).flatten(0, -3)
        present = weight.flatten(1) != 0
        if present.all():
            index = torch.arange(x.shape[1]).reshape(groups, -1)
            self.read(x, index, len(weight) // groups)
        else:
            chosen = _chosen(present)
            group = torch.arange(len(weight))[:, None] // (len(weight) // groups)
            self.read(x, (chosen + group * present.shape[1]).where(chosen >= 0, -1))
        return self._values(shape)

    def _values(self, shape: torch.Size) -> Tensor:
        return _numbers(self.new(shape, torch.float32))

    def _pool(self, func: Any, call: Call) -> Tensor:
        """Unites the sets of windows along one axis after another; on ones the pool itself says
        which positions they have."""
        operand, *others = call.arguments.values()
        x, dims = _numbers(operand), 3 if "3d" in call.operator else 2
        for axis in range(-dims, 0):
            size = x.shape[axis]
            line = [size if other == axis else 1 for other in range(-dims, 0)]
            ones = torch.eye(size).reshape(size, 1, *line).expand(-1, -1, *operand.shape[-dims:])
            (pooled, *_) = tensors_of(func(ones, *others))
            mask = pooled.movedim(axis, 0).flatten(2).amax(2) > 0  # (out, size)
            x = self.unite(_windows(x, axis % x.dim(), _chosen(mask)))
        return x
