"""Functions and streams as modules, for the tests of what counts modules."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from neuroconv.neurons import NeuronState


class Call(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


class Resumed(nn.Module):
    """A stream from a state, as a module that the counter can call."""

    def __init__(self, neurons: Any) -> None:
        super().__init__()
        self.neurons = neurons

    def forward(self, x: Tensor, sheet: Tensor, current: Tensor) -> Tensor:
        return self.neurons.stream(x, NeuronState(sheet, current))[0]
