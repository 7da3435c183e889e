"""Batch norms over the images of all processes (B batch, C channels)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuroconv.core.modules import copy_hooks
from neuroconv.layers.step_norm import StepBatchNorm, batch_normalised
from neuroconv.training.distributed import Ranks, is_sharded


class SharedBatchNorm(_BatchNorm):
    """`nn.SyncBatchNorm` for the CPU, with the tensors of the batch norm that it replaces, and for
    `StepBatchNorm` on any device.

    Shape:
        (B, C, ...) -> the same; B may differ between processes
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features)
        self.__dict__.update(norm.__dict__)  # settings, parameters and buffers
        # A graph cannot hold the exchange between processes. A decorator would load the compiler.
        self.forward = torch.compiler.disable(self.forward)  # type: ignore[method-assign]

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts all inputs: the norm that it replaces has accepted them."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        # In float64 the mean and the variance do not depend on how the batch is split.
        return batch_normalised(self, input, _sum, torch.float64)


class _SumOfProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, each of which receives its gradient."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _sum(grad)


_sum: Callable[[Tensor], Tensor] = _SumOfProcesses.apply


@contextmanager
def synchronised_norms(model: nn.Module, ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Replaces a model's batch norms by ones over all processes, with the same tensors."""
    if ranks.size == 1:
        yield
        return

    def convert(norm: _BatchNorm) -> Any:
        # Torch's has no steps, and parameters of its own, which `fully_shard` would not find.
        torchs = not (isinstance(norm, StepBatchNorm) or is_sharded(model))
        if device.type == "cuda" and torchs:
            synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
            copy_hooks(norm, synchronised)
            return synchronised
        return SharedBatchNorm(norm)

    norms = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm)
    ]
    synchronised = {child: convert(child) for *_, child in norms}  # a shared one, once
    for parent, name, child in norms:
        parent._modules[name] = synchronised[child]
    try:
        yield
    finally:
        for parent, name, child in norms:
            parent._modules[name] = child.train(synchronised[child].training)
