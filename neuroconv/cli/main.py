"""The command line: one subcommand, one call.

A command's module is loaded when the command is: `neuroconv --help` waits for no torch.
"""

import dataclasses
import difflib
import functools
import importlib
import operator
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, NoReturn

import tyro
from rich.console import Console
from rich.text import Text

from neuroconv import __version__


class _Command(NamedTuple):
    module: str
    kind: str
    summary: str  # the first paragraph of the class's docstring


_COMMANDS = {
    "list": _Command(
        "zoo", "List",
        "Lists the zoo's models with their parameters, and the cells that `profile` takes.",
    ),
    "profile": _Command(
        "counting", "Profile",
        "Counts what models and cells cost: multiply-adds, FLOPs, bytes, time, energy.",
    ),
    "cells": _Command(
        "counting", "Cells",
        "Shows where the essay's numbers of a cell and the literature's differ, with their "
        "sources.",
    ),
    "operators": _Command(
        "counting", "Operators",
        "Lists which operators each counter counts, how, and what costs nothing and why.",
    ),
    "brain": _Command(
        "brain", "Brain",
        "Estimates the FLOP/s of a brain by the essay's method: values, intervals, what matters "
        "most.",
    ),
    "train": _Command(
        "runs", "Train", "Trains the model of a TOML file, once for each of its seeds."
    ),
    "compare": _Command(
        "comparing", "Compare",
        "Trains the model of a TOML file and its [[opponents]], and writes a table and "
        "report.html.",
    ),
    "resume": _Command(
        "runs", "Resume",
        "Continues an interrupted run from its last finished epoch, to the bit.",
    ),
    "evaluate": _Command(
        "runs", "Evaluate",
        "Rebuilds a finished run's model from its folder and scores its best weights anew.",
    ),
    "match": _Command(
        "zoo", "Match",
        "Finds the width that gives an opponent as many parameters as a model has, but no more.",
    ),
    "bench": _Command(
        "bench", "Bench",
        "Times neurons side by side with conv3d, fft-conv-pytorch and CNNs of equal FLOPs.",
    ),
    "demo": _Command(
        "comparing", "Demo",
        "The main job on embedded data: trains, counts and compares in under three minutes.",
    ),
}  # fmt: skip
_WITH_OVERRIDES = ("train", "compare")
_UNDER_TORCHRUN = ("train", "resume")
_TRAINING = ("train", "compare", "resume", "demo", "bench")


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
        message = Text.assemble(("error: ", "bold red"), _explain(error))
        _leave(2, message)
    except KeyboardInterrupt as stop:
        _leave(130, Text(str(stop) or "interrupted"))


def _leave(status: int, message: Text) -> NoReturn:
    """Prints a message and ends the process.

    Of several processes the first to fail prints, and each ends at once: the others may wait for
    it, or be gone.
    """
    several = False
    speaks = True
    if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun
        from neuroconv.training.distributed import Ranks, speaks_of_failure

        several, speaks = Ranks.current().size > 1, speaks_of_failure()
    if speaks:
        Console(stderr=True).print(message, soft_wrap=True, highlight=False)
    if several:
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
        console.print(f"neuroconv {__version__}", highlight=False)
        return
    name = words[0] if words else ""
    if name not in _COMMANDS:
        if name and not name.startswith("-"):
            near = difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"unknown command {name!r}; {hint}expected one of {', '.join(_COMMANDS)}"
            )
        _overview(words)
        return
    module = importlib.import_module(f"neuroconv.cli.{_COMMANDS[name].module}")
    # Overrides (--table.key VALUE) belong to the configuration file, not to tyro.
    takes_overrides = name in _WITH_OVERRIDES
    own, overrides = _split_overrides(words[1:]) if takes_overrides else (words[1:], [])
    command, unknown = tyro.cli(
        getattr(module, _COMMANDS[name].kind),
        prog=f"neuroconv {name}",
        args=own,
        return_unknown_args=True,
    )
    if unknown:
        raise ValueError(_unknown_words(name, unknown, takes_overrides))
    if "TORCHELASTIC_RUN_ID" in os.environ and name not in _UNDER_TORCHRUN:
        from neuroconv.training.distributed import refuse_torchrun

        refuse_torchrun(name)
    if name in _TRAINING:
        from neuroconv.training.allocator import keep_freed_memory

        keep_freed_memory()
    if takes_overrides:
        command(console, overrides)
    else:
        command(console)


def _overview(words: list[str]) -> None:
    """Prints the list of commands for `--help`; refuses other words, and none."""
    kinds: list[Any] = []
    for name, command in _COMMANDS.items():
        kind = dataclasses.make_dataclass(command.kind, [])
        kind.__doc__ = command.summary
        kinds.append(Annotated[kind, tyro.conf.subcommand(name)])
    tyro.cli(
        functools.reduce(operator.or_, kinds),
        prog="neuroconv",
        description="A biological neuron as a small trainable convolutional network: build it, "
        "count it, train it, compare it.\n\nStart with `neuroconv demo`; it needs no data. "
        "`neuroconv COMMAND --help` shows a command's options.",
        args=words,
    )


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
    if takes_overrides:
        from neuroconv.training import DataConfig, TrainConfig

        for table, config in (("data", DataConfig), ("train", TrainConfig)):
            if key in {field.name for field in dataclasses.fields(config)}:
                return f"{message}; did you mean --{table}.{key} VALUE?"
    return f"{message}; `neuroconv {command} --help` lists what it does take"
