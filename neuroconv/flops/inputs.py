"""What a model is called with: tensors, nested in any containers, and their batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map_only

from neuroconv.core.arguments import checked

_EXPECTED = (
    "expected tensors, None and numbers, nested in tuples, lists and dictionaries (register other "
    "containers of yours: torch.export.register_dataclass)"
)


@dataclass(frozen=True)
class Inputs:
    """The arguments of a model's call; `as_inputs` checks them.

    Attributes:
        args, kwargs: positional and keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of the arguments, each once."""
        leaves = tree_flatten_with_path((self.args, dict(self.kwargs)))[0]
        return list({id(leaf): leaf for _, leaf in leaves if isinstance(leaf, Tensor)}.values())

    @property
    def first(self) -> Tensor:
        """The first tensor that has an axis: that axis is the batch."""
        return next(tensor for tensor in self.tensors if tensor.dim())

    @property
    def batch(self) -> int:
        return self.first.shape[0]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Inputs":
        """Replaces every tensor; one that is passed twice remains one."""
        results: dict[int, Tensor] = {}

        def replace(tensor: Tensor) -> Tensor:
            if id(tensor) not in results:
                results[id(tensor)] = function(tensor)
            return results[id(tensor)]

        args, kwargs = tree_map_only(Tensor, replace, (self.args, dict(self.kwargs)))
        return Inputs(args, kwargs)

    def doubled(self) -> "Inputs":
        """Returns a batch twice as large: of every tensor whose first axis has its length."""
        batch = self.batch
        return self.map(lambda x: torch.cat([x, x]) if x.dim() and x.shape[0] == batch else x)

    def call(self, model: nn.Module) -> Any:
        return model(*self.args, **self.kwargs)

    def __str__(self) -> str:
        def described(tensor: Tensor) -> str:
            return f"{str(tensor.dtype).removeprefix('torch.')}{[*tensor.shape]}"

        args, kwargs = tree_map_only(Tensor, described, (self.args, dict(self.kwargs)))
        words = [*map(str, args), *(f"{name}={value}" for name, value in kwargs.items())]
        return ", ".join(words)


@checked
def as_inputs(inputs: Any, kwargs: Mapping[str, Any] | None = None) -> Inputs:
    """Returns the arguments of a model's call, checked.

    Args:
        inputs: a tuple is the positional arguments; anything else, a list and a dictionary too, is
            the only one. An argument is a tensor, None, a number, or any nesting of these in
            tuples, lists and dictionaries. The first tensor's first axis is the batch.
        kwargs: keyword arguments.

    Raises:
        TypeError: something else among them, which the message names, or no tensor.
        ValueError: no batch, or an empty one.
    """
    if isinstance(inputs, Inputs):
        return inputs
    result = Inputs(inputs if type(inputs) is tuple else (inputs,), dict(kwargs or {}))
    for name, values in (("inputs", inputs), ("kwargs", result.kwargs)):
        for path, leaf in tree_flatten_with_path(values)[0]:
            if not isinstance(leaf, Tensor | Number | None):
                kind = f"{name}{keystr(path)} is a {type(leaf).__name__}"
                raise TypeError(f"{kind}, {leaf!r:.60}; {_EXPECTED}")
    tensors = result.tensors
    if not tensors:
        contents = f"inputs={inputs!r:.60} and kwargs={kwargs!r:.60} hold no tensor"
        raise TypeError(f"{contents}; expected at least one, with the batch as its first axis")
    shape = next((tuple(tensor.shape) for tensor in tensors if tensor.dim()), ())
    if not shape or shape[0] == 0:
        raise ValueError(
            f"the first tensor of inputs must have the batch as its first axis, with at least one "
            f"sample; got shape {shape}. Give a batch of one: x.unsqueeze(0)"
        )
    return result
