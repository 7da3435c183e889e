"""`profile`: one run counted by up to three counters, its memory, its time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuroconv.flops.closed_forms import StageRow, count_closed_form
from neuroconv.flops.exact import OperatorCounter, count_exact, refuse_uncounted
from neuroconv.flops.fvcore_adapter import count_fvcore
from neuroconv.flops.machine.measured import measure
from neuroconv.flops.machine.traffic import Traffic, measure_traffic
from neuroconv.flops.meta_copy import as_inputs
from neuroconv.flops.record import Profile
from neuroconv.flops.rules import Counts

COUNTERS = ("closed_form", "exact", "fvcore")
# A model of more floats would not fit beside itself on most machines.
_FVCORE_PARAMETERS = 2_000_000_000


def profile(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    *,
    name: str | None = None,
    counters: Sequence[str] = COUNTERS,
    device: str = "meta",
    fvcore_device: str = "cpu",
    fvcore_limit: int = 20_000_000_000,
    time_steps: int | None = None,
    strict: bool = False,
    timed: bool = False,
) -> Profile:
    """Count what one run of a model in eval mode costs, by counters independent of each other.

    Args:
        model: any module, on any device, meta included; it is left as it was.
        inputs: a tensor or a tuple of tensors to call it with, the batch first. Their device does
            not matter.
        name: for the tables; default the class's.
        counters: any of "closed_form", "exact", "fvcore".
        device: where the model runs to be counted: "meta" (takes no memory and no arithmetic),
            "cpu" or "cuda".
        fvcore_device: "cpu" or "cuda": fvcore runs the model.
        fvcore_limit: MAC above which fvcore is skipped.
        time_steps: steps in the window; default the third axis of a first input of three or five
            axes, (batch, axons, steps) or (batch, channels, steps, height, width), if a module has
            a `time_steps`; for other inputs that attribute's value, else 1.
        strict: refuse a model that runs an operator which the exact counter has no rule for.
        timed: on "cpu" or "cuda", also measure time, the machine's peaks and firing.

    Raises:
        TypeError: inputs that are not tensors.
        ValueError: an unknown counter, an empty batch, a device that is missing, a model that does
            not run on meta tensors, timing on meta, or, if strict, an operator without a rule.
    """
    unknown = [counter for counter in counters if counter not in COUNTERS]
    if unknown or not counters:
        raise ValueError(f"counters={tuple(counters)!r}; expected some of {', '.join(COUNTERS)}")
    if timed and torch.device(device).type == "meta":
        raise ValueError("timed=True with device='meta', where nothing runs; use 'cpu' or 'cuda'")
    items = as_inputs(inputs)
    closed = count_closed_form(model, items, device=device)
    counts: dict[str, Counts] = {}
    skipped: dict[str, str] = {}
    if "closed_form" in counters:
        counts["closed_form"] = closed.counts
    several = items if items[0].shape[0] > 1 else _twice(items)  # samples of a training step
    trains = any(parameter.requires_grad for parameter in model.parameters())
    training: Counts | None = None
    training_traffic: Traffic | None = None
    doubled: Counts | None = None
    if trains:
        counter = OperatorCounter()
        try:
            training_traffic = measure_traffic(
                model, several, device=device, backward=True, training=True, counter=counter
            )
        except (RuntimeError, ValueError) as error:  # it reads values, cannot be differentiated ...
            skipped["training"] = str(error)
        else:
            training = counter.counts(device)
    if "exact" in counters:
        counts["exact"] = count_exact(model, items, device=device)
        try:
            doubled = count_exact(model, _twice(items), device=device)
        except (RuntimeError, ValueError):  # a model for one size of batch
            doubled = None
        if doubled is not None and doubled.macs.keys() != counts["exact"].macs.keys():
            doubled = None  # twice the batch runs by another algorithm: nothing to tell apart
        if strict:
            refuse_uncounted(counts["exact"])
            refuse_uncounted(training or counts["exact"])
    if "fvcore" in counters:
        reason = _why_not_fvcore(model, closed.rows, fvcore_limit)
        if reason is None:
            try:
                counts["fvcore"] = count_fvcore(model, items, device=fvcore_device)
            except ValueError as error:  # it says what hides the cost from fvcore
                reason = str(error)
        if reason is not None:
            skipped["fvcore"] = reason
    if not counts:
        raise ValueError(f"no counter ran: {skipped}; add 'exact' or 'closed_form' to counters")

    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    frozen = [p.numel() for p in model.parameters() if not p.requires_grad]
    traffic = measure_traffic(model, items, device=device)
    if timed and not traffic.moved_bytes:
        skipped["time"] = "the model moves no byte"
    reference = next(counts[each] for each in ("exact", "fvcore", "closed_form") if each in counts)
    return Profile(
        name=type(model).__name__ if name is None else name,
        batch=items[0].shape[0],
        time_steps=_window(model, items[0]) if time_steps is None else time_steps,
        parameters=sum(trained),
        frozen_parameters=sum(frozen),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
        neurons=sum(row.cost.neurons for row in closed.rows),
        synapses=sum(row.cost.synapses for row in closed.rows),
        counts=counts,
        skipped=skipped,
        stages=closed.rows,
        unstated=tuple(closed.counts.uncounted),
        hidden=closed.hidden,
        training=training,
        training_batch=several[0].shape[0],
        doubled=doubled,
        traffic=traffic,
        training_traffic=training_traffic,
        measured=(
            measure(model, items, device, flop=reference.flop, moved_bytes=traffic.moved_bytes)
            if timed and traffic.moved_bytes
            else None
        ),
    )


def _why_not_fvcore(model: nn.Module, rows: Sequence[StageRow], limit: int) -> str | None:
    executed = sum(row.cost.executed for row in rows)
    size = sum(parameter.numel() for parameter in model.parameters())
    if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
        return "the model is on meta, and fvcore needs real tensors"
    if executed > limit:
        return f"{executed:,} MAC is more than fvcore_limit={limit:,}"
    if size > _FVCORE_PARAMETERS:
        return f"{size:,} parameters are more than {_FVCORE_PARAMETERS:,}"
    return None


def _twice(items: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inputs of a batch twice as large."""
    batch = items[0].shape[0]
    return tuple(
        torch.cat([item, item]) if item.dim() and item.shape[0] == batch else item for item in items
    )


def _window(model: nn.Module, first: Tensor) -> int:
    """Time steps of a window, by the rule that `profile` states."""
    found = (getattr(module, "time_steps", None) for module in model.modules())
    steps = next((steps for steps in found if isinstance(steps, int)), None)
    if steps is None:
        return 1
    return int(first.shape[2]) if first.dim() in (3, 5) else steps
