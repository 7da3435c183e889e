"""A step of training: the gradient of a batch, in parts, and the update of the weights."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from neuroconv.core.autocast import widest_float
from neuroconv.core.checks import out_of_memory
from neuroconv.core.cuda_graph import CaptureError, record
from neuroconv.learning import Rule
from neuroconv.training.batches import Batch
from neuroconv.training.config import ConfigError, TrainConfig
from neuroconv.training.evaluation import in_memory_format
from neuroconv.training.sharding import clip_gradients
from neuroconv.training.state import State, restored
from neuroconv.training.task import Task, check_labels, count_samples

# Steps: on CUDA the host runs ahead of the device, and would wait for it at each number it reads.
_READ_INTERVAL = {"cuda": 32}


class Step:
    """A step of training, called with its batches, one for each part.

    Attributes:
        interval: the number of steps after which the host reads their losses. If it is 1, the
            caller updates the weights, when it has seen that the loss is finite. Else a fused
            optimiser updates them, up to the first step that is not finite.
        classes: the number of logits of a classification, after the first step.
    """

    def __init__(
        self, learner: nn.Module, state: State, config: TrainConfig, task: Task, images: int,
        rule: Rule | None = None,
    ) -> None:  # fmt: skip
        self.learner, self.state, self.config, self.task = learner, state, config, task
        self.rule = rule
        self.images, self.classes = images, 0
        self.optimizer: Any = state.optimizer
        fused = state.optimizer.defaults.get("fused")
        self.interval = _READ_INTERVAL.get(state.device.type, 1) if fused else 1
        self._found_inf = torch.zeros((), dtype=torch.float32, device=state.device)

    def __call__(self, batches: Iterable[Batch]) -> tuple[Tensor, list[int]]:
        """Returns the loss and the sums of the M measures of each of P parts, and the norm of the
        gradient before it is clipped, (P * (1 + M) + 1,), and the number of images of each part."""
        config, task, device = self.config, self.task, self.state.device
        self.optimizer.zero_grad()
        numbers, images = list[Tensor](), list[int]()
        for inputs, targets in batches:
            # Processes exchange gradients after a step's last part.
            waits: AbstractContextManager[None] = nullcontext()
            if len(images) + 1 < config.parts and isinstance(self.learner, DistributedDataParallel):
                waits = self.learner.no_sync()
            inputs, samples = in_memory_format(inputs, config.channels_last), count_samples(inputs)
            # Parts add up to the mean over the step; gradients of processes are averaged.
            share = samples * self.state.readers.size / self.images
            with waits, torch.set_grad_enabled(self.rule is None):
                run: Any = self.learner if self.rule is None else self.rule.forward
                precision = config.precision if self.rule is None else "float32"
                outputs, targets = task.run(run, inputs, targets, device, precision)
                loss = task.mean_loss(outputs, targets)
                if self.rule is not None:
                    self.rule.learn(self.rule.error(outputs, targets), share / samples)
                else:
                    (loss if share == 1 else loss * share).backward()
            numbers += [loss.detach(), *task.sums(outputs, targets, samples)]
            images.append(samples)
            self.classes = outputs.shape[1] if task.loss is None else 0
        model = self.state.model
        norm = (
            clip_gradients(model, config.clip) if config.spread
            else nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        )  # fmt: skip
        if self.interval > 1:
            finite = sum(numbers[:: 1 + len(task.measures)], norm).isfinite()  # the losses
            torch.maximum(self._found_inf, (~finite).float(), out=self._found_inf)
            self.optimizer.found_inf = self._found_inf
            self.optimizer.step()
        dtype = widest_float(device)
        return torch.stack([x.to(device, dtype) for x in (*numbers, norm)]), images

    def tensors(self) -> list[Tensor]:
        """Returns what a step changes."""
        model, moments = self.state.model, tree_leaves([*self.optimizer.state.values()])
        states = [x for x in moments if isinstance(x, Tensor)]
        return [*model.parameters(), *model.buffers(), *states, self._found_inf]


class GraphedStep:
    """A step that is recorded as a CUDA graph at its first call, and replayed at the next ones.

    Batches of other shapes are trained without the graph. On other devices than CUDA, which have no
    graphs, all else is the same.
    """

    def __init__(self, step: Step) -> None:
        self.step, self.interval = step, step.interval
        self._layout: Any = None

    def __call__(self, batches: Iterable[Batch]) -> tuple[Tensor, list[int]]:
        batches = [*batches]
        leaves, structure = tree_flatten(batches)
        layout = structure, [(x.shape, x.dtype) for x in leaves]
        if self._layout is None:
            self._record(batches)
            self._layout = layout
        if layout != self._layout:
            return self.step(batches)
        for _, labels in batches if self.step.task.loss is None else ():
            check_labels(labels, self.step.classes)
        for static, value in zip(tree_leaves(self._batches), leaves, strict=True):
            static.copy_(value, non_blocking=True)
        numbers, images = self._replay()
        return numbers.clone(), images  # which the next replay overwrites

    def _record(self, batches: list[Batch]) -> None:
        """Records a step, and changes nothing."""
        step, model, device = self.step, self.step.state.model, self.step.state.device
        self._batches = tree_map(lambda x: x.to(device, copy=True), batches)
        buffers, on_cuda = [*model.buffers()], [device] if device.type == "cuda" else []
        try:
            with torch.random.fork_rng(on_cuda), restored(step.tensors):
                self._replay = record(partial(step, self._batches), device)
            for (name, value), buffer in zip(model.named_buffers(), buffers, strict=True):
                if value is not buffer:
                    raise CaptureError(f"it replaces its buffer {name}")
        except CaptureError as error:
            if out_of_memory(error):
                raise
            raise ConfigError(
                f"cuda_graph = true: the training step of {type(model).__name__} cannot be "
                f"recorded ({error}): expected a model, loss and metrics that neither wait for the "
                "device, copy from the host nor replace buffers; set cuda_graph = false"
            ) from error
