"""Backpropagation by autograd, as a rule: the ceiling of all others."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from neuroconv.learning.rule import Rule, register_rule


@register_rule
class Backprop(Rule):
    """The gradient of the loss through the whole network, by autograd: not local, the ceiling.

    Unlike the others it records a graph, and cannot run under `torch.inference_mode()`.
    """

    name = "backprop"

    def trained(self) -> Iterable[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def __call__(self, inputs: Tensor, targets: Tensor, weight: float = 1.0) -> Tensor:
        with torch.enable_grad():
            outputs = self.model(inputs)
            outputs.backward(self.error(outputs.detach(), targets) * (weight / len(outputs)))
        return outputs.detach()
