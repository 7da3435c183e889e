"""The score of a model on a data set."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from neuroconv.training.activity import ActivityMonitor
from neuroconv.training.batches import Data, check_length, classify, load, loader_options
from neuroconv.training.device import choose_device, float32_arithmetic
from neuroconv.training.distributed import Ranks

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes


@dataclass(frozen=True)
class Score:
    """Mean cross entropy (nats) and share of correct answers over a data set."""

    loss: float
    accuracy: float
    images: int


def evaluate_model(
    model: nn.Module,
    data: Data,
    *,
    batch_size: int = 128,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    channels_last: bool = False,
    monitor: ActivityMonitor | None = None,
    runner: nn.Module | None = None,
    ranks: Ranks | None = None,
    between: Callable[[], object] | None = None,
) -> Score:
    """Scores a model on a whole data set; the model is left in eval mode, on the device.

    Args:
        monitor: observes each batch's logits and labels, for the climbing fibres.
        runner: the compiled model.
        ranks: the processes that share the work; all of them must call this.
        between: called between batches; an exception of it ends the work.
    """
    target, ranks = choose_device(device), ranks or Ranks()
    images, (loader_size, workers) = check_length(data, "data"), loader_options(data, None, workers)
    indices = torch.arange(images).split(loader_size or batch_size)
    batches = [share for batch in indices if (share := ranks.share(batch.tolist()))]
    place(model.eval(), target, channels_last)
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    images = 0
    stream = load(data, batches, workers, target)
    with torch.inference_mode(), float32_arithmetic(precision, target), closing(stream):
        for number, (inputs, labels) in enumerate(stream):
            if between is not None and 0 < number < len(indices) - 1:  # which all processes reach
                between()
            # Only one shape is compiled, and not before the monitor's sums have their shapes.
            use_runner = losses and len(inputs) == len(batches[0])
            network = runner if runner is not None and use_runner else model
            inputs = in_memory_format(inputs, channels_last)
            logits, labels = classify(network, inputs, labels, target, precision)
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
            correct.append((logits.argmax(1) == labels).sum())
            images += len(labels)
            if monitor is not None:
                monitor.observe(logits, labels)
    loss, answers, total = ranks.total(sum(to_numbers(losses)), sum(to_numbers(correct)), images)
    return Score(loss / total, answers / total, int(total))


def place(model: nn.Module, device: torch.device, channels_last: bool) -> None:
    """Moves a model to a device, and its convolutions' weights to the memory format of images."""
    model.to(device)
    for module in model.modules():
        # Not all weights of four or five axes: the kernels of neurons read theirs as they are.
        if isinstance(module, _ConvNd):
            module.weight.data = in_memory_format(module.weight.data, channels_last)


def in_memory_format(x: Tensor, channels_last: bool) -> Tensor:
    """Returns images (B, C, H, W), frames (B, C, T, H, W) or a convolution's weight with channels
    last in memory, if so configured, and other tensors as they are."""
    if channels_last and x.dim() in _CHANNELS_LAST:
        return x.contiguous(memory_format=_CHANNELS_LAST[x.dim()])
    return x


def to_numbers(scalars: list[Tensor]) -> list[Any]:
    """Returns the numbers of scalar tensors, waiting for the device once."""
    return torch.stack(scalars).tolist() if scalars else []
