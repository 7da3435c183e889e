"""Which share of its axons a population hears and fires.

What `neuroconv.flops.energy` needs to set an event-driven run beside a dense one.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from neuroconv.flops.machine.memory import tensors_in
from neuroconv.flops.meta_copy import as_inputs, meta_copy


@dataclass(frozen=True)
class ActiveShares:
    """How much of what a module hears and says is not zero.

    Attributes:
        heard: share of its inputs' elements (axons, steps, samples) that are not zero.
        fired: share of its outputs' elements that are not zero.
        heard_elements, fired_elements: how many elements these are shares of.
    """

    heard: float
    fired: float
    heard_elements: int
    fired_elements: int


class _Activity:
    """Counts the non-zero elements of one module's calls."""

    def __init__(self) -> None:
        self.heard = self.heard_elements = self.fired = self.fired_elements = 0

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        for tensor in tensors_in((args, kwargs)):
            self.heard += int(torch.count_nonzero(tensor))
            self.heard_elements += tensor.numel()
        for tensor in tensors_in(result):
            self.fired += int(torch.count_nonzero(tensor))
            self.fired_elements += tensor.numel()

    def shares(self) -> ActiveShares:
        return ActiveShares(
            heard=self.heard / max(1, self.heard_elements),
            fired=self.fired / max(1, self.fired_elements),
            heard_elements=self.heard_elements,
            fired_elements=self.fired_elements,
        )


def firing_shares(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], device: str = "cpu"
) -> dict[str, ActiveShares]:
    """Measure which share of its axons every population hears and fires, in one run in eval mode.

    Populations are the outermost modules that hold parameters and state their own cost (a method
    `closed_form`). Plain linear layers and convolutions outside them are measured too: a rectified
    network is sparse as well, and a comparison must not deny it that. What such a layer returns has
    not met its rectifier and is hardly ever zero: of those it is what they hear that matters.

    Args:
        model: any module; it is left untouched.
        inputs: what it is called with, the batch first; real data, since zeros decide.
        device: "cpu" or "cuda".

    Returns:
        by module path ("" is the model itself), those that ran.

    Raises:
        ValueError: the device is "meta", which holds no values, or is missing.
    """
    if torch.device(device).type == "meta":
        raise ValueError("device='meta' holds no values to tell zeros by; use 'cpu' or 'cuda'")
    counts: dict[str, _Activity] = {}
    with meta_copy(model, as_inputs(inputs), device) as items, torch.no_grad():
        for path, module in _populations(model):
            counts[path] = _Activity()
            # `meta_copy` takes the hooks away again.
            module.register_forward_hook(counts[path], with_kwargs=True)
        model(*items)
    return {path: count.shares() for path, count in counts.items() if count.fired_elements}


def _populations(model: nn.Module) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules():
        inside = any(not outer or path.startswith(f"{outer}.") for outer, _ in found)
        stated = hasattr(module, "closed_form") and any(True for _ in module.parameters())
        if not inside and (stated or isinstance(module, nn.Linear | _ConvNd)):
            found.append((path, module))
    return found
