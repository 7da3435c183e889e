"""Full and read-only disks: the path and the remedy, and the checkpoint that stood before."""

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest

from tests.faults import jobs
from tests.faults.folders import Whole, debris, last_step, outcome
from tests.faults.harness import Child, call, finish

WIDTH = 2000  # 150,000 weights: 1.8 MB of state, 0.6 MB of weights
QUICK = (1, 10), (1, 100_000), (3, 0), (3, 1_000_000)
Mount = Callable[[str], Path]


def check_message(output: str, path: Path) -> None:
    """Checks that a message names a path, and what to do."""
    assert "Traceback" not in output
    assert str(path) in output
    assert "free some space" in output


@pytest.mark.parametrize(
    ("epoch", "limit"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
        for case in product((1, 3), (0, 10, 3_000, 100_000, 1_000_000))
    ],
)
def test_a_limit_of_file_sizes(epoch: int, limit: int, folder: Path, whole: Whole) -> None:
    """A file-size limit, at the first save and a later one: status 2, path, remedy; bit-equal."""
    run, gate = folder / "run", jobs.Gate(folder, 17, times=epoch)
    with Child(jobs.fit, run, width=WIDTH, save_steps=4, gate=gate) as child:
        child.until(gate.reached.exists)
        before = last_step(run)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        gate.opened.touch()
        assert child.wait() == 2, child.output
        check_message(child.output, run)
    assert last_step(run) >= before >= 12 * (epoch - 1)
    assert debris(run) == []
    finish(jobs.fit, run, width=WIDTH)
    assert outcome(run) == whole(width=WIDTH)


@pytest.mark.parametrize(
    "limit", [10, *(pytest.param(n, marks=pytest.mark.slow) for n in (100, 2000, 15_000))]
)
def test_a_command_under_a_limit(limit: int, folder: Path) -> None:
    """`neuroconv train` that can write hardly a file: status 2, path and remedy."""
    words = *jobs.LINEAR, "--train.epochs", 1, "--train.output", folder / "runs"
    status, output = call(jobs.neuroconv, *words, file_bytes=limit)
    assert status == 2, output
    check_message(output, folder / "runs")


@pytest.mark.parametrize("output", ["/dev/null/runs", "/proc/runs"])
def test_a_folder_that_nobody_can_make(output: str) -> None:
    """A folder for runs that nobody can make: status 2, and its path, before training."""
    status, printed = call(jobs.neuroconv, *jobs.LINEAR, "--train.output", output)
    assert status == 2, printed
    assert printed.startswith(f"error: {output}"), printed
    assert "epoch 1" not in printed


@pytest.fixture
def mount(folder: Path) -> Iterator[Mount]:
    """Mounts a file system in memory with options, as often as it is called."""
    with ExitStack() as stack:

        def tmpfs(options: str) -> Path:
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder / "disk")]
            (folder / "disk").mkdir()
            if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
                pytest.skip(f"needs the right to mount: {' '.join(command)}")
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder / "disk")], check=True)
            return folder / "disk"

        yield tmpfs


@pytest.mark.parametrize("free", [0, 50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_full_disk(free: int, folder: Path, mount: Mount, whole: Whole) -> None:
    """A disk that is full to some bytes: status 2, path and remedy; with space, bit-equal."""
    disk, gate = mount("size=12m"), jobs.Gate(folder, 17, times=3)
    run, rest = disk / "run", disk / "rest"
    with Child(jobs.fit, run, width=WIDTH, save_steps=4, gate=gate) as child:
        child.until(gate.reached.exists)
        with pytest.raises(OSError, match="No space"):
            rest.write_bytes(bytes(2**24))
        os.truncate(rest, rest.stat().st_size - free)
        gate.opened.touch()
        assert child.wait() == 2, child.output
        check_message(child.output, run)
    assert last_step(run) > 0
    with pytest.raises(OSError, match="No space"):
        rest.write_bytes(bytes(2**24))
    status, output = call(jobs.fit, run, width=WIDTH)
    assert status == 2, output
    check_message(output, run)
    rest.unlink()
    finish(jobs.fit, run, width=WIDTH)
    assert outcome(run) == whole(width=WIDTH)


def test_a_read_only_disk(folder: Path, mount: Mount, whole: Whole) -> None:
    """A disk that has become read-only: status 2, path and remedy; once writable, bit-equal."""
    disk, gate = mount("size=12m"), jobs.Gate(folder, 17, times=3)
    run = disk / "run"
    with Child(jobs.fit, run, gate=gate) as child:
        child.until(gate.reached.exists)
        child.send(signal.SIGKILL)
        child.wait()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    status, output = call(jobs.fit, run)
    assert status == 2, output
    assert str(run) in output
    status, output = call(jobs.neuroconv, *jobs.LINEAR, "--train.output", disk / "runs")
    assert status == 2, output
    assert f"error: {disk}" in output
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    finish(jobs.fit, run)
    assert outcome(run) == whole()
