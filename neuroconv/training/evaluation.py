"""The score of a model on a data set."""

from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_map_only

from neuroconv.training.activity import ActivityMonitor
from neuroconv.training.batches import Data, check_length, load, loader_options
from neuroconv.training.device import choose_device, float32_arithmetic
from neuroconv.training.distributed import Ranks, is_sharded
from neuroconv.training.task import Measure, Task, count_samples

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes


@dataclass(frozen=True)
class Score:
    """Means over a data set: the loss (cross entropy in nats, or the task's), for a classification
    the share of correct answers, and the user's metrics by name. `answers` are the classes that a
    classification predicts for the data set's items, in their order (N,)."""

    loss: float
    accuracy: float | None
    images: int
    metrics: dict[str, float] = field(default_factory=dict)
    answers: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)

    def record(self, split: str) -> dict[str, float]:
        """Returns the means under their names in metrics.jsonl, such as val_loss."""
        means = {"loss": self.loss, "accuracy": self.accuracy, **self.metrics}
        return {f"{split}_{name}": mean for name, mean in means.items() if mean is not None}


def evaluate_model(
    model: nn.Module,
    data: Data,
    *,
    loss: Measure | None = None,
    metrics: Mapping[str, Measure] | None = None,
    batch_size: int = 128,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    channels_last: bool = False,
    monitor: ActivityMonitor | None = None,
    runner: nn.Module | None = None,
    ranks: Ranks | None = None,
    between: Callable[[int, int], object] | None = None,
) -> Score:
    """Scores a model on a whole data set; the model is left in eval mode, on the device.

    Args:
        loss, metrics: as for `train`; by default, cross entropy and accuracy.
        monitor: observes each batch's logits and labels, for the climbing fibres.
        runner: the compiled model.
        ranks: the processes that share the work; all of them must call this.
        between: called between batches with the numbers of those done and of all.
    """
    task = Task(loss, metrics or {})
    target, ranks = choose_device(device), ranks or Ranks()
    images, (loader_size, workers) = check_length(data, "data"), loader_options(data, None, workers)
    indices = torch.arange(images).split(loader_size or batch_size)
    sharded = is_sharded(model)  # then all run as many batches, one without a share for nothing
    shares = [(ranks.share(batch.tolist()), batch.tolist()) for batch in indices]
    batches = [share or batch[:1] for share, batch in shares if share or sharded]
    idle = {number for number, (share, _) in enumerate(shares) if sharded and not share}
    place(model.eval(), target, channels_last)
    sums: list[list[Tensor]] = []  # of each batch: loss and measures
    predicted: list[Tensor] = []
    images = 0
    stream = load(data, batches, workers, target)
    # As in training: where rates are watched other kernels run, whose last bits differ.
    watched = nullcontext() if monitor else ActivityMonitor(model)
    no_grad = torch.no_grad if sharded else torch.inference_mode  # whose tensors cannot learn later
    with no_grad(), float32_arithmetic(precision, target), closing(stream), watched:
        for number, (inputs, targets) in enumerate(stream):
            if between is not None and number < len(indices) - 1:  # which all processes reach
                between(number, len(indices))
            samples = count_samples(inputs)
            # Only one shape is compiled, and not before the monitor's sums have their shapes.
            use_runner = images and samples == len(batches[0])
            network = runner if runner is not None and use_runner else model
            inputs = in_memory_format(inputs, channels_last)
            outputs, targets = task.run(network, inputs, targets, target, precision)
            if number in idle:
                continue
            loss_sum = task.loss_sum(outputs, targets, samples)
            sums.append([loss_sum, *task.sums(outputs, targets, samples)])
            images += samples
            if loss is None:
                predicted.append(outputs.argmax(1))
            if monitor is not None and loss is None:
                monitor.observe(outputs, targets)
    names = ("loss", *task.measures)
    columns = [sum(to_numbers(list(c))) for c in zip(*sums, strict=True)] or [0.0] * len(names)
    *totals, total = ranks.total(*columns, images)
    means = {name: value / total for name, value in zip(names, totals, strict=True)}
    correct = means.pop("accuracy") if loss is None else None
    indices_of_share = [index for share, _ in shares for index in share]
    answers = None if loss else _in_order(predicted, indices_of_share, ranks)
    return Score(means.pop("loss"), correct, int(total), means, answers)


def _in_order(
    predicted: list[Tensor], indices: list[int], ranks: Ranks
) -> NDArray[np.int64] | None:
    """Returns the classes that all processes predicted in the order of the data set; None where a
    loader's `collate_fn` makes other samples of its items."""
    classes = torch.cat(predicted).numpy(force=True) if predicted else np.empty(0, np.int64)
    parts = ranks.gather((indices, classes))
    if any(len(indices) != len(classes) for indices, classes in parts):
        return None
    order = np.concatenate([indices for indices, _ in parts]).astype(np.int64)
    return np.concatenate([classes for _, classes in parts])[np.argsort(order)]


def place(model: nn.Module, device: torch.device, channels_last: bool) -> None:
    """Moves a model to a device, and its convolutions' weights to the memory format of images."""
    if is_sharded(model):  # which has put it where it runs
        return
    model.to(device)
    for module in model.modules():
        # Not all weights of four or five axes: the kernels of neurons read theirs as they are.
        if isinstance(module, _ConvNd):
            module.weight.data = in_memory_format(module.weight.data, channels_last)


def in_memory_format(inputs: Any, channels_last: bool) -> Any:
    """Returns images (B, C, H, W), frames (B, C, T, H, W) or a convolution's weight with channels
    last in memory, if so configured, and other tensors as they are."""
    formats = _CHANNELS_LAST if channels_last else {}

    def convert(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=formats[x.dim()]) if x.dim() in formats else x

    return tree_map_only(Tensor, convert, inputs)


def to_numbers(scalars: list[Tensor]) -> list[Any]:
    """Returns the numbers of scalar tensors, waiting for the device once."""
    return torch.stack(scalars).tolist() if scalars else []
