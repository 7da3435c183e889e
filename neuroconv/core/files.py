"""Crash-safe files: written whole or not at all."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

_TEMPORARY = ".tmp"


class WriteError(OSError):
    """A file that cannot be written; what stood there before is intact."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file, then replaces `path` by it in one step.

    Raises:
        WriteError: a disk that is full, read-only or gone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    with writing(path):
        try:
            temporary.touch()
            mode = temporary.stat().st_mode  # what the umask allows: safetensors would write 0600
            write(temporary)
            temporary.chmod(mode)
            _synchronise(temporary)
            os.replace(temporary, path)
            if os.name == "posix":
                _synchronise(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises a WriteError that names `path` for an error of the disk within the context."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WriteError(
            f"{path}: cannot be written ({reason}): free some space there, or use a disk that you "
            "may write to; the files that stood there before are intact"
        ) from error


def remove_temporaries(folder: Path) -> None:
    """Removes what killed processes left half written; the caller alone may write the folder."""
    for temporary in folder.glob(f".*{_TEMPORARY}"):
        temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a text file, in UTF-8, in one step."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Writes counting numbers as a .npy file in one step, in the smallest type that holds them."""
    smallest = np.min_scalar_type(int(values.max(initial=0)))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # np.save would append .npy to a path
            np.save(file, values.astype(smallest))

    write_atomically(path, write)


def _synchronise(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def new_folder(parent: str | Path, prefix: str = "", suffix: str = "") -> Path:
    """Creates PARENT/PREFIX-TIME-SUFFIX, with a number if there is such a folder already."""
    base = Path(parent) / f"{prefix}{datetime.now():%Y%m%d-%H%M%S}{suffix}"
    for number in count():
        folder = base.with_name(f"{base.name}-{number}") if number else base
        try:
            folder.mkdir(parents=True)  # for one process of those that try at this moment
        except FileExistsError:
            continue
        return folder
    raise AssertionError
