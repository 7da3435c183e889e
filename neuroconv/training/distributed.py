"""Several processes that train one model: each takes a part of every batch.

Batch norms see the whole batch and the gradients are averaged: up to rounding the result is that of
one process, unless the model draws, as Poisson dropout does. Only rank 0 prints and writes.
"""

import inspect
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuroconv.training.config import ConfigError, TrainConfig
from neuroconv.training.device import arithmetic_of, check_compiler, choose_device
from neuroconv.training.tensorboard import check_tensorboard

Value = TypeVar("Value")
_PATIENCE_S = 30.0  # for rank 0 to print a mistake and torchrun to end the others


def split(batch: list[int], count: int) -> list[list[int]]:
    """Splits a batch, in order, into parts whose sizes differ by one image at most."""
    bounds = [len(batch) * part // count for part in range(count + 1)]
    return [batch[start:stop] for start, stop in pairwise(bounds)]


@dataclass(frozen=True)
class Ranks:
    """The processes that train together: the rank of this one, and their number."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """Returns the process group of torch.distributed, or one process without a group."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def share(self, batch: list[int]) -> list[int]:
        return split(batch, self.size)[self.rank]

    def gather(self, value: Value) -> list[Value]:
        """Returns the value of every process, in the order of ranks. All must call this."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def total(self, *numbers: float) -> list[float]:
        return [sum(column) for column in zip(*self.gather(numbers), strict=True)]

    def agree(self, number: int) -> int:
        """Returns the largest number of all processes. All must call this."""
        if self.size == 1:
            return number
        largest = torch.tensor(number, device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def first(self, call: Callable[[], Value]) -> Value:
        """Calls on rank 0; all return its result or raise its error. All must call this."""
        if self.size == 1:
            return call()
        box: list[Any] = [None, None]
        if self.leads:
            try:
                box[0] = call()
            except Exception as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Lets one process of each machine run the block first, to download for all."""
        waits = self.size > 1 and int(os.environ.get("LOCAL_RANK", self.rank)) > 0
        if waits:
            self.gather(None)
        yield
        if not waits:
            self.gather(None)


@contextmanager
def launched() -> Iterator[Ranks]:
    """Joins the processes that `torchrun` started, by Gloo on CPUs and NCCL on CUDA devices."""
    if not dist.is_torchelastic_launched():
        yield Ranks.current()
        return
    on_cuda = torch.cuda.is_available()
    if on_cuda and (local := int(os.environ["LOCAL_RANK"])) < torch.cuda.device_count():
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo")
    yield Ranks.current()
    # Not after an error: waiting for processes that are gone can take for ever.
    dist.destroy_process_group()


def check_device(settings: TrainConfig, images: int, ranks: Ranks) -> torch.device:
    """Returns the device; ConfigError for a setting that this machine or its processes lack."""
    device = choose_device(settings.device)
    ranks = Ranks() if settings.split != "none" else ranks  # each takes the whole batch
    batch_size, accumulate = settings.batch_size, settings.parts
    parts = f"{accumulate} x {ranks.size}" if accumulate > 1 else str(ranks.size)
    if batch_size % (ranks.size * accumulate):
        raise ConfigError(
            f"batch_size = {batch_size}: expected a multiple of {parts} processes, each of which "
            "takes an equal part: change the batch size or --nproc-per-node"
        )
    if images < ranks.size * accumulate:
        raise ConfigError(
            f"train_data has {images} images: expected at least {parts}, one for each part of a "
            "batch: lower `accumulate` or --nproc-per-node"
        )
    processes, devices = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if device.type == "cuda" and processes > devices:
        raise ConfigError(
            f"{processes} processes on this machine, {devices} CUDA devices: expected one device "
            "for each: lower --nproc-per-node, or --train.device cpu"
        )
    if device.type == "cuda" and processes > 1 and device.index is not None:
        raise ConfigError(
            f'device = "{device}": expected "cuda" or "auto" under torchrun, which gives each '
            "process its own"
        )
    arithmetic_of(settings.precision, device)
    if settings.tensorboard:
        check_tensorboard()
    if settings.compile:
        check_compiler(device)
    if ranks.size > 1 and (settings.cuda_graph or isinstance(settings.compile, str)):
        raise ConfigError(
            f'cuda_graph = true, or compile = "reduce-overhead", in {ranks.size} processes: '
            "expected one, since they wait for one another within each step"
        )
    if settings.cuda_graph and device.type != "cuda":
        warnings.warn(f"cuda_graph = true: {device.type} has no CUDA graphs", stacklevel=2)
    return device


def reports_failure() -> bool:
    """Returns whether this process of torchrun prints why it fails: the first to fail does."""
    if not dist.is_initialized():
        # A mistake of all processes is rank 0's to print; the others give it time, until they end.
        if int(os.environ.get("LOCAL_RANK", 0)) > 0:
            time.sleep(_PATIENCE_S)
        return True
    try:
        store = dist.distributed_c10d._get_default_store()
        return bool(store.add("neuroconv/failures", 1) == 1)
    except RuntimeError:  # the machine that keeps it is gone
        return True


def is_sharded(model: nn.Module) -> bool:
    """Returns whether `fully_shard` has spread a model's parameters over processes."""
    return hasattr(model, "_get_fsdp_state")


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrites tensors by those of rank 0. All processes must call this."""
    for tensor in tensors:
        values = tensor.detach().contiguous()
        dist.broadcast(values, src=0)
        tensor.detach().copy_(values)


def data_parallel(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Returns the model with rank 0's weights and buffers, and gradients that are averaged.

    Every parameter that is trained must take part in every batch.
    """
    if ranks.size == 1:
        return model
    broadcast((*model.parameters(), *model.buffers()))
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else None
    wrap: Any = nn.parallel.DistributedDataParallel
    # The buffers are statistics of the whole batch, equal already. torch 2.14 renamed the keyword.
    renamed = "forward_sync_buffers" in inspect.signature(wrap.__init__).parameters
    keyword = "forward_sync_buffers" if renamed else "broadcast_buffers"
    learner: nn.Module = wrap(_Learner(model), device_ids=devices, **{keyword: False})
    learner(None).backward()
    model.zero_grad()
    return learner


class _Learner(nn.Module):
    """A model that, called with None, returns a sum over all parameters in a fixed order.

    DDP adds gradients in the order in which they first came: alike in a new and a resumed run.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor | None) -> Tensor:
        if inputs is None:
            sums = [0 * weight.sum() for weight in self.model.parameters() if weight.requires_grad]
            return torch.stack(sums).sum()
        return self.model(inputs)
