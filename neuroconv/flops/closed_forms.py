"""The closed form: each module's cost from sizes alone.

The model runs once under hooks, which see shapes alone. A module with a method `closed_form` (see
`neuroconv.core.cost`) states its own cost, children included; formulas of torch.nn are here.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import nn

from neuroconv.core.arguments import checked
from neuroconv.core.cost import Cost
from neuroconv.flops.calls import OperatorMode, name_of, tensors_of
from neuroconv.flops.control_flow import eagerly
from neuroconv.flops.inputs import Keywords, as_inputs
from neuroconv.flops.meta_copy import Device, meta_copy
from neuroconv.flops.origins import refuse_foreign
from neuroconv.flops.rules import CONTRACTIONS, DATA, Counts, Rule, read_rules


@dataclass(frozen=True)
class StageRow:
    """One stage of one module's call: the module's path and its cost.

    Neurons of a plain convolution or linear layer are its output elements per sample (a unit at a
    position), synapses its connections: one multiply-add of one sample is one connection.
    """

    module: str
    cost: Cost


@dataclass(frozen=True)
class ClosedForm:
    """The closed form's counts, and the rows that sum to them.

    `hidden` names the modules without a formula that run contractions themselves, by a function or
    an operator such as `@`: those are in no row.
    """

    counts: Counts
    rows: tuple[StageRow, ...]
    hidden: tuple[str, ...] = ()


# Amounts by family from a layer of torch.nn and the shapes of its input and output.
Formula = Callable[[Any, torch.Size, torch.Size], dict[str, int]]


def _products(m: Any, if_complex: int) -> int:
    """Returns the real products in one of the module's: 1, or `if_complex` for complex weights."""
    return if_complex if any(weight.is_complex() for weight in m.parameters()) else 1


def convolution(m: Any, x: torch.Size, y: torch.Size) -> dict[str, int]:
    # An output element meets each tap of its group's inputs; transposed, an input element its
    # group's outputs. torch makes three real convolutions of a complex one.
    positions, channels = (x, m.out_channels) if m.transposed else (y, m.in_channels)
    taps = channels // m.groups * prod(m.kernel_size)
    return {"convolution": _products(m, 3) * prod(positions) * taps}


def linear(m: Any, x: torch.Size, y: torch.Size) -> dict[str, int]:
    return {"matmul": _products(m, 4) * prod(y) * m.in_features}


def recurrent(m: Any, x: torch.Size, y: torch.Size) -> dict[str, int]:
    # The input is (..., features), packed or not: steps of all sequences before the last axis.
    steps, cell = prod(x[:-1]), {"LSTM": 13, "GRU": 10}.get(m.mode, 2)
    matrices = sum(weight.numel() for weight in m.parameters() if weight.dim() == 2)
    units = m.num_layers * (1 + m.bidirectional) * m.hidden_size
    return {"matmul": steps * matrices, "pointwise": steps * units * cell}


def batch_norm(m: Any, x: torch.Size, y: torch.Size) -> dict[str, int]:
    batch_statistics = m.training or not m.track_running_stats
    return {"normalisation": prod(x) * (4 + m.affine if batch_statistics else 2)}


def norm(base: int) -> Formula:
    return lambda m, x, y: {"normalisation": prod(x) * (base + (m.weight is not None))}


def window_pool(axes: int) -> Formula:
    def formula(m: Any, x: torch.Size, y: torch.Size) -> dict[str, int]:
        window = m.kernel_size
        return {"pooling": prod(y) * (window**axes if isinstance(window, int) else prod(window))}

    return formula


def inputs(family: str, weight: int) -> Formula:
    return lambda m, x, y: {family: weight * prod(x)}


def outputs(family: str, weight: int) -> Formula:
    return lambda m, x, y: {family: weight * prod(y)}


_FORMS: dict[type[nn.Module], Rule] = {
    getattr(nn, name): rule for name, rule in read_rules("closed_form", globals()).items()
}


def _formula(module: nn.Module) -> Formula | None:
    """Returns the formula of the class whose `forward` the module runs: an override has none."""
    for base in type(module).__mro__:
        if base in _FORMS and base.forward is type(module).forward:
            return _FORMS[base].count
    return None


# Names alone: whether an operator contracts, not what it costs. The closed form stays independent.
_CONTRACTING = {
    name
    for entry in DATA["exact"]
    if entry["rule"].startswith(CONTRACTIONS)
    for name in entry["operators"].split()
}


def _label(path: str, module: nn.Module) -> str:
    return f"{path or 'model'} ({type(module).__name__})"


def _shapes(values: Any) -> list[torch.Size]:
    return [tensor.shape for tensor in tensors_of(values)]


class _Statements(OperatorMode):
    """The costs that running modules state, and those with contractions that no formula covers."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.rows: list[StageRow] = []
        self.flops: Counter[str] = Counter()
        self.unstated: Counter[str] = Counter()
        self.hidden: Counter[str] = Counter()
        self._running: list[str | None] = []  # labels of modules; None where a formula covers one
        self._stating: nn.Module | None = None  # its statement covers the modules inside

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        label = self._running[-1] if self._running else None
        if label is not None and name_of(func) in _CONTRACTING:
            self.hidden[label] += 1
        return func(*args, **kwargs)

    def enter(self, path: str, module: nn.Module, args: Any) -> None:
        if self._stating is None and callable(getattr(module, "closed_form", None)):
            self._stating = module
        covered = self._stating is not None or _formula(module) is not None
        self._running.append(None if covered else _label(path, module))

    def leave(self, path: str, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        self._running.pop()
        shapes = _shapes((args, kwargs))
        if self._stating is module:
            self._stating = None
            if result is not None:  # else it raised
                self._add(path, *module.closed_form(*shapes))  # type: ignore[operator]
        elif self._stating is None:
            self._add_layer(path, module, shapes, _shapes(result))

    def _add_layer(
        self, path: str, module: nn.Module, shapes: list[torch.Size], results: list[torch.Size]
    ) -> None:
        formula = _formula(module)
        # Without a tensor in and out there are no sizes; a nested tensor's are symbolic.
        sizes = (*shapes[0], *results[0]) if shapes and results else (None,)
        if formula is None or not all(isinstance(size, int) for size in sizes):
            if not list(module.children()) or module._parameters:
                self.unstated[_label(path, module)] += 1
            return
        for family, amount in formula(module, shapes[0], results[0]).items():
            if family in CONTRACTIONS:
                stage = "convolution" if family == "convolution" else "linear"
                neurons, synapses = prod(results[0]) // self.batch, amount // self.batch
                self._add(path, Cost(stage, {family: amount}, 0, neurons, synapses))
            else:
                self.flops[family] += amount

    def _add(self, path: str, *costs: Cost) -> None:
        for cost in costs:
            self.rows.append(StageRow(path, cost))
            self.flops["pointwise"] += cost.pointwise


@checked
@refuse_foreign
def count_closed_form(
    model: nn.Module, inputs: Any, *, kwargs: Keywords = None, device: Device = "meta"
) -> ClosedForm:
    """Sums the cost of one run in eval mode from each module's sizes.

    `counts.uncounted` lists, as "path (Type)", the modules without a formula that ran and are
    leaves, hold parameters or run a contraction themselves.

    Args:
        model: any module; it is left untouched.
        inputs, kwargs: its arguments; see `as_inputs`.
        device: where the model runs to give its shapes: "meta", "cpu" or "cuda".
    """
    items = as_inputs(inputs, kwargs)
    statements = _Statements(items.batch)
    with meta_copy(model, items, device) as (copied, arguments), eagerly(), statements:
        for path, module in copied.named_modules():
            module.register_forward_pre_hook(partial(statements.enter, path))
            leave = partial(statements.leave, path)
            module.register_forward_hook(leave, with_kwargs=True, always_call=True)
        statements.receive(arguments.call(copied))
    amounts = statements.flops.copy()
    for row in statements.rows:
        amounts.update(row.cost.macs)
    uncounted = dict(statements.hidden) | dict(statements.unstated)
    counts = Counts.of("closed_form", device, amounts, uncounted=uncounted)
    return ClosedForm(counts, tuple(statements.rows), tuple(statements.hidden))
