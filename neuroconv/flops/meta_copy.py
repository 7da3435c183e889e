"""Runs of a model on copies of its tensors, on meta or a device, which leave it as it was."""

import copy
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neuroconv.core.counting import counting
from neuroconv.flops.calls import tensors_of
from neuroconv.flops.inputs import Inputs


def _like(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "meta":
        duplicate = torch.empty_like(tensor, device=device, requires_grad=False)
    elif tensor.is_meta:  # values do not change a count, but an operator needs some
        duplicate = torch.zeros_like(tensor, device=device, requires_grad=False)
    else:
        duplicate = tensor.detach().to(device, copy=True)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(duplicate, requires_grad=tensor.requires_grad)
    return duplicate.requires_grad_(tensor.requires_grad)


class _Copies:
    """Copies of modules' attributes, one for each object; `registered` tensors go to `device`."""

    def __init__(self, registered: list[Tensor], device: torch.device) -> None:
        self._registered = {id(tensor) for tensor in registered}
        self._device = device
        self._copies: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """Returns a copy; the original of a module, a function or an object of another class."""
        if id(value) not in self._copies:
            copied = self._copies[id(value)] = self._shell(value)
            # Its items follow once it is registered: it may contain itself.
            if copied is not value and isinstance(value, list | deque | dict):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                for key, item in items:
                    copied[key] = self.of(item)
        return self._copies[id(value)]

    def _shell(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return _like(value, self._device if id(value) in self._registered else value.device)
        if isinstance(value, torch.Generator):
            generator = torch.Generator(value.device)
            generator.set_state(value.get_state())
            return generator
        if isinstance(value, random.Random | np.random.Generator | np.random.RandomState):
            return copy.deepcopy(value)
        if type(value) is tuple:
            return tuple(map(self.of, value))
        if type(value) in (list, set, deque, dict, OrderedDict, defaultdict, Counter):
            return copy.copy(value)
        return value


@contextmanager
def meta_copy(
    model: nn.Module, inputs: Inputs, device: str, *, training: bool = False
) -> Iterator[Inputs]:
    """Replaces the model's tensors by copies on `device`, and yields the inputs there.

    What the model does to parameters, buffers, submodules, hooks, flags, generators and to lists,
    dictionaries and tensors that are plain attributes is undone on leaving; to other objects not.

    Raises:
        ValueError: a device that is missing, a model on meta that is to run on another device, or a
            model of lazy or scripted modules, whose tensors cannot be replaced.
    """
    target = torch.device(device)
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but no CUDA device is available")
    registered: list[Tensor] = [*model.parameters(), *model.buffers()]
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{path or 'the model'} is a scripted module, which holds its tensors out of "
                "reach; use the nn.Module that it was made from"
            )
    if any(map(is_lazy, registered)):
        raise ValueError("lazy modules have no shapes yet; call it once on an input first")
    if target.type != "meta" and any(tensor.is_meta for tensor in registered):
        raise ValueError(f"the model is on meta and cannot run on {device!r}; use device='meta'")

    saved = [(module, dict(module.__dict__)) for module in model.modules()]
    plain_random, numpy_random = random.getstate(), np.random.get_state()  # noqa: NPY002
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    try:
        with (
            counting(),
            torch.inference_mode(False),  # in it tensors have no gradient, operators no parts
            torch.random.fork_rng(devices=[target] if target.type == "cuda" else []),
        ):
            copies = _Copies(registered, target)
            for module, attributes in saved:
                copied = {name: copies.of(value) for name, value in attributes.items()}
                module.__dict__.update(copied | {"training": training})
            # The fused attention path of inference is one operator, opaque to every counter.
            torch.backends.mha.set_fastpath_enabled(False)
            yield inputs.map(lambda tensor: _like(tensor, target))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        random.setstate(plain_random)
        np.random.set_state(numpy_random)  # noqa: NPY002
        for module, attributes in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)


def require_grad(outputs: Any) -> list[Tensor]:
    """Returns the output tensors that require a gradient; a ValueError if none does."""
    tensors = [tensor for tensor in tensors_of(outputs) if tensor.requires_grad]
    if not tensors:
        raise ValueError("backward=True, but no output requires a gradient; is all frozen?")
    return tensors


def eagerly() -> AbstractContextManager[object]:
    """Runs compiled models operator by operator; fused, their operators could not be counted."""
    if "torch._dynamo" in sys.modules:  # else nothing is compiled, and the import takes seconds
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


@contextmanager
def explained(inputs: Inputs, device: str) -> Iterator[None]:
    """Converts an error of a run to a ValueError that names the inputs, and a remedy on meta.

    An allocator's error passes as it is.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = f"the run on {device!r} with inputs ({inputs}) failed: "
        reason += f"{type(error).__name__}: {error}"
        if device == "meta" and isinstance(error, RuntimeError):
            reason += (
                ". If the model reads values (item(), a branch on data) or holds tensors that are "
                "neither parameters nor buffers, use device='cpu'"
            )
        raise ValueError(reason) from error


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an allocator raised it: torch's on the CPU says so in words alone."""
    words = ("not enough memory", "DefaultCPUAllocator", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in words)
    )
