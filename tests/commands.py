"""The command line as the tests call it."""

from collections.abc import Callable
from pathlib import Path

from neuroconv.cli import main

Call = Callable[..., tuple[int, str, str]]  # words in; status, output and errors out


def status_of(*words: str | Path | int) -> int:
    """The exit status of a command."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0
