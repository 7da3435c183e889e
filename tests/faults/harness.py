"""Child processes that hold real runs: forked from a server that has imported everything.

A child costs a fork, not the seconds of an import, so that a suite can afford hundreds of kills.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context, set_start_method
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0  # after which an event that does not come is a failure
ENVIRONMENT = {
    "PYTHONPATH": str(PROJECT), "COLUMNS": "200", "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
}  # fmt: skip
_CONTEXT = get_context("forkserver")
Job = Callable[..., Any]


class Child:
    """A forked process that calls job(*arguments, **keywords); it is killed when the block ends."""

    def __init__(self, job: Job, *arguments: Any, **keywords: Any) -> None:
        self._reader, self._writer = _CONTEXT.Pipe(duplex=False)
        os.set_blocking(self._reader.fileno(), False)
        self._process = _CONTEXT.Process(
            target=_call, args=(self._writer, job, arguments, keywords)
        )
        self._printed = b""

    def __enter__(self) -> Self:
        _CONTEXT.set_forkserver_preload(["tests.faults.preloaded"])
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ENVIRONMENT.items():
                patch.setenv(name, value)
            ensure_running()
        self._process.start()
        self._writer.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()
        if error is not None:
            error.add_note(f"the child printed:\n{self.output}")
        self._reader.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def workers(self) -> list[int]:
        """The processes that it has started."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return list(map(int, path.read_text().split()))

    @property
    def output(self) -> str:
        """What it has printed, errors too: through a pipe, which no full disk ends."""
        try:
            while part := os.read(self._reader.fileno(), 2**16):
                self._printed += part
        except BlockingIOError:
            pass
        return self._printed.decode()

    def wait(self) -> int:
        """Returns the exit status, when it has ended: 128 + n after signal n, as in a shell."""
        self._process.join(PATIENCE_S)
        status = self._process.exitcode
        assert status is not None, f"still running after {PATIENCE_S:.0f} s"
        return 128 - status if status < 0 else status

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(self.pid, number)

    def until(self, event: Callable[[], Any]) -> Any:
        """Returns the event's first true value; an error if the process ends without it."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := event()):
            if not self.alive and not event():
                raise AssertionError(f"ended with {self.wait()} before the event")
            assert time.monotonic() < deadline, f"no event within {PATIENCE_S:.0f} s"
            time.sleep(0.001)
        return value

    def until_printed(self, text: str) -> None:
        self.until(lambda: text in self.output)


def call(job: Job, *arguments: Any, **keywords: Any) -> tuple[int, str]:
    """Calls a job in a child: (exit status, what it printed)."""
    with Child(job, *arguments, **keywords) as child:
        return child.wait(), child.output


def finish(job: Job, *arguments: Any, **keywords: Any) -> None:
    """Calls a job in a child, which must end well."""
    status, output = call(job, *arguments, **keywords)
    assert status == 0, output


def _call(
    writer: Connection, job: Job, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    set_start_method(None, force=True)  # as in any other process: for its loader workers
    for stream in (1, 2):
        os.dup2(writer.fileno(), stream)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    job(*arguments, **keywords)
