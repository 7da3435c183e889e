"""The command line of `neuroconv`, and of `python -m neuroconv`."""

import os
import signal
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command: see `neuroconv.cli.dispatch`.

    Until the command has been imported, which takes seconds, Ctrl-C ends the process without a
    traceback: an exception in the midst of an import could be taken for another error.
    """
    try:
        before = signal.signal(signal.SIGINT, _leave)
    except ValueError:  # not the main thread
        before = None
    try:
        from neuroconv.cli.dispatch import dispatch

        dispatch(arguments, lambda: before and signal.signal(signal.SIGINT, before))
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(128 + number)
