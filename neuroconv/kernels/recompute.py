"""Activation checkpointing: stages that run once more in the backward pass, and keep nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from neuroconv.kernels.operator import needs_reference


def recomputed(stage: Callable[..., Any], owner: nn.Module, *arguments: Any) -> Any:
    """`stage(*arguments)`, of which only arguments and result stay for the backward pass.

    The backward pass runs it again, with the draws that the first run made. Running statistics of
    the owner's batch norms move in the first run alone. Where no gradient is asked for, or a tracer
    or compiler looks on, it is the plain call.
    """
    traced = torch.compiler.is_compiling() or needs_reference()
    if traced or not torch.is_grad_enabled():
        return stage(*arguments)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _statistics_at_rest(owner)

    return checkpoint(stage, *arguments, use_reentrant=False, context_fn=contexts)


def recomputed_stages(run: Callable[..., Any], owner: nn.Module, *arguments: Any) -> Any:
    """`run(*arguments)` recomputed in the backward pass, and each stage in it once more by itself:
    so that what lies between the stages is there, and not all that was computed within them.

    Args:
        run: of (*arguments, call), where `call(stage, *inputs)` runs one stage.
        owner: whose batch norms the stages are.
    """

    def call(stage: Callable[..., Any], *inputs: Any) -> Any:
        module = getattr(stage, "__self__", stage)
        if getattr(module, "kernel_stage", None) == "dendritic_conv":
            return stage(*inputs)  # keeps no more than its input anyway
        return recomputed(stage, owner, *inputs)

    return recomputed(run, owner, *arguments, call)


@contextmanager
def _statistics_at_rest(owner: nn.Module) -> Iterator[None]:
    """Inside, batch norms update copies of their running statistics, which are then dropped.

    Copies, not a flag: autograd expects the second run to keep tensors like those of the first.
    """
    norms = [module for module in owner.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        for name, buffer in buffers.items():
            norm._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
