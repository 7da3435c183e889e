"""What learning costs: arithmetic, teaching signals, memory, and an estimate of energy.

The rule itself runs, on copies, and the exact counter of `neuroconv.flops` sees each operator. Once
the error is known, a contraction (a product of matrices, a convolution) belongs to the update if it
multiplies an error, or a rate, by activity of the forward pass, and its result meets no contraction
any more: it ends in a gradient. Else it sends an error backward, by weights, forward or feedback.
Any other operator belongs to the update if its result meets no contraction.
"""

import copy
import itertools
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from neuroconv.core.counting import counting
from neuroconv.flops import count_axons, estimate_energy
from neuroconv.flops.calls import name_of, tensors_of
from neuroconv.flops.control_flow import eagerly
from neuroconv.flops.exact import OperatorCounter, refuse_uncounted
from neuroconv.flops.machine.memory import MemoryTracker, storage_bytes
from neuroconv.flops.rules import CONTRACTIONS
from neuroconv.learning.backprop import Backprop
from neuroconv.learning.rule import make_rule

# What went into a tensor; the highest names its kind. Operators after the error are 0, 1, ...
_WEIGHT, _ACTIVITY, _ERROR = -3, -2, -1


@dataclass(frozen=True)
class LearningCost:
    """The cost of an update for each sample of its batch, by the operators that execute.

    Attributes:
        batch: samples in the update. Bytes of weights are moved once for all of them.
        parameters: those that the rule trains.
        forward_mac, backward_mac, update_mac: multiply-adds of contractions: before the error is
            known, to send it backward, and for the gradient of the weights. Large batches may run
            as dense products, zeros included: one sample shows what the wiring needs.
        forward_flop, backward_flop, update_flop: of all operators, 2 for each multiply-add; they
            count the products of sparse synapses, which are no contractions.
        teaching_signals: values that tell a cell or a unit its error. For backpropagation the
            outputs, and what units send to one another; None if that cannot be counted.
        kept_bytes: of the forward pass, for the update: what autograd saves, or the rule keeps,
            by torch's operators; without parameters, buffers, the input and the output.
        gradient_bytes: of the update as a whole.
        lowest_joules, highest_joules: an estimate; see `neuroconv.flops.estimate_energy`.
    """

    rule: str
    batch: int
    parameters: int
    forward_mac: float
    backward_mac: float
    update_mac: float
    forward_flop: float
    backward_flop: float
    update_flop: float
    teaching_signals: int | None
    kept_bytes: float
    gradient_bytes: int
    lowest_joules: float
    highest_joules: float

    def __str__(self) -> str:
        numbers = {key: n for key, n in vars(self).items() if isinstance(n, int | float)}
        return ", ".join(f"{key.replace('_', ' ')} {n:,.9g}" for key, n in numbers.items())


class _Flow(OperatorCounter):
    """A counter that marks each storage with what went into it."""

    def __init__(self) -> None:
        super().__init__()
        self._marks: WeakKeyDictionary[Any, frozenset[int]] = WeakKeyDictionary()
        self._numbers = itertools.count()
        self.updates: dict[int, tuple[int, int]] = {}  # MAC and FLOP of what met no contraction

    def mark(self, tensors: Iterable[Tensor], marks: frozenset[int]) -> None:
        for storage in (tensor.untyped_storage() for tensor in tensors):
            self._marks[storage] = marks | self._marks.get(storage, frozenset())

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        storages = (tensor.untyped_storage() for tensor in tensors_of((args, kwargs)))
        operands = [self._marks.get(storage, frozenset({_WEIGHT})) for storage in storages]
        kinds = {max(mark for mark in marks if mark < 0) for marks in operands if marks}
        marks, before = frozenset[int]().union(*operands), self._passes[-1].amounts.copy()
        out = super().run(func, args, kwargs)
        amounts = self._passes[-1].amounts - before
        mac = sum(amounts[family] for family in CONTRACTIONS)
        if amounts and len(self._passes) > 1:
            number, flop = next(self._numbers), mac + amounts.total()
            for mark in marks & self.updates.keys() if mac else ():
                del self.updates[mark]
            if name_of(func) == "convolution_backward":  # gradients of one size, and of the bias
                to_input, to_weight, _ = args[-1]
                sent = mac * to_input // (to_input + to_weight)
                self.updates[number] = mac - sent, flop - 2 * sent
            elif not mac or (_ACTIVITY in kinds and _WEIGHT not in kinds):
                self.updates[number], marks = (mac, flop), marks | {number}
        self.mark(tensors_of(out), marks)
        return out


def learning_cost(
    model: nn.Module,
    rule: str,
    inputs: Tensor,
    targets: Tensor | None = None,
    device: str = "meta",
    **options: Any,
) -> LearningCost:
    """Counts an update of a model, in training mode, by a rule; the model is left untouched.

    Args:
        inputs, targets: a batch, by its shapes; targets are labels (B,) by default.
        device: "meta" (no memory, no arithmetic) or "cpu".
        options: of the rule.

    Raises:
        NotLocal: the model's structure does not allow the rule.
        ValueError: an unknown rule, or an operator that the exact counter has no rule for.
    """
    batch, flow, memory, kept = len(inputs), _Flow(), MemoryTracker(device), [0]
    with counting(), eagerly(), torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        learner = make_rule(copy.deepcopy(model).to(device).train(), rule, **options)
        data = inputs.detach().to(device)
        targets = (torch.zeros(batch, dtype=torch.long) if targets is None else targets).to(device)
        flow.mark([data], frozenset({_ACTIVITY}))
        for tensor in (*learner.model.parameters(), *learner.model.buffers(), data):
            memory.add_external(tensor)
        given_bytes, measure = memory.alive_bytes, learner.error

        def error(outputs: Tensor, targets: Tensor) -> Tensor:
            kept[0] = memory.alive_bytes - given_bytes - storage_bytes([outputs])
            flow.begin_backward()
            result = measure(outputs, targets)
            flow.mark([result], frozenset({_ERROR}))
            return result

        learner.error = error
        with flow, memory:
            outputs = learner(data, targets)
        trained = list(learner.trained())
        gradient_bytes = storage_bytes(p.grad for p in trained if p.grad is not None)
        traffic = memory.end(gradient_bytes)
        memory.release()
    refuse_uncounted(forward := flow.counts(device))
    learning: Any = forward.backward
    update_mac, update_flop = map(sum, zip(*flow.updates.values(), strict=True))
    mac, flop = forward.mac + learning.mac, forward.flop + learning.flop
    moved, compulsory = traffic.moved_bytes, traffic.compulsory_bytes
    energy = estimate_energy(mac, flop - 2 * mac, moved, compulsory_bytes=compulsory)
    signals: int | None = None
    if not isinstance(learner, Backprop):
        signals = learner.teaching_signals
    else:
        with suppress(ValueError):
            signals = count_axons(model, inputs[:1]).axons + outputs[0].numel()
    return LearningCost(
        rule, batch, sum(p.numel() for p in trained),
        forward.mac / batch, (learning.mac - update_mac) / batch, update_mac / batch,
        forward.flop / batch, (learning.flop - update_flop) / batch, update_flop / batch,
        signals, kept[0] / batch, gradient_bytes, *(e / batch for e in energy.total_joules),
    )  # fmt: skip
