"""Times of a model, or of any call."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
from torch import nn

from neuroconv.core.arguments import NonNegative, checked
from neuroconv.flops.inputs import Inputs, Keywords, as_inputs
from neuroconv.flops.meta_copy import Device, find_device, meta_copy, require_grad

_MAX_BLOCK = 1000  # calls in one repeat


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        seconds: median over the repeats, each the mean of a block of calls.
        lower_seconds, upper_seconds: their quartiles; the median itself if there was one repeat.
    """

    seconds: float
    lower_seconds: float
    upper_seconds: float
    repeats: int
    calls_per_repeat: int

    @property
    def spread(self) -> float:
        """Distance of the quartiles, as a share of the median."""
        return (self.upper_seconds - self.lower_seconds) / self.seconds

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "quartile_distance_share": self.spread}


def timed_device(device: str) -> torch.device:
    """Returns the device; a ValueError if it cannot be timed, or is missing."""
    target = find_device(device)
    if target.type == "meta":
        raise ValueError(f"device={device!r} cannot be timed; expected 'cpu' or 'cuda'")
    return target


def _run_block(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """Returns the seconds of one call, the mean of a block."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record(torch.cuda.current_stream(device))
        for _ in range(calls):
            call()
        end.record(torch.cuda.current_stream(device))
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1e3 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def time_call(call: Callable[[], object], device: torch.device, seconds: float) -> Timing:
    """Times a call: two to warm up, then 3 to 20 repeats in `seconds`, one if a call is longer."""
    _run_block(call, 1, device)  # also chooses and loads kernels
    once = max(_run_block(call, 1, device), 1e-9)
    if once > seconds:
        return Timing(once, once, once, 1, 1)
    block = max(1, min(_MAX_BLOCK, int(seconds / 20 / once)))
    repeats = max(3, min(20, int(seconds / once / block)))
    times = [_run_block(call, block, device) for _ in range(repeats)]
    lower, _, upper = quantiles(times, n=4, method="inclusive")
    return Timing(median(times), lower, upper, repeats, block)


@checked
def measure_time(
    job: nn.Module | Callable[[], object],
    inputs: Any = None,
    device: Device = "cpu",
    *,
    kwargs: Keywords = None,
    backward: bool = False,
    training: bool = False,
    seconds: NonNegative = 0.5,
) -> Timing:
    """Times a model on its inputs, or any call: CUDA by events, the CPU by the clock.

    Args:
        job: a model, which is left untouched; or a function without arguments.
        inputs, kwargs: the model's arguments; see `as_inputs`.
        device: "cpu" or "cuda".
        backward: time the forward and the backward pass together; else forward, without autograd.
        training: run the model in training mode.
        seconds: roughly how long to measure. A call that takes longer is timed once.

    Raises:
        ValueError: no such device, inputs without a model or a model without, or a backward pass of
            outputs that need none.
    """
    target = timed_device(device)
    if isinstance(job, nn.Module) is (inputs is None and kwargs is None):
        raise ValueError("expected a model with its inputs, or a function without inputs")
    if not isinstance(job, nn.Module):
        return time_call(job, target, seconds)
    items = as_inputs(() if inputs is None else inputs, kwargs)
    copies = meta_copy(job, items, device, training=training, backward=backward)
    with copies as (copied, arguments):
        call = _training_step(copied, arguments) if backward else partial(arguments.call, copied)
        return time_call(call, target, seconds)


def _training_step(model: nn.Module, inputs: Inputs) -> Callable[[], None]:
    """Returns a call of the forward and the backward pass."""
    leaves = [leaf for leaf in (*model.parameters(), *inputs.tensors) if leaf.requires_grad]

    def call() -> None:
        outputs = require_grad(inputs.call(model))
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
        for leaf in leaves:
            leaf.grad = None

    return call
