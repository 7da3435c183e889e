"""The optimiser and its learning rate."""

import math
from functools import partial
from typing import Any

import torch
from torch import nn

from neuroconv.training.config import TrainConfig

# Devices with one kernel for a whole step: three to seven times as fast for AdamW on the CPU too.
_FUSED = {"adamw": {"cpu", "cuda"}, "sgd": {"cuda"}}


def learning_rate_at(step: int, total_steps: int, peak: float, warmup: float) -> float:
    """Returns a step's learning rate: a linear rise to the peak, then half a cosine to zero."""
    rising = round(warmup * total_steps)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (1 + math.cos(math.pi * (step - rising) / (total_steps - rising))) / 2


def make_optimizer(model: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """Returns AdamW or SGD; weight decay spares parameters of one axis, norms and most biases."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kinds = {p.device.type if p.is_floating_point() else "" for p in parameters}
    fused = kinds <= _FUSED[settings.optimizer] or None
    momentum = settings.momentum
    make: Any = partial(torch.optim.SGD, momentum=momentum, nesterov=momentum > 0)
    if settings.optimizer == "adamw":
        make = partial(torch.optim.AdamW, capturable=settings.cuda_graph)
    optimizer: torch.optim.Optimizer = make(groups, lr=settings.learning_rate, fused=fused)
    if settings.cuda_graph:  # which reads the rate from memory; kernels of CUDA want float32
        dtype = torch.float32 if parameters[0].is_cuda else torch.float64
        memory = torch.zeros((), dtype=dtype, device=parameters[0].device)
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = memory
    return optimizer
