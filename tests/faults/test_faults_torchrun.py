"""Two processes under torchrun that a signal, or kill -9 of one of them, ends."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.folders import debris, last_step, outcome
from tests.faults.harness import ENVIRONMENT, PROJECT

pytestmark = pytest.mark.slow
TRAIN = (
    "train", PROJECT / "configs/digits_granule.toml", "--data.train_limit", 320, "--train.seeds",
    "[0]", "--train.batch_size", 16, "--train.epochs", 4, "--train.device", "cpu", "--data.workers",
    1, "--model.mean_wait", 0.5, "--train.output", "runs",
)  # fmt: skip


@contextmanager
def torchrun(folder: Path, *words: Any, processes: int = 2) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
        str(processes), "-m", "neuroconv", *map(str, words),
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, **ENVIRONMENT}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def ended(folder: Path, *words: Any, processes: int = 2) -> tuple[int, str]:
    with torchrun(folder, *words, processes=processes) as process:
        output = process.communicate(timeout=600)[0]
        return process.returncode, output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of the run of two processes that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    status, output = ended(folder, *TRAIN)
    assert status == 0, output
    return outcome(next(folder.glob("runs/*")))


@pytest.mark.parametrize(
    ("whom", "number"),
    [
        ("torchrun", signal.SIGTERM), ("torchrun", signal.SIGINT), ("rank 0", signal.SIGTERM),
        ("rank 1", signal.SIGTERM), ("rank 1", signal.SIGUSR1), ("all", signal.SIGINT),
        ("rank 0", signal.SIGKILL), ("rank 1", signal.SIGKILL),
    ],
)  # fmt: skip
def test_the_end_of_two_processes(
    whom: str, number: signal.Signals, tmp_path: Path, whole: dict[str, Any]
) -> None:
    """A signal to torchrun or a rank, kill -9 of one: no process stays, saved, bit-equal."""
    with torchrun(tmp_path, *TRAIN, "--train.save_steps", 7) as process:
        shown = ""
        while "epoch 2/4" not in shown:
            line = process.stdout.readline()
            assert line, shown
            shown += line
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ranks = list(map(int, children))
        assert len(ranks) == 2
        targets = {"torchrun": [process.pid], "rank 0": ranks[:1], "rank 1": ranks[1:]}
        for pid in targets.get(whom, [*ranks, process.pid]):
            os.kill(pid, number)
        shown += process.communicate(timeout=120)[0]
        assert process.returncode != 0
        assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    (run,) = tmp_path.glob("runs/*")
    assert last_step(run) >= 40
    if number != signal.SIGKILL:
        assert debris(run) == []
        assert re.findall(r"step (\d+)", shown) == [str(last_step(run))], shown
        assert shown.count("neuroconv resume") == 1, shown
    status, output = ended(tmp_path, "resume", run)
    assert status == 0, output
    assert outcome(run) == whole


def test_another_number_of_processes(tmp_path: Path, whole: dict[str, Any]) -> None:
    """A run of two processes resumed by one: refused with both numbers; `--force` goes on."""
    with torchrun(tmp_path, *TRAIN, "--train.save_steps", 7) as process:
        while "epoch 1/4" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    (run,) = tmp_path.glob("runs/*")
    status, output = ended(tmp_path, "resume", run, processes=1)
    assert status != 0
    assert re.search("2, now 1", output), output
    status, output = ended(tmp_path, "resume", run, "--force", processes=1)
    assert status == 0, output
