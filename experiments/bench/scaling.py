"""Training over several processes: a step's time, measured on this CPU and projected for more."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from recording import Bench, Row, figure, row
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from variants import step_variant

from neuroconv.zoo import create_model

MODEL = "granule_convnet"
# A network between the GPUs of one machine, and the start of a message: assumptions, not measured.
_BANDWIDTH, _LATENCY_S = 100e9, 10e-6


def exchange_seconds(
    processes: int, gradient_bytes: int, bandwidth: float, latency: float
) -> float:
    """Returns the time of the ring's all-reduce: 2 (n - 1) messages of bytes / n.

    Nothing of it is hidden behind the backward pass, and batch norms' statistics are left out.

    Args:
        bandwidth: bytes/s that each process sends to its neighbour in the ring.
        latency: seconds of one message.
    """
    return 2 * (processes - 1) * (gradient_bytes / processes / bandwidth + latency)


def scaling(bench: Bench) -> Iterator[Row]:
    """Measures data-parallel steps with a thread for each process, and projects them by the ring's
    formula. On a GPU too the measured ones are the CPU's, and say so."""
    images, steps = bench.pick((64, 20), (4, 2))
    single, pair, half = (
        measure_step(processes, count, steps)
        for processes, count in ((1, images), (2, images), (1, images // 2))
    )
    alone = single["step_seconds"]
    yield row(
        "data-parallel step, measured",
        {"one_process": single, "two_processes": pair},
        figures={"two_over_one_process_images_per_second_ratio": figure(
            "times the images per second of one process, measured with two",
            alone / pair["step_seconds"],
        )},
        notes=["measured: gloo on this CPU, a thread a process, each with its own batch norms"],
    )  # fmt: skip
    halved = max(0.5, half["step_seconds"] / alone)  # no better than in proportion
    for processes in bench.pick((2, 4, 8), (2,)):
        compute = alone * halved ** math.log2(processes)
        exchange = exchange_seconds(processes, single["gradient_bytes"], _BANDWIDTH, _LATENCY_S)
        yield row(
            f"data-parallel step, {processes} processes, projected",
            {"compute_seconds": compute, "exchange_seconds": exchange,
             "measured_exchange_seconds": pair["exchange_seconds"]},
            figures={"images_per_second_over_one_process_ratio": figure(
                f"times the images per second of one process, projected for {processes}",
                alone / (compute + exchange),
            )},
            notes=["projected, not measured: compute as measured on this CPU at smaller batches, "
                   f"the ring's formula at an assumed {_BANDWIDTH:.0e} bytes/s and "
                   f"{_LATENCY_S:.0e} s a message"],
        )  # fmt: skip


def measure_step(processes: int, images: int, steps: int) -> dict[str, Any]:
    """Trains on random images in processes of one thread each, and returns a step's times.

    Args:
        processes: a divisor of `images`, which are those of all processes together.
        steps: timed, after as many that warm up.
    """
    results: Any = get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, f"file://{folder}/meeting", images // processes, steps, results)
        spawn(_work, arguments, nprocs=processes)
    times, exchange, gradient_bytes = results.get()
    return {
        "processes": processes, "images": images, "cpus": os.cpu_count(),
        "step_seconds": median(times), "step_seconds_least": min(times),
        "step_seconds_most": max(times), "gradient_bytes": gradient_bytes,
        "exchange_seconds": median(exchange),  # the all-reduce of as many bytes alone
    }  # fmt: skip


def _work(rank: int, processes: int, meeting: str, images: int, steps: int, results: Any) -> None:
    """Runs in each of the processes; the first returns its times."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    torch.manual_seed(0)
    model = create_model(MODEL)
    size = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    learner = DistributedDataParallel(model) if processes > 1 else model
    times = _times(step_variant(learner, torch.rand(images, 1, 28, 28)).call, steps)
    gradient = torch.zeros(size // 4)
    exchange = _times(lambda: dist.all_reduce(gradient), steps) if processes > 1 else [0.0]
    if rank == 0:
        results.put((times, exchange, size))
    dist.destroy_process_group()


def _times(call: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(2 * repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[repeats:]
