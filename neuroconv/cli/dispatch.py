"""The command line: `neuroconv COMMAND ...`.

A command's module is imported when the command is called: `neuroconv --help` needs no torch.
"""

import ast
import dataclasses
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, NoReturn

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from neuroconv import __version__
from neuroconv.core.checks import expected_one_of
from neuroconv.core.text import Terminal, printable

# Module of each command, by purpose. Its class there has the command's name.
_GROUPS = {
    "start here": {"demo": "runs", "list": "listing"},
    "count": {
        "profile": "profiling",
        "operators": "listing",
        "cells": "listing",
        "brain": "brain",
        "match": "listing",
    },
    "train": dict.fromkeys(("train", "resume", "evaluate", "verify", "compare"), "runs"),
    "verify the essay": {"essay": "essay"},
}
COMMANDS = {name: module for group in _GROUPS.values() for name, module in group.items()}
_TAKE_OVERRIDES = ("train", "compare")  # --table.key VALUE
_DISTRIBUTED = ("train", "resume")  # may run under torchrun
_TORCHRUN = "TORCHELASTIC_RUN_ID"  # which torchrun sets
_TRAINING = ("train", "resume", "verify", "compare", "demo")

# Warnings may quote the names of files: no escape sequence of theirs reaches the terminal.
_formatted = warnings.formatwarning
warnings.formatwarning = lambda *args, **keywords: printable(_formatted(*args, **keywords))


def dispatch(arguments: Sequence[str] | None, ready: Callable[[], object]) -> None:
    """Runs one command; a user's mistake ends in one message and exit status 2.

    A run that failed ends in status 1, one that a signal ended in 128 and its number. `ready` is
    called when the command's module has been imported.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(words, Terminal(), ready)
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, TypeError, ArithmeticError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            _exit(130, Text("interrupted"))  # within an import, which makes another error of it
        message = str(error) or repr(error)
        if isinstance(error, OSError) and error.filename is not None:  # it names no remedy
            message = (
                f"{error.filename}: {error.strerror}: "
                "expected a path that exists, or can be created, and that you may use"
            )
        status = 1 if isinstance(error, FloatingPointError) else 2  # training failed
        _exit(status, Text.assemble(("error: ", "bold red"), printable(message)))
    except KeyboardInterrupt as stop:
        _exit(128 + getattr(stop, "signal", 2), Text(printable(str(stop)) or "interrupted"))


def _exit(status: int, message: Text) -> NoReturn:
    """Prints a message and ends the process.

    Of several processes the first to fail prints, and each ends at once: it may hold up the others,
    or they may have ended already.
    """
    distributed, prints = False, True
    if _TORCHRUN in os.environ:
        from neuroconv.training.distributed import Ranks, reports_failure

        distributed, prints = Ranks.current().size > 1, reports_failure()
    if prints:
        Terminal(stderr=True).print(message, soft_wrap=True)
    if distributed:
        _leave(status)
    sys.exit(status)


def _leave(status: int) -> NoReturn:
    """Ends a process without Python's own end, which the threads of a process group may abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _dispatch(words: list[str], console: Console, ready: Callable[[], object]) -> None:
    if words == ["--version"]:
        console.print(f"neuroconv {__version__}")
        return
    if words and words[0] in ("-h", "--help"):
        _print_overview(console)
        return
    if not words or words[0] not in COMMANDS:
        problem = f"unknown command {words[0]!r}" if words else "no command"
        choices = expected_one_of(words[0] if words else "", COMMANDS)
        raise ValueError(f"{problem}; {choices}; `neuroconv --help` says what they do")
    name, *words = words
    options, overrides = split_overrides(words) if name in _TAKE_OVERRIDES else (words, [])
    command, unknown = tyro.cli(
        command_class(name), prog=f"neuroconv {name}", args=options, return_unknown_args=True
    )
    if unknown:
        raise ValueError(_unknown_words(name, unknown))
    distributed = _TORCHRUN in os.environ and int(os.environ["WORLD_SIZE"]) > 1
    if distributed and name not in _DISTRIBUTED:
        raise ValueError(f"`neuroconv {name}` runs in one process: expected no torchrun")
    if name in _TRAINING:
        from neuroconv.training.glibc_malloc import keep_freed_memory

        keep_freed_memory()
    ready()
    if name in _TAKE_OVERRIDES:
        command(console, overrides)
    else:
        command(console)
    if distributed:
        _leave(0)


def command_class(name: str) -> Any:
    """Imports a command's module and returns its class."""
    return getattr(importlib.import_module(f"neuroconv.cli.{COMMANDS[name]}"), name.capitalize())


def _print_overview(console: Console) -> None:
    """Prints what each command does, by purpose."""
    console.print("usage: neuroconv COMMAND ...\n")
    console.print(
        "A biological neuron as a small trainable convolutional network: build it, count it, train "
        "it, compare it."
    )
    for purpose, group in _GROUPS.items():
        console.print(f"\n{purpose}:")
        table = Table.grid(padding=(0, 2))
        for name in group:
            table.add_row(f"  {name:<9}", _summary(name))
        console.print(table)
    console.print("\n`neuroconv COMMAND --help` shows a command's options, with examples.")


def _summary(name: str) -> str:
    """Returns the first paragraph of a command's docstring, without importing its module."""
    source = files("neuroconv.cli").joinpath(f"{COMMANDS[name]}.py").read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    command = next(node for node in classes if node.name == name.capitalize())
    return " ".join((ast.get_docstring(command) or "").partition("\n\n")[0].split())


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates overrides, as `--table.key=VALUE`, from the command's own options."""
    options: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not (word.startswith("--") and "." in word.partition("=")[0]):
            options.append(word)
            continue
        if "=" not in word and rest and not rest[0].startswith("--"):
            word = f"{word}={rest.pop(0)}"
        overrides.append(word)
    return options, overrides


def _unknown_words(command: str, words: Sequence[str]) -> str:
    message = f"{' '.join(words)!r}: `neuroconv {command}` has no such argument"
    key = words[0].partition("=")[0].removeprefix("--").replace("-", "_")
    if command in _TAKE_OVERRIDES:
        from neuroconv.training import DataConfig, TrainConfig

        for table, config in (("data", DataConfig), ("train", TrainConfig)):
            if key in {field.name for field in dataclasses.fields(config)}:
                return f"{message}; did you mean --{table}.{key} VALUE?"
    return f"{message}; `neuroconv {command} --help` lists its arguments"
