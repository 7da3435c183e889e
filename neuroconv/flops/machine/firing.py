"""The share of activity: how many inputs and outputs of a population are not zero.

`neuroconv.flops.energy` needs it to set an event-driven run beside a dense one.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from neuroconv.flops.machine.memory import tensors_in
from neuroconv.flops.meta_copy import as_inputs, meta_copy


@dataclass(frozen=True)
class ActiveShares:
    """The active share of a module's inputs and outputs.

    Attributes:
        inputs: share of its inputs' elements (axons, steps, samples) that are not zero.
        outputs: share of its outputs' elements that are not zero.
        input_elements, output_elements: how many elements these are shares of.
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
    network is sparse as well, and a comparison must not deny it that. Their outputs are
    pre-activation and almost never zero, so that only their input sparsity is meaningful.

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
    active, elements = Counter[tuple[str, str]](), Counter[tuple[str, str]]()

    def count(path: str, **values: Any) -> None:
        for side, tensors in values.items():
            for tensor in tensors_in(tensors):
                active[path, side] += int(torch.count_nonzero(tensor))
                elements[path, side] += tensor.numel()

    with meta_copy(model, as_inputs(inputs), device) as items, torch.no_grad():
        paths = []
        for path, module in _populations(model):
            paths.append(path)
            module.register_forward_hook(  # `meta_copy` removes it
                lambda _, args, kwargs, result, path=path: count(
                    path, inputs=(args, kwargs), outputs=result
                ),
                with_kwargs=True,
            )
        model(*items)

    def share(path: str, side: str) -> float:
        return active[path, side] / max(1, elements[path, side])

    return {
        path: ActiveShares(
            share(path, "inputs"), share(path, "outputs"),
            elements[path, "inputs"], elements[path, "outputs"],
        )
        for path in paths
        if elements[path, "outputs"]
    }  # fmt: skip


def _populations(model: nn.Module) -> list[tuple[str, nn.Module]]:
    outermost: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules():
        inside = any(not outer or path.startswith(f"{outer}.") for outer, _ in outermost)
        stated = hasattr(module, "closed_form") and any(True for _ in module.parameters())
        if not inside and (stated or isinstance(module, nn.Linear | _ConvNd)):
            outermost.append((path, module))
    return outermost
