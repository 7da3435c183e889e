"""The memory of each process of a spread model in training, before any of it is allocated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from neuroconv.core.shares import share_of
from neuroconv.flops.machine.memory import storage_bytes
from neuroconv.flops.machine.traffic import measure_traffic
from neuroconv.training.sharding import Split, local_names, units


class ProcessMemory(NamedTuple):
    """Bytes of one process; in `activations` is all that is alive at the peak but the others."""

    parameters: int
    gradients: int
    optimizer: int
    buffers: int
    gathered: int  # of `fully_shard`: the largest unit with its gradients, and the next unit
    activations: int


def process_memory(
    build: Callable[[], tuple[nn.Module, Any]], processes: int, split: Split = "none"
) -> ProcessMemory:
    """Counts a training step by AdamW on meta tensors, operator by operator; see `measure_traffic`.

    Args:
        build: returns a model and the inputs of one process.
        processes: that hold the model together by `shard`.
        split: as in `shard`.

    Raises:
        ValueError: no population can be split.
    """
    with torch.device("meta"), share_of(0, 0, processes if split == "neurons" else 1):
        model, inputs = build()
    if split == "neurons" and processes > 1 and not local_names(model):
        raise ValueError(f"{type(model).__name__} has no population that {processes} can share")
    traffic = measure_traffic(model, inputs, backward=True, training=True)
    whole, buffers = traffic.parameter_bytes, traffic.buffer_bytes
    trained = storage_bytes(p for p in model.parameters() if p.requires_grad)
    sizes = sorted((storage_bytes(unit.parameters()) for unit in units(model)), reverse=True)
    parts = processes if split == "none" else 1
    return ProcessMemory(
        parameters=-(-whole // parts),
        gradients=-(-trained // parts),
        optimizer=-(-2 * trained // parts),  # two moments of each parameter
        buffers=buffers,
        gathered=sum([*sizes[:1], *sizes[:2]]) if parts > 1 else 0,
        activations=max(0, traffic.peak_bytes - whole - buffers - trained),
    )
