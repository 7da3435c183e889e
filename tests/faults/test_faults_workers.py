"""Data workers: signals, deaths, errors and ends of them and of their main process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from neuroconv.training.batches import load
from tests.conftest import PROJECT

BATCHES = [[index] for index in range(12)]
PATIENCE_S = 120.0


class Pids(Dataset[tuple[Tensor, int]]):
    """The process that reads an item as its input; items from `hang` on never come."""

    def __init__(self, hang: int = 99) -> None:
        self.hang = hang

    def __len__(self) -> int:
        return len(BATCHES)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= self.hang:
            time.sleep(3600)
        return torch.tensor(os.getpid()), index


class TwoArguments(Exception):
    def __init__(self, path: str, line: int) -> None:
        super().__init__(f"{path}:{line} is broken")


class Failing(Pids):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 7:
            raise self.error
        return torch.zeros(1), index


def stream(data: Any, workers: int = 2) -> Iterator[Any]:
    return load(data, BATCHES, workers, torch.device("cpu"))


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while alive := [pid for pid in pids if lives(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def test_workers_leave_signals_to_the_main_process_and_end_with_the_batches() -> None:
    """SIGINT, SIGTERM and SIGUSR1 to data workers: they go on, and end with the batches."""
    batches = stream(Pids())
    pids = {int(inputs) for inputs, _ in (next(batches), next(batches))}
    assert len(pids) == 2
    assert os.getpid() not in pids
    for pid in pids:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(pid, number)
    rest = list(batches)
    assert [int(labels) for _, labels in rest] == list(range(2, 12))
    assert {int(inputs) for inputs, _ in rest} == pids
    assert active_children() == []


def test_a_killed_worker_is_named_with_the_likely_reason_and_the_remedy() -> None:
    """A killed data worker: where its batch is read, an error with the reason and the remedy."""
    list(DataLoader(Pids(), num_workers=1))  # torch's handler of SIGCHLD stays, and raises anywhere
    batches = stream(Pids(hang=2))
    pids = [int(inputs) for inputs, _ in (next(batches), next(batches))]
    os.kill(pids[1], signal.SIGKILL)
    wait_for_end(pids[1:])
    with pytest.raises(
        RuntimeError,
        match=rf"^data worker 1 \(process {pids[1]}\) was ended by SIGKILL, most likely because "
        r"memory ran out: take fewer workers .* and resume the run$",
    ):
        next(batches)
    wait_for_end(pids)


def test_a_closed_stream_ends_workers_that_hang_in_an_item() -> None:
    """An error in training while a data worker hangs in an item: the worker is killed."""
    batches: Any = stream(Pids(hang=1))
    pid = int(next(batches)[0])
    others = [child.pid for child in active_children() if child.pid is not None]
    batches.close()
    assert pid in others
    assert active_children() == []
    wait_for_end(others)


def _read_some(pids: Any) -> None:
    batches = stream(Pids())
    for _ in range(4):
        pids.put(int(next(batches)[0]))
    time.sleep(3600)


def test_workers_end_when_their_main_process_is_killed() -> None:
    """A killed main process: its data workers end."""
    context = get_context("fork")
    queue = context.SimpleQueue()
    main = context.Process(target=_read_some, args=(queue,))
    main.start()
    pids = [queue.get() for _ in range(4)]
    main.kill()
    main.join()
    wait_for_end(pids)


def test_python_exits_although_a_stream_with_a_hanging_worker_is_left_open() -> None:
    """An error that nobody handles while a data worker hangs: Python exits, the worker ends."""
    script = (
        "from tests.faults.test_faults_workers import Pids, stream\n"
        "batches = stream(Pids(hang=2))\n"
        "print(int(next(batches)[0]), int(next(batches)[0]), flush=True)\n"
        "raise RuntimeError('training failed')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True,
        timeout=PATIENCE_S, env={**os.environ, "PYTHONPATH": str(PROJECT)}, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith("RuntimeError: training failed")
    wait_for_end([int(pid) for pid in ended.stdout.split()])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_data_set_keeps_its_type_and_names_the_index(workers: int) -> None:
    """An error of a user's data set, with workers or not: it keeps its type and names the index."""
    with pytest.raises(KeyError, match=r"^'left eye'\nwhile reading item 7 of the Failing"):
        list(stream(Failing(KeyError("left eye")), workers))
    assert active_children() == []


def test_an_error_that_cannot_be_pickled_is_described() -> None:
    """An error in a data worker that cannot be pickled: its text and index, and no hang."""
    with pytest.raises(RuntimeError, match=r"(?s)a\.csv:3 is broken.*item 7 of the Failing"):
        list(stream(Failing(TwoArguments("a.csv", 3))))


@pytest.mark.filterwarnings("ignore:Got pickle error")
def test_a_data_set_that_cannot_be_sent_to_workers() -> None:
    """A data set that cannot be sent to spawned workers: an error with the remedy."""
    data = Pids()
    data.transform = lambda image: image  # type: ignore[attr-defined]
    loader = DataLoader(data, num_workers=2, multiprocessing_context="spawn")
    with pytest.raises(TypeError, match=r"cannot be sent .*lambda.*top level.*workers = 0"):
        list(stream(loader))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_other_start_methods(method: str) -> None:
    """SIGTERM to data workers that are spawned or come from a fork server: they go on."""
    batches = stream(DataLoader(Pids(), num_workers=2, multiprocessing_context=method))
    pids = {int(inputs) for inputs, _ in (next(batches), next(batches))}
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    assert [int(labels) for _, labels in batches] == list(range(2, 12))
    assert active_children() == []
