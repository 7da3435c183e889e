"""A lock on a run's folder: one process writes there, and a dead one does not hold it."""

import errno
import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from neuroconv.core.files import writing
from neuroconv.data.errors import warn_once

LOCK = "lock.json"
_held: dict[Path, int] = {}  # folders that this process holds, and the thread


class RunError(ValueError):
    """A folder that is not a run, or is not in the state that is needed."""


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a folder's lock, and creates the folder; the thread that holds it may take it again.

    Another process that holds it is waited for, or else refused.

    It is the operating system's lock on a file, which ends with the process. Data-loader workers
    that outlive their process do not inherit it.

    Raises:
        RunError: another process, which the message names, or another thread holds it.
    """
    folder, thread = folder.resolve(), threading.get_ident()
    if _held.get(folder) == thread:
        yield
        return
    if _held.setdefault(folder, thread) != thread:
        raise RunError(f"{folder}: another thread of this process writes to this run")
    try:
        path = folder / LOCK
        descriptor = _acquire(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        del _held[folder]


def _acquire(path: Path, operation: int) -> int:
    """Returns the descriptor of a lock file that this process has locked, and now describes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, operation)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                time.sleep(0.1)  # in which a holder that has just locked it writes who it is
                holder = os.read(descriptor, 4096).decode(errors="replace")
                os.close(descriptor)
                raise RunError(_refusal(path, holder)) from None
            warn_once(f"{path}: cannot be locked ({error.strerror}): start no second process here")
        if path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(path)):
            break
        os.close(descriptor)  # its holder has just removed it
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    holder = json.dumps({"pid": os.getpid(), "host": platform.node(), "since": now})
    with writing(path):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, holder.encode())
    return descriptor


def _refusal(path: Path, holder: str) -> str:
    try:
        values = json.loads(holder)
        name = f"process {values['pid']} on {values['host']}, since {values['since']},"
    except (ValueError, KeyError, TypeError):  # which it writes in a moment
        name = "another process"
    return f"{path.parent}: {name} writes to this run: wait for its end, or stop that process"
