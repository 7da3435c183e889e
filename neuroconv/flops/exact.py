"""The exact counter: every operator that executes, as torch's dispatcher sees it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from neuroconv.core.arguments import checked
from neuroconv.core.counting import repeats
from neuroconv.flops.calls import Call, OperatorMode
from neuroconv.flops.control_flow import eagerly
from neuroconv.flops.inputs import Keywords, as_inputs
from neuroconv.flops.meta_copy import Device, meta_copy, require_grad
from neuroconv.flops.operators import explain_uncounted, look_up
from neuroconv.flops.origins import FOREIGN, refuse_foreign
from neuroconv.flops.rules import CONTRACTIONS, Counts


@dataclass
class _PassCounts:
    """The counts of one pass, forward or backward; see `Counts`."""

    amounts: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    modules: Counter[str] = field(default_factory=Counter)
    zero: dict[str, str] = field(default_factory=dict)
    uncounted: Counter[str] = field(default_factory=Counter)
    integers: Counter[str] = field(default_factory=Counter)


class OperatorCounter(OperatorMode):
    """A count of each call, for the whole model and for each module that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Starts to count from zero."""
        self._passes = [_PassCounts()]
        self._running: list[str] = []  # paths of the modules, outermost first
        self.foreign = FOREIGN.get()

    def begin_backward(self) -> None:
        """Ends the forward pass: later calls are counted separately."""
        self._passes.append(_PassCounts())

    def counts(self, device: str) -> Counts:
        backward: Counts | None = None
        for counted in reversed(self._passes):
            details = {name: dict(value) for name, value in vars(counted).items()}
            amounts = details.pop("amounts")
            counts = Counts.of("exact", device, amounts, **details, backward=backward)
            backward = counts
        return counts

    @contextmanager
    def tracking(self, model: nn.Module) -> Iterator[None]:
        """Counts in the context; hooks on the model, a copy, track the running modules."""
        for path, module in model.named_modules():
            if path:
                module.register_forward_pre_hook(partial(self._enter, path))
                module.register_forward_hook(self._leave, always_call=True)
        self.reset()
        with self:
            yield

    def _enter(self, path: str, *_: Any) -> None:
        if torch._C._len_torch_dispatch_stack():
            self._running.append(path)
        elif self.foreign is not None:  # in another thread
            self.foreign.add_module(path)

    def _leave(self, *_: Any) -> None:
        if torch._C._len_torch_dispatch_stack():
            self._running.pop()

    def where(self) -> str:
        return f" in {self._running[-1]!r}" if self._running else ""

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        call = Call.of(func, args, kwargs, out)
        rule, current, times = look_up(func, call), self._passes[-1], repeats()
        if rule is None:
            current.uncounted[str(func)] += times
        elif isinstance(rule, str):
            current.zero[str(func)] = rule
        elif call.is_integral:
            current.integers[str(func)] += times * sum(rule.count(call).values())
        else:
            amounts = {family: times * n for family, n in rule.count(call).items()}
            current.amounts.update(amounts)
            if mac := sum(amounts.get(family, 0) for family in CONTRACTIONS):
                current.operators[str(func)] += mac
                current.modules.update(dict.fromkeys(["", *self._running], mac))
        return out


@checked
@refuse_foreign
def count_exact(
    model: nn.Module,
    inputs: Any,
    *,
    kwargs: Keywords = None,
    device: Device = "meta",
    backward: bool = False,
    training: bool = False,
    strict: bool = False,
) -> Counts:
    """Counts all operators that execute when the model runs once, as torch's dispatcher sees them.

    Args:
        model: any module; it is left untouched. If compiled, it runs operator by operator.
        inputs, kwargs: its arguments; see `as_inputs`.
        device: "meta" (no memory, no arithmetic), "cpu" or "cuda".
        backward: count the backward pass too, apart, as `Counts.backward`.
        training: run in training mode.
        strict: refuse a model that runs an operator without a rule.

    Raises:
        ValueError: the model cannot run on meta tensors, a device is missing, another thread
            computes, nothing needs the backward pass, or, if strict, an operator has no rule.
    """
    counter, items = OperatorCounter(), as_inputs(inputs, kwargs)
    copies = meta_copy(model, items, device, training=training, backward=backward)
    with copies as (copied, arguments), eagerly(), counter.tracking(copied):
        outputs = counter.receive(arguments.call(copied))
        if backward:
            counter.begin_backward()
            outputs = require_grad(outputs)
            torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
    counts = counter.counts(device)
    if strict:
        refuse_uncounted(counts)
    return counts


def refuse_uncounted(counts: Counts) -> None:
    """Raises ValueError if something ran without a rule, forward or backward."""
    uncounted = {*counts.uncounted, *(counts.backward.uncounted if counts.backward else ())}
    if uncounted:
        raise ValueError(
            f"{counts.counter} counter: no rule for {explain_uncounted(uncounted)}; its FLOPs are "
            "in no total. Count without strict, or write the operator with those that have a rule "
            "(`neuroconv operators` lists them)"
        )
