"""A function as a module, for the tests of what counts modules."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Call(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)
