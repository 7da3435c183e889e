"""Small networks of experiments: training by a plain loop, and what they answer rightly.

`neuroconv.training` trains configurations; here a network is a module that returns logits, and its
data are two tensors: inputs (N, ...) and labels (N,).
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Split = tuple[Tensor, Tensor]


def passes(count: int, size: int, epochs: int, generator: torch.Generator) -> list[Tensor]:
    """Returns the batches (size,) of passes over `count` images, each in another random order.

    What is left of a pass after its last whole batch is not shown; of fewer than `size` images all
    are one batch.
    """
    whole = max(1, count // size)
    return [
        batch
        for _ in range(epochs)
        for batch in torch.randperm(count, generator=generator).split(size)[:whole]
    ]


def fit(network: nn.Module, data: Split, batches: Sequence[Tensor], optimizer: Optimizer) -> None:
    """Trains on batches of image numbers by cross-entropy, the learning rate falling in a line."""
    inputs, labels = data
    schedule = LambdaLR(optimizer, lambda step: 1 - step / len(batches))
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(network(inputs[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def right(network: nn.Module, inputs: Tensor, labels: Tensor) -> NDArray[np.bool_]:
    """Returns which images are classified rightly, (N,)."""
    parts = zip(inputs.split(2000), labels.split(2000), strict=True)
    return torch.cat([network(part).argmax(1) == answers for part, answers in parts]).numpy()


def best_rate(rates: Iterable[float], train: Callable[[float], nn.Module], data: Split) -> float:
    """Returns the learning rate whose network has the lowest cross-entropy on validation data."""
    (inputs, labels), losses = data, {}
    for rate in rates:
        network = train(rate)
        with torch.no_grad():
            losses[rate] = F.cross_entropy(network(inputs), labels).nan_to_num(math.inf).item()
    return min(losses, key=losses.__getitem__)
