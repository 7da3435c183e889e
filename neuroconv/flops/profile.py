"""`profile`: one run counted by up to three counters, its memory, its time."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any, TypeVar

from torch import Tensor, nn

from neuroconv.core.arguments import Count, Size, checked
from neuroconv.core.text import Terminal
from neuroconv.flops.axons import Axons, count_axons
from neuroconv.flops.closed_forms import count_closed_form
from neuroconv.flops.exact import OperatorCounter, count_exact, refuse_uncounted
from neuroconv.flops.fvcore_counter import StockCount, analyse_fvcore
from neuroconv.flops.inputs import Inputs, Keywords, as_inputs
from neuroconv.flops.machine.roofline import measure
from neuroconv.flops.machine.traffic import Traffic, measure_traffic
from neuroconv.flops.meta_copy import Device, OutOfMemory, explained, find_device
from neuroconv.flops.metrics import to_dict
from neuroconv.flops.operators import explain_uncounted
from neuroconv.flops.record import COUNTERS, Counters, Record
from neuroconv.flops.rules import Counts
from neuroconv.flops.table import summary_table

_T = TypeVar("_T")


class UncountedWarning(UserWarning):
    """Totals lack the FLOPs of operators that the exact counter has no rule for."""


class Profile(Record):
    """A record that prints as the table of `neuroconv profile`."""

    def __str__(self) -> str:
        text = StringIO()
        Terminal(file=text, width=100).print(summary_table([self]))
        return text.getvalue().rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON, units in the keys; integers stay integers of any size."""
        return to_dict(self)


@checked
def profile(
    model: nn.Module,
    inputs: Any,
    *,
    kwargs: Keywords = None,
    name: str | None = None,
    counters: Counters = COUNTERS,
    device: Device = "meta",
    fvcore_device: Device = "cpu",
    fvcore_limit: Count = 20_000_000_000,
    time_steps: Size | None = None,
    strict: bool = False,
    timed: bool = False,
) -> Profile:
    """Counts the cost of one run of a model in eval mode, by counters independent of each other.

    Args:
        model: any module, on any device, meta included; it is left untouched.
        inputs, kwargs: its arguments, on any device; see `as_inputs`. A tuple is the positional
            ones, anything else the only one. The first tensor's first axis is the batch.
        name: for the tables; default the class's.
        counters: any of "closed_form", "exact", "fvcore".
        device: where the model runs: "meta" (no memory, no arithmetic), "cpu" or "cuda".
        fvcore_device: "cpu" or "cuda": fvcore runs the model.
        fvcore_limit: MAC, by the exact counter, above which fvcore is skipped.
        time_steps: steps in the window. Default: if a module has a `time_steps`, the third axis of
            inputs (batch, axons, steps) or (batch, channels, steps, height, width), for others
            that attribute; else 1.
        strict: raise for an operator that the exact counter has no rule for; else it is warned of.
        timed: on "cpu" or "cuda", also measure time, the machine's peaks and firing.

    Raises:
        ValueError: an unknown counter, an empty batch, a device that is missing, a model that does
            not run (on meta tensors), timing on meta, or, if strict, an operator without a rule.
        TypeError: no module, or arguments of another kind.

    Warns:
        UncountedWarning: operators ran that the exact counter has no rule for.

    If the device's memory runs out, the rest is counted on meta, and `skipped` says so.
    """
    device, fvcore_device = str(device), str(fvcore_device)
    if timed and find_device(device).type == "meta":
        raise ValueError("timed=True with device='meta', where nothing runs; use 'cpu' or 'cuda'")
    items = as_inputs(inputs, kwargs)
    counts: dict[str, Counts] = {}
    skipped: dict[str, str] = {}

    def run(counter: str, job: Callable[..., _T]) -> _T:
        """Runs a counter on the device; it and all later ones on meta if memory runs out."""
        nonlocal device
        try:
            return job(model, items, device=device)
        except OutOfMemory as error:
            reason = skipped[f"{counter} on {device}"] = str(error)
            device = "meta"
        try:
            return job(model, items, device=device)
        except ValueError as error:
            raise ValueError(f"{counter}: {reason}. On meta: {error}") from error

    closed = run("closed_form", count_closed_form)
    if "closed_form" in counters:
        counts["closed_form"] = closed.counts
    exact = run("exact", count_exact)
    training_items = items if items.batch > 1 else items.doubled()
    training, training_traffic = _training_step(model, training_items, device, skipped)
    doubled: Counts | None = None
    if "exact" in counters:
        counts["exact"] = exact
        doubled = _doubled(model, items, exact)
        if strict:
            refuse_uncounted(exact)
            refuse_uncounted(training or exact)
    traffic = run("bytes", measure_traffic)
    stock: StockCount | None = None
    if "fvcore" in counters:
        try:
            _refuse_fvcore(model, exact, fvcore_limit)
            counts["fvcore"], stock = analyse_fvcore(model, items, device=fvcore_device)
        except (ImportError, ValueError) as error:  # not installed, too large, or hidden from it
            skipped["fvcore"] = str(error)
    if not counts:
        raise ValueError(f"no counter ran: {skipped}; add 'exact' or 'closed_form' to counters")
    if timed and not traffic.moved_bytes:
        skipped["time"] = "the model moves no byte"
    if timed and device == "meta":
        skipped["time"] = "memory ran out, and nothing runs on meta"
    sent: Axons | None = None
    try:
        sent = count_axons(model, items)
    except ValueError as error:
        skipped["axons"] = str(error)
    parameters = list(model.parameters())
    result = Profile(
        name=type(model).__name__ if name is None else name,
        batch=items.batch,
        time_steps=_window(model, items.first) if time_steps is None else time_steps,
        axons=getattr(model, "in_features", None) if hasattr(model, "closed_form") else None,
        sent=sent,
        parameters=sum(p.numel() for p in parameters if p.requires_grad),
        frozen_parameters=sum(p.numel() for p in parameters if not p.requires_grad),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
        counts=counts,
        stock_fvcore=stock,
        skipped=skipped,
        stages=closed.rows,
        unstated=tuple(closed.counts.uncounted),
        hidden=closed.hidden,
        training=training,
        training_batch=training_items.batch,
        doubled=doubled,
        traffic=traffic,
        training_traffic=training_traffic,
        measured=None,
    )
    if result.uncounted:
        reasons = explain_uncounted(result.uncounted)
        message = f"{result.name}: no rule for {reasons}; totals lack its FLOPs"
        warnings.warn(message, UncountedWarning, stacklevel=3)  # 2 is `checked`
    if not timed or "time" in skipped:
        return result
    try:
        with explained(items, device):
            measured = measure(model, items, device, result.reference.flop, traffic)
    except OutOfMemory as error:
        return replace(result, skipped={**skipped, "time": str(error)})
    return replace(result, measured=measured)


def _training_step(
    model: nn.Module, items: Inputs, device: str, skipped: dict[str, str]
) -> tuple[Counts | None, Traffic | None]:
    """Counts a training step, or writes to `skipped` why it cannot be."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return None, None
    counter = OperatorCounter()
    try:
        traffic = measure_traffic(
            model, items, device=device, backward=True, training=True, counter=counter
        )
    except ValueError as error:  # it reads values, cannot be differentiated ...
        skipped["training"] = str(error)
        return None, None
    return counter.counts(device), traffic


def _doubled(model: nn.Module, items: Inputs, once: Counts) -> Counts | None:
    """Counts a batch twice as large; None if the model refuses it or runs another algorithm."""
    try:
        doubled = count_exact(model, items.doubled(), device=once.device)
    except (RuntimeError, ValueError):  # a model for one size of batch
        return None
    return doubled if doubled.macs.keys() == once.macs.keys() else None


def _refuse_fvcore(model: nn.Module, exact: Counts, limit: int) -> None:
    """Raises ValueError where fvcore, which runs the model, cannot or would take too long."""
    if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
        raise ValueError("the model is on meta, and fvcore needs real tensors")
    if exact.mac > limit:
        raise ValueError(f"{exact.mac:,} MAC is more than fvcore_limit={limit:,}")


def _window(model: nn.Module, first: Tensor) -> int:
    attributes = (getattr(module, "time_steps", None) for module in model.modules())
    steps = next((steps for steps in attributes if isinstance(steps, int)), None)
    if steps is None:
        return 1
    return int(first.shape[2]) if first.dim() in (3, 5) else steps
