"""Runs of a copy of a model, on meta or a device."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neuroconv.core.arguments import Rule
from neuroconv.core.checks import out_of_memory
from neuroconv.core.counting import counting
from neuroconv.flops.calls import tensors_of
from neuroconv.flops.copies import Copies, copy_tensor
from neuroconv.flops.inputs import Inputs

Device = Annotated[Any, Rule("a device", lambda name: isinstance(name, str | torch.device))]


def find_device(name: Device) -> torch.device:
    """Returns a device; a ValueError if it is unknown or missing."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("meta", "cpu", "cuda"):
        raise ValueError(f"device={name!r}; expected 'meta', 'cpu' or 'cuda'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}, but no CUDA device is available; use 'meta' or 'cpu'")
    return device


class OutOfMemory(ValueError):
    """A run that the device's memory does not suffice for."""


@contextmanager
def explained(inputs: Inputs, device: Device) -> Iterator[None]:
    """Converts an error of a run to a ValueError that names the inputs, with a remedy."""
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        reason = f"with inputs ({inputs!s:.300}) failed: {type(error).__name__}: {error}"
        if out_of_memory(error):
            raise OutOfMemory(
                f"out of memory on {device}: a run {reason:.400}; lower the batch, or count on "
                "meta, without fvcore and times"
            ) from error
        if "overflow" in str(error):
            reason += ". A tensor would take 2^63 bytes or more: count a smaller batch"
        elif "does not require grad" in str(error):
            reason += (
                ". A forward pass that differentiates needs gradients, which are off while it is "
                "counted alone: differentiate under torch.enable_grad(), or count backward=True"
            )
        elif str(device) == "meta" and (isinstance(error, RuntimeError) or "meta" in str(error)):
            reason += (
                ". If the model reads values (item(), a branch on data) or holds tensors that are "
                "neither parameters nor buffers, use device='cpu'"
            )
        raise ValueError(f"the run on {device!r} {reason}") from error


@contextmanager
def meta_copy(
    model: nn.Module, inputs: Inputs, device: str, *, training: bool = False, backward: bool = False
) -> Iterator[tuple[nn.Module, Inputs]]:
    """Yields copies of the model (see `Copies`) and of the inputs on `device`; operators record
    gradients for a backward pass alone.

    The model itself is not touched: it may run in another thread meanwhile. Global, and restored on
    leaving, are the state of the random generators, so that another thread draws twice what it
    draws meanwhile, and whether attention in inference may take its fused path.

    Raises:
        ValueError: a device that is missing, a model on meta that is to run on another device, a
            model of lazy or scripted modules, which cannot be copied; or an error of the run, with
            the inputs named.
    """
    target = find_device(device)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
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

    plain_random, numpy_random = random.getstate(), np.random.get_state()  # noqa: NPY002
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    try:
        with (
            explained(inputs, device),
            counting(),
            torch.inference_mode(False),  # in it tensors have no gradient, operators no parts
            torch.random.fork_rng(devices=[target] if target.type == "cuda" else []),
        ):
            copies = Copies(model, target)
            for module in copies.model.modules():
                module.training = training
            # The fused attention path of inference is one operator, opaque to every counter.
            torch.backends.mha.set_fastpath_enabled(False)
            arguments = inputs.map(lambda tensor: copy_tensor(tensor, target))
            with torch.set_grad_enabled(backward):
                yield copies.model, arguments
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        random.setstate(plain_random)
        np.random.set_state(numpy_random)  # noqa: NPY002


def require_grad(outputs: Any) -> list[Tensor]:
    """Returns the output tensors that require a gradient; a ValueError if none does."""
    tensors = [tensor for tensor in tensors_of(outputs) if tensor.requires_grad]
    if not tensors:
        raise ValueError("backward=True, but no output requires a gradient; is all frozen?")
    return tensors
