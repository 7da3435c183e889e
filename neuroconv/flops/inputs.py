"""What a model is called with: tensors, nested in any containers, and their batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map_only

from neuroconv.core.arguments import checked
from neuroconv.flops.calls import tensors_of

Keywords = Mapping[str, Any] | None


@dataclass(frozen=True)
class Inputs:
    """The positional and keyword arguments of a model's call; `as_inputs` checks them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of the arguments, each once."""
        return list({id(t): t for t in tensors_of((self.args, self.kwargs))}.values())

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

        return Inputs(*tree_map_only(Tensor, replace, (self.args, self.kwargs)))

    def doubled(self) -> "Inputs":
        """Returns a batch twice as large: of every tensor whose first axis has its length."""
        batch = self.batch
        return self.map(lambda x: torch.cat([x, x]) if x.dim() and x.shape[0] == batch else x)

    def call(self, model: nn.Module) -> Any:
        return model(*self.args, **self.kwargs)

    def __str__(self) -> str:
        words = []
        for path, leaf in tree_flatten_with_path((self.args, self.kwargs))[0]:
            if isinstance(leaf, Tensor):
                leaf = f"{str(leaf.dtype).removeprefix('torch.')}{[*leaf.shape]}"
            is_argument = len(path) == 2 and keystr(path[:1]) == "[0]"
            words.append(f"{leaf}" if is_argument else f"{keystr(path[1:])} {leaf}")
        return ", ".join(words)


@checked
def as_inputs(inputs: Any, kwargs: Keywords = None) -> Inputs:
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
                raise TypeError(
                    f"{name}{keystr(path)} is a {type(leaf).__name__}, {leaf!r:.60}; expected "
                    "tensors, None and numbers, nested in tuples, lists and dictionaries (register "
                    "other containers of yours: torch.export.register_dataclass)"
                )
    shapes = [tuple(tensor.shape) for tensor in result.tensors]
    if not shapes:
        contents = f"inputs={inputs!r:.60} and kwargs={kwargs!r:.60} hold no tensor"
        raise TypeError(f"{contents}; expected at least one, with the batch as its first axis")
    if not (shape := next(filter(None, shapes), ())) or shape[0] == 0:
        raise ValueError(
            "the first tensor of inputs must have the batch as its first axis, with at least one "
            f"sample; got shape {shape}. Give a batch of one: x.unsqueeze(0)"
        )
    return result
