"""The command line of `neuroconv`, and of `python -m neuroconv`."""

import os
import signal
import threading
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command: see `neuroconv.cli.dispatch`.

    Until the command has been imported, which takes seconds, Ctrl-C ends the process without a
    traceback: an exception in the midst of an import could be taken for another error.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    quiet = main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def ready() -> None:
        if quiet:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    if quiet:
        signal.signal(signal.SIGINT, _leave)
    try:
        from neuroconv.cli.dispatch import dispatch

        dispatch(arguments, ready)
    finally:
        ready()


def _leave(number: int, frame: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(128 + number)
