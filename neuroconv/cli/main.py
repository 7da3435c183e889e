"""The command line: one subcommand, one call."""

import difflib
import functools
import operator
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any, NoReturn

import tyro
from rich.console import Console
from rich.text import Text

from neuroconv import __version__
from neuroconv.cli.bench import Bench
from neuroconv.cli.brain import Brain
from neuroconv.cli.comparing import Compare, Demo
from neuroconv.cli.counting import Cells, Operators, Profile
from neuroconv.cli.options import say
from neuroconv.cli.runs import Evaluate, Resume, Train
from neuroconv.cli.zoo import List, Match
from neuroconv.training import DataConfig, Ranks, TrainConfig
from neuroconv.training.allocator import keep_freed_memory
from neuroconv.training.distributed import refuse_torchrun, speaks_of_failure

_COMMANDS: dict[str, Any] = {
    "list": List,
    "profile": Profile,
    "cells": Cells,
    "operators": Operators,
    "brain": Brain,
    "train": Train,
    "compare": Compare,
    "resume": Resume,
    "evaluate": Evaluate,
    "match": Match,
    "bench": Bench,
    "demo": Demo,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. A user's mistake ends in one message and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    console = Console()
    try:
        _dispatch(words, console)
    except BrokenPipeError:  # whoever read our output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, TypeError, FloatingPointError, OSError, RuntimeError) as error:
        if speaks_of_failure():
            message = Text.assemble(("error: ", "bold red"), _explain(error))
            Console(stderr=True).print(message, soft_wrap=True)
        _leave(2)
    except KeyboardInterrupt as stop:
        if speaks_of_failure():
            say(Console(stderr=True), str(stop) or "interrupted")
        _leave(130)


def _leave(status: int) -> NoReturn:
    """Ends the process; one of several at once, for the others may wait for it, or be gone."""
    if Ranks.current().size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _explain(error: Exception) -> str:
    """The error's own words; of the system's, which name no fix, what to do."""
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror}: "
            "expected a path that is there, or can be made, and that you may use"
        )
    return str(error)


def _dispatch(words: list[str], console: Console) -> None:
    if words == ["--version"]:
        say(console, f"neuroconv {__version__}")
        return
    if words and words[0] not in _COMMANDS and not words[0].startswith("-"):
        near = difflib.get_close_matches(words[0], _COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"unknown command {words[0]!r}; {hint}expected one of {', '.join(_COMMANDS)}"
        )
    # Overrides (--table.key VALUE) belong to the configuration file, not to tyro.
    takes_overrides = bool(words) and words[0] in ("train", "compare")
    own, overrides = _split_overrides(words) if takes_overrides else (words, [])
    command, unknown = tyro.cli(
        _command_line(),
        prog="neuroconv",
        description="A biological neuron as a small trainable convolutional network: build it, "
        "count it, train it, compare it.\n\nStart with `neuroconv demo`; it needs no data. "
        "`neuroconv COMMAND --help` shows a command's options.",
        args=own,
        return_unknown_args=True,
    )
    if unknown:
        raise ValueError(_unknown_words(words[0], unknown, takes_overrides))
    if not isinstance(command, (Train, Resume)):
        refuse_torchrun(words[0])
    if isinstance(command, (Train, Compare, Resume, Demo, Bench)):
        keep_freed_memory()
    if takes_overrides:
        command(console, overrides)
    else:
        command(console)


def _command_line() -> Any:
    """The union of all commands under their names, as tyro takes it."""
    named = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in _COMMANDS.items()]
    return functools.reduce(operator.or_, named)


def _split_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Separates `--table.key VALUE` and `--table.key=VALUE` from the command's own words."""
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not (word.startswith("--") and "." in word.partition("=")[0]):
            own.append(word)
            continue
        overrides.append(word)
        if "=" not in word and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return own, overrides


def _unknown_words(command: str, words: Sequence[str], takes_overrides: bool) -> str:
    """What is said of words that the command has no use for."""
    message = f"{' '.join(words)!r}: nothing that `neuroconv {command}` takes"
    key = words[0].partition("=")[0].removeprefix("--").replace("-", "_")
    for table, config in (("data", DataConfig), ("train", TrainConfig)):
        if takes_overrides and key in {each.name for each in fields(config)}:
            return f"{message}; did you mean --{table}.{key} VALUE?"
    return f"{message}; `neuroconv {command} --help` lists what it does take"
