"""Batch normalisation that keeps time causal in training: each step has its own statistics.

Shapes: B batch, C channels (neurons, or dendrites of neurons), T time steps.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from neuroconv.core.arguments import Positive, Share, Size, checked
from neuroconv.core.checks import check_floats
from neuroconv.core.layout import along_axis


@checked
class StepBatchNorm(_BatchNorm):
    """Batch norm whose statistics in training are those of the batch at each time step.

    `nn.BatchNorm1d` and its like take them over all steps at once, so that in training a later step
    changes the outputs of earlier ones; here it does not. The running statistics are shared by all
    steps, means over the steps of each one's, and evaluation is `nn.BatchNorm1d`'s: tensors and
    names in a state_dict are the same. What differs between the steps of a window, such as an
    onset, is normalised away in training and not in evaluation.

    Args:
        features: channels C.
        eps, momentum, affine, track_running_stats: as nn.BatchNorm1d's.

    Shape:
        x (B, C, T, ...) -> the same

    Raises:
        ValueError: at the call, other axes or integers, or one value for each channel and step
            where its statistics are taken.
    """

    def __init__(
        self,
        features: Size,
        eps: Positive = 1e-5,
        momentum: Share | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(features, eps, momentum, affine, track_running_stats)
        self.per_step = True

    def _check_input_dim(self, input: Tensor) -> None:
        check_floats("x", input)
        if input.dim() < 3 or input.shape[1] != self.num_features:
            raise ValueError(
                f"x has shape {tuple(input.shape)}; expected (batch, {self.num_features} channels, "
                "steps)"
            )
        if self._takes_statistics() and input.shape[2] and input[:, 0, 0].numel() < 2:
            raise ValueError(
                f"x has shape {tuple(input.shape)}, one value for each channel and step; training "
                "with norm_over='step' needs at least two: enlarge the batch or call eval()"
            )

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if self._takes_statistics():
            return batch_normalised(self, input)
        return along_axis(input, 1, super().forward)

    def _takes_statistics(self) -> bool:
        return self.training or self.running_mean is None


def batch_normalised(
    norm: Any,
    input: Tensor,
    total: Callable[[Tensor], Tensor] = lambda local: local,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Normalises (B, C, ...) by batch statistics and updates the running ones of a batch norm.

    Args:
        norm: its settings and tensors; an attribute `per_step` is true where axis 2 are steps with
            statistics of their own.
        input: of the norm.
        total: adds up sums of several processes.
        dtype: of the sums; that of the input, or float32 for half precision, by default.
    """
    x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
    kept = (1, 2) if getattr(norm, "per_step", False) else (1,)
    axes = [axis for axis in range(x.dim()) if axis not in kept]
    per_channel = (-1, *[1] * (x.dim() - 2))
    count = total(x.new_full((), math.prod([x.shape[axis] for axis in axes]), dtype=dtype))
    mean = total(x.sum(axes, keepdim=True, dtype=dtype)) / count
    centred = x - mean.to(x.dtype)
    var = total(centred.square().sum(axes, keepdim=True, dtype=dtype)) / count
    scale = (var + norm.eps).rsqrt().to(x.dtype)
    output = centred * (scale if norm.weight is None else scale * norm.weight.view(per_channel))
    if norm.bias is not None:
        output = output + norm.bias.view(per_channel)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = norm.momentum
        if share is None:  # as a tensor: the host does not wait for the number
            share = norm.num_batches_tracked.to(norm.running_mean).reciprocal()
        batch = ((norm.running_mean, mean), (norm.running_var, var * count / (count - 1)))
        for running, statistic in batch:
            over_steps = statistic.detach().transpose(0, 1).flatten(1).mean(1)
            running.lerp_(over_steps.to(running.dtype), share)
    return output.to(input.dtype)
