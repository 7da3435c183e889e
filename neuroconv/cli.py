"""The command line: one subcommand, one call."""

import difflib
import functools
import inspect
import json
import operator
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from tyro.constructors import PrimitiveConstructorSpec

from neuroconv import __version__
from neuroconv.flops import COUNTERS, Profile, profile, stage_table, summary_table
from neuroconv.neurons import CELL_CLASSES, Variant
from neuroconv.neurons.cells_table import cells_rows, cells_table, references_table
from neuroconv.training import (
    DataConfig,
    RunResult,
    TrainConfig,
    evaluate,
    load_config,
    mean_interval,
    resume,
    train_seeds,
)
from neuroconv.training.allocator import keep_freed_memory
from neuroconv.zoo import count_parameters, create_model, get_builder, list_models, match_parameters

_AXONS = 1_000  # that a cell is profiled with; sparse wiring costs the same for any number
_REAL_PARAMETERS = 20_000_000  # above it, a model is counted without being given memory


def _image_shape_option() -> PrimitiveConstructorSpec[tuple[int, int, int] | None]:
    """`--image-shape CxHxW`, in the notation of `neuroconv list`."""

    def read(words: list[str]) -> tuple[int, int, int]:
        sizes = words[0].split("x")
        if len(sizes) != 3 or not all(size.isdecimal() and int(size) for size in sizes):
            raise ValueError(
                f"{words[0]!r}: expected channels x height x width in pixels, such as 3x224x224"
            )
        channels, height, width = map(int, sizes)
        return channels, height, width

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="CxHxW",
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: ["x".join(map(str, value or ()))],
    )


# What tyro shows of an option: its metavar, and no "(default: None)".
_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
_Page = Annotated[Path, tyro.conf.arg(metavar="FILE")]
_Config = Annotated[
    Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG", help_behavior_hint="")
]
_Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
_ImageShape = Annotated[
    tuple[int, int, int] | None, _image_shape_option(), tyro.conf.arg(help_behavior_hint="")
]


@dataclass(frozen=True)
class List:
    """Lists the zoo's models with their parameters, and the cells that `profile` takes.

    Example: neuroconv list 'granule*'
    """

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = "*"
    """a wildcard, such as 'granule*'"""


@dataclass(frozen=True)
class ProfileCommand:
    """Counts what models and cells cost: essay, direct and executed multiply-adds.

    A cell (granule, purkinje, golgi, deep_nuclear, pyramidal) is one neuron of full size.

    Example: neuroconv profile granule purkinje --json cells.json

    Example: neuroconv profile resnet18 --image-shape 3x64x64 --convention flop
    """

    names: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="NAME...", help_behavior_hint=""),
    ]
    """models of `neuroconv list`, and cells"""
    counter: Literal["all", "closed_form", "exact", "fvcore"] = "all"
    """what counts; counters that run must agree"""
    device: Literal["meta", "cpu", "cuda"] = "meta"
    """where the closed form and the exact counter run; meta takes no memory, and leaves fvcore,
    which has to run the model, to the CPU and to models of up to 20 million parameters"""
    convention: Literal["mac", "flop"] = "mac"
    """what the tables show; 1 MAC = 2 FLOP"""
    variant: Annotated[
        Variant | None,
        tyro.conf.arg(metavar="{dettmers2015,literature}", help_behavior_hint=""),
    ] = None
    """of a cell: whose numbers (default: the essay's, where it speaks of the cell)"""
    neurons: int = 1
    """of a cell: neurons in the population"""
    mode: Literal["same", "valid", "per_dendrite"] = "same"
    """of a cell: how the filter meets the sheet"""
    backend: Literal["auto", "direct", "fft", "matmul"] = "auto"
    """of a cell: the dendritic convolution's algorithm"""
    image_shape: _ImageShape = None
    """of a zoo model: its image, such as 3x224x224 (default: the model's own)"""
    batch: int = 1
    """samples in the run that is counted"""
    stages: bool = True
    """also print a table of the stages"""
    json: _File = None
    """write everything that the tables show, and more, to this file"""


@dataclass(frozen=True)
class Cells:
    """Shows where the essay's numbers of a cell and the literature's differ, with their sources.

    Example: neuroconv cells

    Example: neuroconv cells purkinje --json purkinje.json
    """

    cell: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="CELL", help_behavior_hint="")
    ] = None
    """granule, purkinje, golgi, deep_nuclear or pyramidal; default all, with short sources"""
    json: _File = None
    """write all rows, with whole sources, to this file"""


@dataclass(frozen=True)
class Train:
    """Trains the model of a TOML file, once for each of its seeds.

    An option --TABLE.KEY VALUE overrides a key of the file's tables [model], [data], [train].
    A value is written as in the file; an array needs quotes. Each run leaves a folder of
    configuration, metrics, weights and curves in --train.output (default: runs).

    Example: neuroconv train configs/digits_granule.toml

    Example: neuroconv train configs/mnist_granule.toml --data.root DIR --train.seeds "[0]"
    """

    config: _Config
    """a TOML file, such as configs/digits_granule.toml"""
    json: _File = None
    """write the results of all seeds to this file"""


@dataclass(frozen=True)
class Compare:
    """Trains the model of a TOML file and its [[opponents]], and writes a table and report.html.

    Overrides as for `train`. Finished runs of the same configuration are not trained again.

    Example: neuroconv compare configs/mnist_granule.toml --data.root DIR --report mnist/report.html
    """

    config: _Config
    """a TOML file with [[opponents]]"""
    report: _Page = Path("report.html")
    """the page; comparison.json and comparison.toml are written beside it"""
    linear: bool = True
    """also fit a linear classifier on the still images' pixels"""


@dataclass(frozen=True)
class Resume:
    """Continues an interrupted run from its last finished epoch, to the bit.

    Example: neuroconv resume runs/granule_convnet-20250131-120000-seed0
    """

    run: _Run
    """a run folder that `neuroconv train` made"""


@dataclass(frozen=True)
class Evaluate:
    """Rebuilds a finished run's model from its folder and scores its best weights anew.

    Example: neuroconv evaluate runs/granule_convnet-20250131-120000-seed0 --split val
    """

    run: _Run
    """a run folder that `neuroconv train` made"""
    split: Literal["val", "test"] = "test"
    """the images to score it on"""


@dataclass(frozen=True)
class Match:
    """Finds the width that gives an opponent as many parameters as a model has, but no more.

    Example: neuroconv match granule_convnet --opponent mlp
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
    """the model to match"""
    opponent: Annotated[str, tyro.conf.arg(metavar="NAME")] = "plain_cnn"
    """a zoo model with a free width"""
    image_shape: _ImageShape = None
    """the image, such as 3x32x32 (default: the model's own)"""


@dataclass(frozen=True)
class Demo:
    """The main job on embedded data: trains, counts and compares in under three minutes.

    Example: neuroconv demo
    """

    report: _Page = Path("report.html")
    """where the page goes"""


_COMMANDS: dict[str, Any] = {
    "list": List,
    "profile": ProfileCommand,
    "cells": Cells,
    "train": Train,
    "compare": Compare,
    "resume": Resume,
    "evaluate": Evaluate,
    "match": Match,
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
        message = Text.assemble(("error: ", "bold red"), _explain(error))
        Console(stderr=True).print(message, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        _say(Console(stderr=True), str(stop) or "interrupted")
        sys.exit(130)


def _explain(error: Exception) -> str:
    """The error's own words; of the system's, which name no fix, what to do."""
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename}: {error.strerror}: "
            "expected a path that is there, or can be made, and that you may use"
        )
    return str(error)


def _say(console: Console, text: str) -> None:
    """Print as it is: a path keeps its brackets, and stays on one line."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _dispatch(words: list[str], console: Console) -> None:
    if words == ["--version"]:
        _say(console, f"neuroconv {__version__}")
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
    handlers: dict[type, Callable[..., None]] = {
        List: _list,
        ProfileCommand: _profile,
        Cells: _cells,
        Match: _match,
        Demo: _demo,
        Resume: _resume,
        Evaluate: _evaluate,
    }
    if isinstance(command, (Train, Compare, Resume, Demo)):
        keep_freed_memory()
    if isinstance(command, Train):
        _train(command, overrides, console)
    elif isinstance(command, Compare):
        _compare(command, overrides, console)
    else:
        handlers[type(command)](command, console)


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


def _prepare(path: Path | None, option: str) -> None:
    """Makes the folder of an output file, and refuses the file, before the work and not after."""
    if path is None:
        return
    problem = "it is a folder" if path.is_dir() else ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"its folder: {error.strerror}"
    if not problem and not os.access(path if path.exists() else path.parent, os.W_OK):
        problem = "permission denied"
    if problem:
        raise ValueError(
            f"{option} {path}: cannot be written ({problem}): expected the name of a file in a "
            "folder that you may write to"
        )


def _list(command: List, console: Console) -> None:
    names = list_models(command.pattern)
    if not names:
        raise ValueError(
            f"no model matches {command.pattern!r}; the zoo has {', '.join(list_models())}"
        )
    table = Table("name", "parameters", "image", "what it is")
    table.columns[1].justify = "right"
    for name in names:
        with torch.device("meta"):
            size = count_parameters(create_model(name))
        summary = (inspect.getdoc(get_builder(name)) or "").partition("\n")[0]
        table.add_row(name, f"{size:,}", "x".join(map(str, _image_shape(name))), summary)
    console.print(table)
    _say(console, f"cells for `neuroconv profile`: {', '.join(CELL_CLASSES)}")


def _image_shape(name: str) -> tuple[int, int, int]:
    shape = inspect.signature(get_builder(name)).parameters["image_shape"].default
    return (shape[0], shape[1], shape[2])


def _profile(command: ProfileCommand, console: Console) -> None:
    if not command.names:
        raise ValueError("no name given; expected names such as: granule purkinje granule_convnet")
    for option, value in (("--neurons", command.neurons), ("--batch", command.batch)):
        if value < 1:
            raise ValueError(f"{option} {value}: expected an integer of at least 1")
    _prepare(command.json, "--json")
    counters = COUNTERS if command.counter == "all" else (command.counter,)
    profiles = [_profile_one(name, command, counters) for name in command.names]
    side_by_side = max(1, (console.width - 40) // 18)
    for first in range(0, len(profiles), side_by_side):
        shown = profiles[first : first + side_by_side]
        console.print(summary_table(shown, command.convention))
    if command.stages:
        for each in profiles:
            console.print(stage_table(each, command.convention))
    for each in profiles:
        for counter, reason in each.skipped.items():
            _say(console, f"{each.name}: {counter} was skipped: {reason}")
        if each.unstated:
            _say(console, f"{each.name}: no closed form for {', '.join(each.unstated)}")
    if command.json is not None:
        command.json.write_text(json.dumps([each.to_dict() for each in profiles], indent=2) + "\n")
        _say(console, f"written to {command.json}")
    if any(each.agree is False for each in profiles):
        raise RuntimeError("the counters disagree; see the table's last column")


def _profile_one(name: str, command: ProfileCommand, counters: Sequence[str]) -> Profile:
    with torch.device("meta"):
        model, inputs = _build(name, command)
    # Only a run needs memory: fvcore's on the CPU, or one that --device asks for.
    if command.device != "meta" or count_parameters(model) <= _REAL_PARAMETERS:
        model, inputs = _build(name, command)
    return profile(
        model,
        inputs,
        name=name,
        counters=counters,
        device=command.device,
        fvcore_device="cuda" if command.device == "cuda" else "cpu",
    )


def _build(name: str, command: ProfileCommand) -> tuple[nn.Module, Tensor]:
    """The model or cell of that name, and inputs that it takes."""
    if name in CELL_CLASSES:
        population = CELL_CLASSES[name](
            _AXONS,
            command.neurons,
            variant=command.variant,
            mode=command.mode,
            backend=command.backend,
        )
        return population, torch.zeros(command.batch, _AXONS, population.time_steps)
    try:
        shape = command.image_shape or _image_shape(name)
    except ValueError as error:
        raise ValueError(f"{error}; or a cell: {', '.join(CELL_CLASSES)}") from None
    return create_model(name, image_shape=shape), torch.zeros(command.batch, *shape)


def _cells(command: Cells, console: Console) -> None:
    table = cells_table(command.cell)
    _prepare(command.json, "--json")
    console.print(table)
    if command.cell is not None:
        console.print(references_table(command.cell))
    if command.json is not None:
        command.json.write_text(json.dumps(cells_rows(command.cell), indent=2) + "\n")
        _say(console, f"written to {command.json}")


def _train(command: Train, overrides: Sequence[str], console: Console) -> None:
    config = load_config(command.config, overrides)
    _prepare(command.json, "--json")
    _print_runs(train_seeds(config), command.json, console)


def _resume(command: Resume, console: Console) -> None:
    _print_runs([resume(command.run)], None, console)


def _print_runs(runs: Sequence[RunResult], path: Path | None, console: Console) -> None:
    table = Table("model", "seed", "parameters", "best epoch", "validation", "test", "s/epoch")
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for each in runs:
        table.add_row(
            each.name,
            str(each.seed),
            f"{each.parameters:,}",
            str(each.best_epoch),
            f"{each.val_accuracy:.2%}",
            f"{each.test_accuracy:.2%}",
            f"{each.seconds_per_epoch:.1f}",
        )
    console.print(table)
    for each in runs:
        _say(console, f"run: {each.run_dir}")
    mean = mean_interval([each.test_accuracy for each in runs])
    if mean.half_width is not None:
        _say(
            console,
            f"test accuracy {mean.mean:.2%} ± {mean.half_width:.2%} "
            f"(mean over {len(runs)} seeds, 95 % interval)",
        )
    if path is not None:
        numbers = {
            "runs": [_plain(asdict(each)) for each in runs],
            "test_accuracy_fraction_mean": mean.mean,
            "test_accuracy_fraction_95_half_width": mean.half_width,
        }
        path.write_text(json.dumps(numbers, indent=2) + "\n")
        _say(console, f"written to {path}")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


def _evaluate(command: Evaluate, console: Console) -> None:
    score = evaluate(command.run, command.split)
    _say(
        console,
        f"{command.split}: accuracy {score.accuracy:.2%}, cross entropy {score.loss:.4f} nats, "
        f"{score.images:,} images",
    )


def _match(command: Match, console: Console) -> None:
    defaults = inspect.signature(get_builder(command.name)).parameters
    task = {  # the opponent is built for the very task of the model
        "image_shape": command.image_shape or _image_shape(command.name),
        "num_classes": defaults["num_classes"].default,
        "time_steps": defaults["time_steps"].default,
    }
    with torch.device("meta"):
        target = count_parameters(create_model(command.name, **task))
    keywords = match_parameters(command.opponent, target, **task)
    with torch.device("meta"):
        matched = count_parameters(create_model(command.opponent, **keywords))
    _say(console, f"{command.name}: {target:,} parameters")
    _say(console, f"{command.opponent} with width={keywords['width']}: {matched:,} parameters")


def _compare(command: Compare, overrides: Sequence[str], console: Console) -> None:
    from neuroconv.compare import compare_and_report  # draws plots: not loaded for `list`

    config = load_config(command.config, overrides)
    _prepare(command.report, "--report")
    compare_and_report(
        config, output=command.report, title=command.config.stem, linear=command.linear
    )


def _demo(command: Demo, console: Console) -> None:
    from neuroconv.compare import demo

    _prepare(command.report, "--report")
    demo(report=command.report)
