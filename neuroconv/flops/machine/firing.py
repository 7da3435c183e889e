"""The share of activity: how many inputs and outputs of a population are not zero.

`neuroconv.flops.energy` needs it to set an event-driven run beside a dense one.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from neuroconv.flops.calls import tensors_of
from neuroconv.flops.meta_copy import as_inputs, meta_copy


@dataclass(frozen=True)
class ActiveShares:
    """The shares of a module's input and output elements that are not zero, and how many there are.

    Elements are counted over axons, steps and samples.
    """

    inputs: float
    outputs: float
    input_elements: int
    output_elements: int

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, by the keys of the file format."""
        return {
            "heard": self.inputs,
            "fired": self.outputs,
            "heard_elements": self.input_elements,
            "fired_elements": self.output_elements,
        }


def firing_shares(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], device: str = "cpu"
) -> dict[str, ActiveShares]:
    """Measures the active share of every population's inputs and outputs, in one run in eval mode.

    Populations are the outermost modules that hold parameters and state their own cost (a method
    `closed_form`). Plain linear layers and convolutions outside them are measured too: a rectified
    network is sparse as well. Their outputs are pre-activation and almost never zero, so that only
    their input sparsity is meaningful.

    Args:
        model: any module; it is left untouched.
        inputs: what it is called with, the batch first; real data, since zeros decide.
        device: "cpu" or "cuda".

    Returns:
        The shares of those that ran, by module path ("" is the model itself).

    Raises:
        ValueError: the device is "meta", which holds no values, or is missing.
    """
    if torch.device(device).type == "meta":
        raise ValueError("device='meta' holds no values to tell zeros by; use 'cpu' or 'cuda'")
    populations = _populations(model)
    totals = {path: [0, 0, 0, 0] for path in populations}

    def count(path: str, arguments: Any, result: Any) -> None:
        for side, values in enumerate((arguments, result)):
            for tensor in tensors_of(values):
                totals[path][side] += int(torch.count_nonzero(tensor))
                totals[path][2 + side] += tensor.numel()

    with meta_copy(model, as_inputs(inputs), device) as items, torch.no_grad():
        for path, module in populations.items():
            module.register_forward_hook(  # `meta_copy` removes it
                lambda _, args, kwargs, result, path=path: count(path, (args, kwargs), result),
                with_kwargs=True,
            )
        model(*items)
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
