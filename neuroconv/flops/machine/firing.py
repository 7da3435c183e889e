"""The shares of a population's inputs and outputs that are not zero, for event-driven energy."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from neuroconv.core.arguments import checked
from neuroconv.flops.calls import tensors_of
from neuroconv.flops.control_flow import eagerly
from neuroconv.flops.inputs import Keywords, as_inputs
from neuroconv.flops.meta_copy import Device, find_device, meta_copy


@dataclass(frozen=True)
class ActiveShares:
    """The nonzero shares of a module's elements (axons x steps x samples), and their numbers."""

    inputs: float
    outputs: float
    input_elements: int
    output_elements: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "heard": self.inputs,
            "fired": self.outputs,
            "heard_elements": self.input_elements,
            "fired_elements": self.output_elements,
        }


@checked
def firing_shares(
    model: nn.Module, inputs: Any, device: Device = "cpu", *, kwargs: Keywords = None
) -> dict[str, ActiveShares]:
    """Measures the active share of every population's inputs and outputs, in one run in eval mode.

    Populations are the outermost modules that hold parameters and state their own cost (a method
    `closed_form`). Plain linear layers and convolutions outside them are measured too. Their
    outputs are pre-activation and almost never zero: only their input sparsity is meaningful.

    Args:
        model: any module; it is left untouched.
        inputs, kwargs: its arguments; see `as_inputs`. Real data, since the shares depend on its
            zeros.
        device: "cpu" or "cuda".

    Returns:
        The shares of those that ran, by module path ("" is the model itself).

    Raises:
        ValueError: the device or an input is on meta, which holds no values, or is missing.
    """
    items = as_inputs(inputs, kwargs)
    if find_device(device).type == "meta" or any(tensor.is_meta for tensor in items.tensors):
        raise ValueError(
            f"device={device!r} with inputs ({items}): meta tensors hold no values to tell zeros "
            "by; give real ones, and 'cpu' or 'cuda'"
        )
    totals: dict[str, list[int]] = {}

    def count(path: str, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        for side, values in enumerate(((args, kwargs), result)):
            for tensor in tensors_of(values):
                totals[path][side] += int(torch.count_nonzero(tensor))
                totals[path][2 + side] += tensor.numel()

    with meta_copy(model, items, device) as (copied, arguments), eagerly():
        for path, module in _populations(copied).items():
            totals[path] = [0, 0, 0, 0]
            module.register_forward_hook(partial(count, path), with_kwargs=True)
        arguments.call(copied)
    return {
        path: ActiveShares(active_in / max(1, size_in), active_out / size_out, size_in, size_out)
        for path, (active_in, active_out, size_in, size_out) in totals.items()
        if size_out
    }


def _populations(model: nn.Module) -> dict[str, nn.Module]:
    outermost: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        inside = any(not outer or path.startswith(f"{outer}.") for outer in outermost)
        stated = hasattr(module, "closed_form") and any(True for _ in module.parameters())
        if not inside and (stated or isinstance(module, nn.Linear | _ConvNd)):
            outermost[path] = module
    return outermost
