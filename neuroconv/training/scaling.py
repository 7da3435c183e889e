"""How training scales over processes: a model of a step's time, and a measurement on this CPU."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import ProcessException, spawn
from torch.nn import functional as F

from neuroconv.training.config import TrainConfig
from neuroconv.training.distributed import Ranks, data_parallel
from neuroconv.training.optimizer import make_optimizer
from neuroconv.training.sync_norm import synchronised_norms
from neuroconv.zoo import create_model


@dataclass(frozen=True)
class ProjectedStep:
    """A step's time in data-parallel training, computed and not measured.

    Attributes:
        label: "projected".
        processes: that train together, n.
        images: of a step, in all processes.
        compute_seconds: forward, backward and update of one process, with its part of the images.
        gradient_bytes: of all trainable numbers.
        bandwidth_bytes_per_second: that each process sends at, to its neighbour in the ring.
        latency_seconds: of one message.
        exchange_seconds: 2 (n - 1) / n x bytes / bandwidth + 2 (n - 1) x latency: the ring's
            all-reduce, in 2 (n - 1) messages of bytes / n. Nothing of it is hidden behind the
            backward pass, and batch norms' statistics are left out.
        step_seconds: compute and exchange.
        images_per_second: of all processes.
    """

    label: str
    processes: int
    images: int
    compute_seconds: float
    gradient_bytes: int
    bandwidth_bytes_per_second: float
    latency_seconds: float
    exchange_seconds: float
    step_seconds: float
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; units are in the keys."""
        return asdict(self)


@dataclass(frozen=True)
class MeasuredStep:
    """A step's time in data-parallel training on the CPU, one thread a process, by Gloo.

    Attributes:
        label: "measured".
        model: the zoo's name.
        processes: that train together.
        images: of a step, in all processes.
        steps: that were timed, after as many that were not counted.
        step_seconds: the median, with the least and the most.
        images_per_second: of all processes, at the median.
        gradient_bytes: of all trainable numbers.
        exchange_seconds: the all-reduce of so many bytes alone, median; 0 for one process.
        latency_seconds: the all-reduce of one number, for each of its 2 (n - 1) messages.
        cpus: of the machine; more processes than that share them.
    """

    label: str
    model: str
    processes: int
    images: int
    steps: int
    step_seconds: float
    step_seconds_least: float
    step_seconds_most: float
    images_per_second: float
    gradient_bytes: int
    exchange_seconds: float
    latency_seconds: float
    cpus: int

    @property
    def bandwidth_bytes_per_second(self) -> float | None:
        """What the ring's formula makes of the exchange; None if latency explains all of it."""
        messages = 2 * (self.processes - 1)
        travel = self.exchange_seconds - messages * self.latency_seconds
        sent = messages / self.processes * self.gradient_bytes
        return sent / travel if travel > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; units are in the keys."""
        return asdict(self)


def project_step(
    *,
    processes: int,
    images: int,
    compute_seconds: float,
    gradient_bytes: int,
    bandwidth_bytes_per_second: float,
    latency_seconds: float,
) -> ProjectedStep:
    """The step's time by the ring's formula; see `ProjectedStep` for the arguments.

    Raises:
        ValueError: a count below 1, no time to compute, a latency below 0, or a bandwidth that is
            not a finite number above 0.
    """
    counts = {"processes": processes, "images": images, "gradient_bytes": gradient_bytes}
    rates = {
        "compute_seconds": compute_seconds,
        "bandwidth_bytes_per_second": bandwidth_bytes_per_second,
    }
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count}; expected at least 1")
    for name, rate in rates.items():
        if not 0 < rate < math.inf:
            raise ValueError(f"{name}={rate}; expected a finite number above 0")
    if not 0 <= latency_seconds < math.inf:
        raise ValueError(f"latency_seconds={latency_seconds}; expected at least 0")
    messages = 2 * (processes - 1)
    one = gradient_bytes / processes / bandwidth_bytes_per_second + latency_seconds
    exchange = messages * one
    step = compute_seconds + exchange
    return ProjectedStep(
        label="projected",
        processes=processes,
        images=images,
        compute_seconds=compute_seconds,
        gradient_bytes=gradient_bytes,
        bandwidth_bytes_per_second=bandwidth_bytes_per_second,
        latency_seconds=latency_seconds,
        exchange_seconds=exchange,
        step_seconds=step,
        images_per_second=images / step,
    )


def measure_scaling(
    processes: Sequence[int] = (1, 2),
    *,
    model: str = "granule_convnet",
    images: int = 64,
    steps: int = 20,
    **keywords: Any,
) -> list[MeasuredStep]:
    """Train on random images with so many processes of one thread each, and time the steps.

    The processes are spawned: a script that calls this does so under `if __name__ == "__main__"`.

    Args:
        processes: numbers of processes; each divides `images`.
        model: the zoo's name, and `keywords` its builder's. Its batch norms are synchronised.
        images: of a step, in all processes together.
        steps: to time, after as many to warm up.

    Raises:
        ValueError: a number of processes that does not divide `images`.
        RuntimeError: a process failed; its own error stands on standard error.
    """
    for number in processes:
        if number < 1 or images % number:
            raise ValueError(
                f"processes={tuple(processes)}, images={images}: expected divisors of the images"
            )
    return [_measure(number, model, images, steps, keywords) for number in processes]


def _measure(
    processes: int, model: str, images: int, steps: int, keywords: dict[str, Any]
) -> MeasuredStep:
    context = get_context("spawn")
    results: SimpleQueue[tuple[list[float], list[float], list[float], int]] = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, f"file://{folder}/meeting", model, images, steps, keywords, results)
        try:
            spawn(_work, arguments, nprocs=processes)
        except ProcessException as error:
            raise RuntimeError(f"scaling over {processes} processes: {error}") from None
    taken, exchange, latency, gradient_bytes = results.get()
    middle = median(taken)
    return MeasuredStep(
        label="measured",
        model=model,
        processes=processes,
        images=images,
        steps=steps,
        step_seconds=middle,
        step_seconds_least=min(taken),
        step_seconds_most=max(taken),
        images_per_second=images / middle,
        gradient_bytes=gradient_bytes,
        exchange_seconds=median(exchange),
        latency_seconds=median(latency) / max(1, 2 * (processes - 1)),
        cpus=os.cpu_count() or 1,
    )


def _work(
    rank: int, processes: int, meeting: str, name: str, images: int, steps: int,
    keywords: dict[str, Any], results: SimpleQueue[Any],
) -> None:  # fmt: skip
    """One of the processes; rank 0 hands in its times."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    torch.manual_seed(0)
    model = create_model(name, **keywords)
    shape = keywords.get("image_shape", (1, 28, 28))
    own = images // processes
    inputs, labels = torch.rand(own, *shape), torch.randint(keywords.get("num_classes", 10), (own,))
    ranks = Ranks.current()
    updater = make_optimizer(model, TrainConfig(epochs=1, learning_rate=1e-3))
    size = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    with synchronised_norms(model, ranks, torch.device("cpu")):
        learner = data_parallel(model, ranks)

        def step() -> None:
            updater.zero_grad()
            F.cross_entropy(learner(inputs), labels).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            updater.step()

        taken = _times(step, steps)
    gradient, number = torch.zeros(size // 4), torch.zeros(1)
    exchange = _times(lambda: _all_reduce(gradient), steps) if processes > 1 else [0.0]
    latency = _times(lambda: _all_reduce(number), steps) if processes > 1 else [0.0]
    if ranks.leads:
        results.put((taken, exchange, latency, size))
    dist.destroy_process_group()


def _all_reduce(numbers: torch.Tensor) -> None:
    dist.all_reduce(numbers)


def _times(call: Callable[[], None], repeats: int) -> list[float]:
    """Seconds of so many calls, after as many that warm up."""
    seconds = []
    for _ in range(2 * repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[repeats:]
