"""Modules of anyone's network: copies of them, and their place in graphs of `torch.fx`."""

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer
from torch.utils._pytree import tree_leaves

Model = TypeVar("Model", bound=nn.Module)


def copy_module(model: Model) -> Model:
    """Returns a deep copy, also of modules that keep tensors with a graph.

    `copy.deepcopy` refuses those, such as outputs of an earlier call, or the weight that a pruned
    or weight-normed module computes, which its copy computes again at the next call.

    Raises:
        ValueError: a buffer of a lazy module has no shape yet.
    """
    for name, buffer in model.named_buffers():
        if isinstance(buffer, UninitializedBuffer):
            raise ValueError(f"buffer {name!r} has no shape yet; call the model on a sample before")
    attributes = [value for module in model.modules() for value in tree_leaves(vars(module))]
    computed = [x for x in attributes if isinstance(x, Tensor) and not x.is_leaf]
    with torch.no_grad():  # copies of scripted modules would keep a graph
        return copy.deepcopy(model, {id(x): x.detach().clone() for x in computed})


def copy_hooks(source: nn.Module, target: nn.Module) -> None:
    """Gives a module the hooks of another, of calls, gradients and the state_dict."""
    vars(target).update({name: value for name, value in vars(source).items() if "_hook" in name})


def become(module: nn.Module, other: nn.Module) -> None:
    """Turns a module into another in place, so that all that refer to it have the other.

    Replacing it in its parents would miss those that hold it in a list, a dict or a closure.
    """
    vars(module).clear()
    vars(module).update(vars(other))
    module.__class__ = type(other)


def graph_leaf(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Makes a module with this forward one node in graphs of `torch.fx`, as those of torch.nn are.

    Its decisions depend on shapes, which a tracer does not know.
    """

    @wraps(forward)
    def traced(self: Any, x: Tensor) -> Tensor:
        if not isinstance(x, torch.fx.Proxy):
            return forward(self, x)
        path = x.tracer.path_of_module(self)
        if not path:
            raise TypeError(
                f"{type(self).__name__} is a single node in graphs of torch.fx; trace a module "
                "that holds it, such as nn.Sequential(layer)"
            )
        return x.tracer.create_proxy("call_module", path, (x,), {})

    return traced
