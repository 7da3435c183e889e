"""Batch norms over the images of all processes, so that several train as one would.

Shapes: B batch, C channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from neuroconv.training.distributed import Ranks


class SharedBatchNorm(_BatchNorm):
    """A batch norm on the CPU with the statistics of the batches of all processes.

    `nn.SyncBatchNorm` does the same on CUDA and refuses the CPU. The parts may differ in size.
    It shares the tensors of the batch norm that it replaces, and evaluates as that one does.

    Shape:
        (B, C, ...) -> the same; B at least 1 in every process
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, False, False)
        self.affine, self.track_running_stats = norm.affine, norm.track_running_stats
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts all inputs: the norm that it replaces has accepted them."""

    # A graph cannot hold the exchange between processes.
    @torch.compiler.disable(recursive=True)
    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        half = input.dtype in (torch.bfloat16, torch.float16)
        ones = torch.ones(self.num_features, dtype=torch.float32 if half else input.dtype)
        weight, bias = (ones, 0 * ones) if self.weight is None else (self.weight, self.bias)
        output, mean, var, count = _Normalise.apply(input, weight, bias, self.eps)
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = self.momentum
            if share is None:
                share = 1 / float(self.num_batches_tracked)
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
                unbiased = var * (count / (count - 1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
        return output


class _Normalise(torch.autograd.Function):
    """(x, weight, bias, eps) -> (normalised x, mean (C,), biased variance (C,), values of each)."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, weight, bias, eps = inputs
        mean, var = torch.batch_norm_update_stats(x.to(weight.dtype), None, None, 0.0)
        local = torch.stack([mean, var, torch.full_like(mean, x.numel() // x.shape[1])])
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local)
        # In float64, and in the order of the ranks: everywhere the same to the bit.
        means, variances, counts = torch.stack(parts, 1).double()
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        total, mean, var = count[0], mean.to(local.dtype), var.to(local.dtype)
        ctx.save_for_backward(x, weight, mean, var, total)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var, total)
        return F.batch_norm(x, mean, var, weight, bias, eps=eps), mean, var, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, total = ctx.saved_tensors
        # First with the statistics as constants, then their own dependence on x, which all
        # processes share.
        direct, weight_grad, bias_grad = torch.ops.aten.native_batch_norm_backward(
            gradients[0].contiguous(), x, weight, mean, var, None, None, False, ctx.eps,
            [True, True, True],
        )  # fmt: skip
        sums = torch.stack([weight_grad, bias_grad])
        dist.all_reduce(sums)
        scale = weight * (var + ctx.eps).rsqrt()
        slope, offset = sums.to(mean.dtype) * scale / total.to(mean.dtype)
        through_statistics = F.batch_norm(x, mean, var, slope, offset, eps=ctx.eps)
        return direct - through_statistics, weight_grad, bias_grad, None


@contextmanager
def synchronised_norms(model: nn.Module, ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Replaces a model's batch norms by ones that see the images of all processes.

    They share their tensors, so that the model's state and its names stay as they are; the model
    gets its own norms back at the end.
    """
    if ranks.size == 1:
        yield
        return
    convert = nn.SyncBatchNorm.convert_sync_batchnorm if device.type == "cuda" else SharedBatchNorm
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
