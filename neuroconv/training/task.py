"""The task that a model is trained for: its loss and metrics (B samples in a batch)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

Model = Callable[[Any], Any]
Measure = Callable[[Any, Any], Any]  # of the outputs of a model and the targets of a batch


@dataclass(frozen=True)
class Task:
    """A loss to minimise and metrics to report; by default, classification.

    Outputs reach them as float32 or float64, and targets that are not integers in the same dtype.

    Attributes:
        loss: maps (outputs, targets) to the mean over the batch, a scalar. For None it is the cross
            entropy of logits (B, classes) and integer labels (B,), reported with their accuracy.
        metrics: by name, functions of (outputs, targets) that return a value for each sample (B,),
            or the mean over the batch, a scalar. Reported is the mean over all samples.
        label_smoothing: of the training loss of a classification.
        training_loss: of a model that brings its own for a classification, as a method
            `training_loss(logits, labels)`. Evaluation reports the cross entropy all the same.
    """

    loss: Measure | None = None
    metrics: Mapping[str, Measure] = field(default_factory=dict)
    label_smoothing: float = 0.0
    training_loss: Measure | None = None

    def __post_init__(self) -> None:
        loss = self.loss or F.cross_entropy
        for name, measure in {**self.metrics, "loss": loss}.items():
            if isinstance(measure, type) or not callable(measure):
                raise TypeError(f"{name} = {measure!r}: expected a function, like nn.MSELoss()")
        reserved = ("loss", "images", "accuracy")[: 3 if self.loss is None else 2]
        for name in self.metrics:
            if not name.isidentifier() or name in reserved:
                raise ValueError(f"metric {name!r}: expected letters, digits and _, not {reserved}")
        if self.label_smoothing and self.loss is not None:
            raise ValueError(f"label_smoothing = {self.label_smoothing}: give it to the loss")
        if self.label_smoothing and self.training_loss is not None:
            raise ValueError(
                f"label_smoothing = {self.label_smoothing}: expected 0, since the model brings its "
                "own training loss"
            )
        if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
            raise ValueError("the loss has parameters to train: give them to the model")

    @property
    def measures(self) -> dict[str, Measure]:
        """The metrics by name, the accuracy of a classification among them."""
        correct = {"accuracy": lambda logits, labels: logits.argmax(1) == labels}
        return {**(correct if self.loss is None else {}), **self.metrics}

    def described(self) -> dict[str, Any]:
        """Returns what a resumed run must have in common with the one before."""
        name = getattr(self.loss, "__qualname__", type(self.loss).__name__)
        task = {"loss": name, "metrics": [*self.metrics]} if self.loss or self.metrics else {}
        if self.loss is None and self.training_loss is not None:
            task["training_loss"] = getattr(self.training_loss, "__qualname__", "training_loss")
        return task

    def run(
        self, model: Model, inputs: Any, targets: Any, device: torch.device, precision: str
    ) -> tuple[Any, Any]:
        """Returns model(inputs), in float32 or float64, and the targets on the device, checked."""
        half = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            outputs = model(inputs)
        if self.loss is None:
            _check_logits(inputs, outputs, targets)
            targets = targets.long()
        elif isinstance(self.loss, nn.Module):
            self.loss.to(device)  # weights of classes, for instance
        wide = any(getattr(x, "dtype", 0) == torch.float64 for x in tree_leaves(outputs))
        dtype = torch.float64 if wide else torch.float32  # of targets too: a number is a float64

        def move(x: Tensor) -> Tensor:
            kind = dtype if x.is_floating_point() else x.dtype
            return x.to(device, kind, non_blocking=device.type == "cuda")

        return tree_map_only(Tensor, move, outputs), tree_map_only(Tensor, move, targets)

    def mean_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the loss of a batch in training, a scalar."""
        measure = self.loss or self.training_loss
        if measure is None:
            return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)
        loss = measure(outputs, targets)
        if not isinstance(loss, Tensor) or loss.ndim:
            raise ValueError(
                f"the loss of a batch is {getattr(loss, 'shape', loss)!r}: expected its mean over "
                'the batch, a scalar tensor (PyTorch: reduction="mean")'
            )
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise ValueError("the loss has no gradient: expected a function of the outputs")
        return loss

    def loss_sum(self, outputs: Any, targets: Any, samples: int) -> Tensor:
        """Returns the loss of a batch in evaluation, times its samples."""
        if self.loss is None:
            return F.cross_entropy(outputs, targets, reduction="sum")
        return self.mean_loss(outputs, targets) * samples

    @torch.no_grad()
    def sums(self, outputs: Any, targets: Any, samples: int) -> list[Tensor]:
        """Returns the sum of each of the measures over a batch of that many samples."""
        sums = []
        for name, measure in self.measures.items():
            values = torch.as_tensor(measure(outputs, targets))
            if values.ndim and values.shape != (samples,):
                raise ValueError(
                    f"metric {name}: shape {tuple(values.shape)} for a batch of {samples}: "
                    f"expected a value for each sample ({samples},), or their mean, a scalar"
                )
            sums.append(values.sum() if values.ndim else values * samples)
        return sums


def count_samples(inputs: Any) -> int:
    """Returns the size of a batch: the first axis of the first of its tensors that has one."""
    return next((len(tensor) for tensor in tree_leaves(inputs) if tensor.ndim), 1)


def _check_logits(inputs: Any, logits: Any, labels: Any) -> None:
    """Raises an error unless these are logits (B, classes) and labels (B,) of their classes."""
    for name, value in (("the model returns", logits), ("the labels are", labels)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name} a {type(value).__name__}, not a tensor: expected logits (B, classes) and "
                "labels (B,): build the model to return logits alone (torchvision: "
                "aux_logits=False), or pass loss=, a function of the outputs and targets"
            )
    if logits.ndim != 2 or len(logits) != len(labels):
        shape = tree_map_only(Tensor, lambda tensor: tuple(tensor.shape), inputs)
        raise ValueError(
            f"the model maps inputs {shape} to {tuple(logits.shape)}: "
            f"expected logits ({len(labels)}, classes), or loss= for another task"
        )
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}, {labels.dtype}: expected one integer per "
            "input, or loss= for another task"
        )
    if not (labels.is_cuda and torch.cuda.is_current_stream_capturing()):  # nothing can be read
        check_labels(labels, logits.shape[1])


def check_labels(labels: Tensor, classes: int) -> None:
    """Raises a ValueError for labels that are none of a model's classes."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"label {low if low < 0 else high}: the model has {classes} logits, expected "
            f"labels 0 to {classes - 1}: build it for more classes, or renumber the labels"
        )
