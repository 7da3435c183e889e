"""Memory traffic: bytes that operators read, write and save for the backward pass; the peak.

Tensors are counted, so that meta gives the figures of a device that computes; but in evaluation a
batch norm returns two statistics for each channel on meta, and none on the CPU. A convolution's
workspace, an allocator's rounding and a cache that spares a read are not seen. Kernels of this
package count as their implementations in torch's operators, which hold one block of samples or
neurons at a time, as on the CPU; the C++ kernels hold less.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import checked
from neuroconv.flops.control_flow import eagerly
from neuroconv.flops.exact import OperatorCounter
from neuroconv.flops.inputs import Keywords, as_inputs
from neuroconv.flops.machine.memory import (
    MemoryTracker,
    PassTraffic,
    storage_bytes,
    storage_key,
    stored_bytes,
)
from neuroconv.flops.meta_copy import Device, find_device, meta_copy, require_grad
from neuroconv.flops.origins import refuse_foreign, remember


@dataclass(frozen=True)
class Traffic:
    """Memory of one run of a model, for the whole batch.

    Attributes:
        parameter_bytes, buffer_bytes: of what the model holds; tied tensors once.
        backward: None if it did not run. The outputs and their gradients stay alive during it.
        saved_elements, saved_bytes: what operators made and autograd kept for the backward pass,
            each storage once; None without a backward pass.
        saved_parameter_bytes, saved_input_bytes: parameters with buffers, and inputs, kept for it.
    """

    device: str
    parameter_bytes: int
    buffer_bytes: int
    input_bytes: int
    output_bytes: int
    forward: PassTraffic
    backward: PassTraffic | None = None
    saved_elements: int | None = None
    saved_bytes: int | None = None
    saved_parameter_bytes: int | None = None
    saved_input_bytes: int | None = None

    @property
    def _passes(self) -> tuple[PassTraffic, ...]:
        return (self.forward,) if self.backward is None else (self.forward, self.backward)

    @property
    def moved_bytes(self) -> int:
        return sum(traffic.moved_bytes for traffic in self._passes)

    @property
    def compulsory_bytes(self) -> int:
        return sum(traffic.compulsory_bytes for traffic in self._passes)

    @property
    def peak_bytes(self) -> int:
        return max(traffic.peak_bytes for traffic in self._passes)

    def to_dict(self) -> dict[str, Any]:
        totals = ("moved_bytes", "compulsory_bytes", "peak_bytes")
        return asdict(self) | {name: getattr(self, name) for name in totals}


class _Saved(torch.autograd.graph.saved_tensors_hooks):
    """The storages that autograd keeps for the backward pass."""

    def __init__(self) -> None:
        self.storages: dict[int, tuple[int, int]] = {}  # elements and bytes
        super().__init__(self._pack, lambda packed: packed)

    def _pack(self, tensor: Tensor) -> Tensor:
        size = tensor.untyped_storage().nbytes()
        self.storages[storage_key(tensor)] = (size // tensor.element_size(), size)
        return tensor.detach()  # an operator's own result, packed as it is, would hold itself

    def totals(self, parameters: Iterable[Tensor], inputs: Iterable[Tensor]) -> dict[str, int]:
        """Returns the sums by owner of the storage: an operator, a parameter, an input."""
        names = ("saved_elements", "saved_bytes", "saved_parameter_bytes", "saved_input_bytes")
        totals = dict.fromkeys(names, 0)
        parameter_keys, input_keys = ({*map(storage_key, t)} for t in (parameters, inputs))
        for key, (elements, size) in self.storages.items():
            if key in parameter_keys:
                totals["saved_parameter_bytes"] += size
            elif key in input_keys:
                totals["saved_input_bytes"] += size
            else:
                totals["saved_elements"] += elements
                totals["saved_bytes"] += size
        return totals


@checked
@refuse_foreign
def measure_traffic(
    model: nn.Module,
    inputs: Any,
    *,
    kwargs: Keywords = None,
    device: Device = "meta",
    backward: bool = False,
    training: bool = False,
    counter: OperatorCounter | None = None,
) -> Traffic:
    """Measures the bytes of one run, operator by operator.

    Args:
        model: any module; it is left untouched.
        inputs, kwargs: its arguments; see `as_inputs`.
        device: "meta" (no memory, no arithmetic), "cpu" or "cuda".
        backward: run the backward pass too, from a gradient of ones.
        training: run in training mode.
        counter: counts the FLOPs of the same run.

    Raises:
        ValueError: the model cannot run on meta tensors, a device is missing, or a backward pass of
            outputs that need none.
    """
    items = as_inputs(inputs, kwargs)
    tracker, saved = MemoryTracker(find_device(device).type), _Saved()
    copies = meta_copy(model, items, device, training=training, backward=backward)
    with copies as (copied, arguments), eagerly():
        parameters, buffers = list(copied.parameters()), list(copied.buffers())
        tensors = arguments.tensors
        for tensor in (*parameters, *buffers, *tensors):
            tracker.add_external(tensor)
        try:
            tracker.begin()
            counting = nullcontext() if counter is None else counter.tracking(copied)
            with counting, tracker, saved if backward else nullcontext():
                outputs = tracker.receive(arguments.call(copied))
            new = {storage_key(t): stored_bytes(t) for t in outputs if not tracker.is_external(t)}
            forward = tracker.end(sum(new.values()))
            rest: dict[str, Any] = {}
            if backward:
                rest["backward"] = _run_backward(tracker, counter, outputs, [*parameters, *tensors])
                rest |= saved.totals([*parameters, *buffers], tensors)
            return Traffic(
                device=device,
                parameter_bytes=storage_bytes(parameters),
                buffer_bytes=storage_bytes(buffers),
                input_bytes=storage_bytes(tensors),
                output_bytes=sum({storage_key(t): stored_bytes(t) for t in outputs}.values()),
                forward=forward,
                **rest,
            )
        finally:
            tracker.release()


def _run_backward(
    tracker: MemoryTracker, counter: OperatorCounter | None, result: Any, leaves: list[Tensor]
) -> PassTraffic:
    outputs = require_grad(result)
    seeds = [torch.ones_like(output) for output in outputs]
    remember(seeds)
    for seed in seeds:
        tracker.add_external(seed)
    tracker.begin()
    if counter is not None:
        counter.begin_backward()
    with counter or nullcontext(), tracker:
        torch.autograd.backward(outputs, seeds)
    gradients = {storage_key(leaf.grad): leaf.grad for leaf in leaves if leaf.grad is not None}
    return tracker.end(storage_bytes(gradients.values()))
