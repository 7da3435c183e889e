"""Activation checkpointing: stages are recomputed in the backward pass instead of saved."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from neuroconv.kernels.operator import is_traced


def recomputed(stage: Callable[..., Any], owner: nn.Module, *arguments: Any) -> Any:
    """Returns `stage(*arguments)`, saving only arguments and result for the backward pass.

    The backward pass runs the stage again with the same random draws. Running statistics of the
    owner's batch norms are updated by the first run only. Without gradients, and under a tracer or
    compiler, it is a plain call.
    """
    if is_traced() or not torch.is_grad_enabled():
        return stage(*arguments)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _statistics_at_rest(owner)

    return checkpoint(stage, *arguments, use_reentrant=False, context_fn=contexts)


def recomputed_stages(run: Callable[..., Any], owner: nn.Module, *arguments: Any) -> Any:
    """Returns `run(*arguments, call)`, recomputed in the backward pass, as are the stages that it
    runs by `call(stage, *inputs)`: only one stage's intermediate tensors are alive."""

    def call(stage: Callable[..., Any], *inputs: Any) -> Any:
        module = getattr(stage, "__self__", stage)
        if getattr(module, "kernel_stage", None) == "dendritic_conv":
            return stage(*inputs)  # saves only its input anyway
        return recomputed(stage, owner, *inputs)

    return recomputed(run, owner, *arguments, call)


@contextmanager
def _statistics_at_rest(owner: nn.Module) -> Iterator[None]:
    """Makes batch norms update copies of their running statistics inside the context.

    Copies, not a flag: autograd expects the second run to save tensors like those of the first.
    """
    norms = [module for module in owner.modules() if isinstance(module, _BatchNorm)]
    saved = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, saved, strict=True):
        for name, buffer in buffers.items():
            norm._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for norm, buffers in zip(norms, saved, strict=True):
            norm._buffers.update(buffers)
