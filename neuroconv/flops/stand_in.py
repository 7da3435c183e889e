"""Run a model on stand-in tensors, and leave the model as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


def as_inputs(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The model's inputs as a tuple of tensors whose first axis is the batch."""
    items = (inputs,) if isinstance(inputs, Tensor) else inputs
    if not isinstance(items, tuple) or not all(isinstance(item, Tensor) for item in items):
        raise TypeError(f"inputs must be a tensor or a tuple of tensors, got {type(inputs)!r}")
    if not items or items[0].dim() == 0 or items[0].shape[0] == 0:
        shape = tuple(items[0].shape) if items else None
        raise ValueError(
            f"the first input must have the batch as its first axis, with at least one sample; "
            f"got shape {shape}. Give a batch of one: x.unsqueeze(0)"
        )
    return items


def _like(tensor: Tensor, device: torch.device, *, copy: bool) -> Tensor:
    if device.type == "meta":
        other = torch.empty_like(tensor, device=device, requires_grad=False)
    elif tensor.is_meta:  # what an input holds does not change a count, but an operator needs data
        other = torch.zeros_like(tensor, device=device, requires_grad=False)
    else:
        other = tensor.detach().to(device, copy=copy)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(other, requires_grad=tensor.requires_grad)
    return other.requires_grad_(tensor.requires_grad)


@contextmanager
def stand_in(
    model: nn.Module, inputs: tuple[Tensor, ...], device: str, *, training: bool = False
) -> Iterator[tuple[Tensor, ...]]:
    """Inside, the model holds other tensors on `device`, and the context is the inputs there.

    On "meta" nothing is copied and nothing takes memory. Elsewhere parameters are shared where they
    already lie on the device, buffers and inputs copied. On leaving, everything the run may have
    moved is back: parameters, buffers, training flags, cached attributes, random-number state.
    """
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but no CUDA device is available")
    if place.type != "meta" and any(t.is_meta for t in (*model.parameters(), *model.buffers())):
        raise ValueError(f"the model is on meta and cannot run on {device!r}; use device='meta'")

    others: dict[int, Tensor] = {}  # by identity, so that tied weights stay tied

    def other(tensor: Tensor | None, *, copy: bool) -> Tensor | None:
        if tensor is None:
            return None
        if id(tensor) not in others:
            others[id(tensor)] = _like(tensor, place, copy=copy)
        return others[id(tensor)]

    saved = [(module, dict(module.__dict__)) for module in model.modules()]
    held = [value for _, attributes in saved for value in attributes.values()]
    generators = {
        generator: generator.get_state()
        for generator in held
        if isinstance(generator, torch.Generator)
    }
    # The global generators too: a model may draw from them.
    plain_random, numpy_random = random.getstate(), np.random.get_state()  # noqa: NPY002
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    try:
        for module, attributes in saved:
            module.__dict__["training"] = training
            for table, held in attributes.items():
                if "_hooks" in table and isinstance(held, dict):
                    module.__dict__[table] = held.copy()  # a failed trace leaves its own
            for table, copy in (("_parameters", False), ("_buffers", True)):
                module.__dict__[table] = {
                    key: other(tensor, copy=copy) for key, tensor in attributes[table].items()
                }
            if isinstance(module, nn.RNNBase):  # it keeps a second list of its weights
                names = module._flat_weights_names
                module.__dict__["_flat_weights"] = [getattr(module, name) for name in names]
        # The fused attention path of inference is one operator whose inside no counter sees.
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            yield tuple(_like(item, place, copy=True) for item in inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        random.setstate(plain_random)
        np.random.set_state(numpy_random)  # noqa: NPY002
        for generator, state in generators.items():
            generator.set_state(state)
        for module, attributes in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)


@contextmanager
def explained(device: str) -> Iterator[None]:
    """On meta tensors, turn what a model raises into a ValueError that names the way out."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        if device != "meta":
            raise
        raise ValueError(
            f"the model did not run on meta tensors ({error}). If it reads values (item(), a "
            "branch on data) or holds tensors that are neither parameters nor buffers, "
            "use device='cpu'"
        ) from error
