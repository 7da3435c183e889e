"""The command line: one subcommand, one call."""

import difflib
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

from neuroconv.flops import COUNTERS, Profile, profile, stage_table, summary_table
from neuroconv.neurons import Granule, Purkinje
from neuroconv.training import (
    RunResult,
    evaluate,
    load_config,
    mean_interval,
    resume,
    train_seeds,
)
from neuroconv.zoo import count_parameters, create_model, get_builder, list_models, match_parameters

CELLS: dict[str, type[Granule] | type[Purkinje]] = {"granule": Granule, "purkinje": Purkinje}
_AXONS = 1_000  # that a cell is profiled with; sparse wiring costs the same for any number


@dataclass(frozen=True)
class List:
    """Lists the zoo's models with their parameters, and the cells that `profile` takes."""

    pattern: Annotated[str, tyro.conf.Positional] = "*"
    """a wildcard, such as 'granule*'"""


@dataclass(frozen=True)
class ProfileCommand:
    """Counts what models and cells cost: essay, direct and executed multiply-adds.

    A cell (granule, purkinje) is one neuron of the essay's size. The closed form and the exact
    counter run on --device; fvcore runs the model, on the CPU or on CUDA.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """zoo names and cells, such as: granule purkinje granule_convnet"""
    counter: Literal["all", "closed_form", "exact", "fvcore"] = "all"
    """which counters to run; all of them must agree"""
    device: Literal["meta", "cpu", "cuda"] = "meta"
    """where the closed form and the exact counter run; fvcore takes the CPU for meta"""
    convention: Literal["mac", "flop"] = "mac"
    """what the tables show; 1 MAC = 2 FLOP"""
    neurons: int = 1
    """neurons in a cell's population"""
    mode: Literal["same", "valid", "per_dendrite"] = "same"
    """how a cell's filter meets its sheet"""
    backend: Literal["auto", "direct", "fft", "matmul"] = "auto"
    """the dendritic convolution of a cell"""
    image_shape: tuple[int, int, int] | None = None
    """channels height width of a zoo model's image (default: the model's own)"""
    batch: int = 1
    """samples in the run that is counted"""
    stages: bool = True
    """also print a table of the stages"""
    json: Path | None = None
    """write everything that the tables show, and more, to this file"""


@dataclass(frozen=True)
class Train:
    """Trains the model of a TOML file, once for each of its seeds.

    Any key of [model], [data] and [train] can be given as --section.key VALUE, for example:
    neuroconv train configs/mnist_granule.toml --data.root DIR --train.seeds "[0]"
    """

    config: Annotated[Path, tyro.conf.Positional]
    """a TOML file, such as configs/digits_granule.toml"""
    json: Path | None = None
    """write the results to this file"""


@dataclass(frozen=True)
class Compare:
    """Trains the model of a TOML file and its [[opponents]], and writes a table and report.html.

    Overrides as for `train`. Finished runs of the same configuration are not trained again.
    """

    config: Annotated[Path, tyro.conf.Positional]
    """a TOML file with [[opponents]]"""
    report: Path = Path("report.html")
    """where the page goes; comparison.json is written beside it"""
    linear: bool = True
    """also fit a linear classifier on the still images' pixels"""


@dataclass(frozen=True)
class Resume:
    """Continues an interrupted run from its last finished epoch, to the bit."""

    run: Annotated[Path, tyro.conf.Positional]
    """a run folder that `neuroconv train` made"""


@dataclass(frozen=True)
class Evaluate:
    """Rebuilds a finished run's model from its folder and scores its best weights anew."""

    run: Annotated[Path, tyro.conf.Positional]
    """a run folder that `neuroconv train` made"""
    split: Literal["val", "test"] = "test"
    """the images to score it on"""


@dataclass(frozen=True)
class Match:
    """Finds the width that gives an opponent as many parameters as a model has, but no more."""

    name: Annotated[str, tyro.conf.Positional]
    """the model to match"""
    opponent: str = "plain_cnn"
    """a zoo model with a free width"""
    image_shape: tuple[int, int, int] | None = None
    """channels height width (default: the model's own)"""


@dataclass(frozen=True)
class Demo:
    """The main job on embedded data: trains, counts and compares in under three minutes."""

    report: Path = Path("report.html")
    """where the page goes"""


Command = List | ProfileCommand | Train | Compare | Resume | Evaluate | Match | Demo
_COMMANDS: dict[str, Callable[..., Any]] = {
    "list": List,
    "profile": ProfileCommand,
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
    except (ValueError, TypeError, FloatingPointError, OSError, RuntimeError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        Console(stderr=True).print(_escape(str(stop) or "interrupted"), soft_wrap=True)
        sys.exit(130)


def _dispatch(words: list[str], console: Console) -> None:
    if words and words[0] not in _COMMANDS and not words[0].startswith("-"):
        near = difflib.get_close_matches(words[0], _COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"unknown command {words[0]!r}; {hint}expected one of {', '.join(_COMMANDS)}"
        )
    # Overrides (--section.key VALUE) belong to the configuration file, not to tyro.
    takes_overrides = bool(words) and words[0] in ("train", "compare")
    own, overrides = _split_overrides(words) if takes_overrides else (words, [])
    command = tyro.extras.subcommand_cli_from_dict(
        _COMMANDS,
        prog="neuroconv",
        description="The neuron as a small convolutional network: build, count, train, compare.",
        args=own,
    )
    handlers: dict[type, Callable[..., None]] = {
        List: _list,
        ProfileCommand: _profile,
        Match: _match,
        Demo: _demo,
        Resume: _resume,
        Evaluate: _evaluate,
    }
    if isinstance(command, Train):
        _train(command, overrides, console)
    elif isinstance(command, Compare):
        _compare(command, overrides, console)
    else:
        handlers[type(command)](command, console)


def _split_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Separates `--section.key VALUE` and `--section.key=VALUE` from the command's own words."""
    own: list[str] = []
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        if word.startswith("--") and "." in word.partition("=")[0]:
            overrides.append(word)
            if "=" not in word:
                overrides += [value for value in [next(rest, None)] if value is not None]
        else:
            own.append(word)
    return own, overrides


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
    console.print(f"cells for `neuroconv profile`: {', '.join(CELLS)}")


def _image_shape(name: str) -> tuple[int, int, int]:
    shape = inspect.signature(get_builder(name)).parameters["image_shape"].default
    return (shape[0], shape[1], shape[2])


def _profile(command: ProfileCommand, console: Console) -> None:
    if not command.names:
        raise ValueError("no name given; expected names such as: granule purkinje granule_convnet")
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
            console.print(f"{each.name}: {counter} was skipped: {reason}")
        if each.unstated:
            console.print(f"{each.name}: no closed form for {', '.join(each.unstated)}")
    if command.json is not None:
        command.json.write_text(json.dumps([each.to_dict() for each in profiles], indent=2) + "\n")
        console.print(f"written to {command.json}")
    if any(each.agree is False for each in profiles):
        raise RuntimeError("the counters disagree; see the table's last column")


def _profile_one(name: str, command: ProfileCommand, counters: Sequence[str]) -> Profile:
    model: nn.Module
    if name in CELLS:
        cell = CELLS[name]
        model = cell(_AXONS, command.neurons, mode=command.mode, backend=command.backend)
        steps = cell.physiology.filter_shape[-1]
        inputs = torch.zeros(command.batch, _AXONS, steps)
    else:
        try:
            shape = command.image_shape or _image_shape(name)
        except ValueError as error:
            raise ValueError(f"{error}; or a cell: {', '.join(CELLS)}") from None
        model = create_model(name, image_shape=shape)
        inputs = torch.zeros(command.batch, *shape)
    return profile(
        model,
        inputs,
        name=name,
        counters=counters,
        device=command.device,
        fvcore_device="cuda" if command.device == "cuda" else "cpu",
    )


def _train(command: Train, overrides: Sequence[str], console: Console) -> None:
    _print_runs(train_seeds(load_config(command.config, overrides)), command.json, console)


def _resume(command: Resume, console: Console) -> None:
    _print_runs([resume(command.run)], None, console)


def _print_runs(runs: Sequence[RunResult], path: Path | None, console: Console) -> None:
    table = Table("run", "seed", "parameters", "best epoch", "validation", "test", "s/epoch")
    for column in table.columns[1:]:
        column.justify = "right"
    for each in runs:
        table.add_row(
            str(each.run_dir),
            str(each.seed),
            f"{each.parameters:,}",
            str(each.best_epoch),
            f"{each.val_accuracy:.2%}",
            f"{each.test_accuracy:.2%}",
            f"{each.seconds_per_epoch:.1f}",
        )
    console.print(table)
    mean = mean_interval([each.test_accuracy for each in runs])
    if mean.half_width is not None:
        console.print(
            f"test accuracy {mean.mean:.2%} ± {mean.half_width:.2%} "
            f"(mean over {len(runs)} seeds, 95 % interval)"
        )
    if path is not None:
        rows = [_plain(asdict(each)) for each in runs]
        path.write_text(json.dumps({"runs": rows, "test_accuracy": asdict(mean)}, indent=2) + "\n")
        console.print(f"written to {path}")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


def _evaluate(command: Evaluate, console: Console) -> None:
    score = evaluate(command.run, command.split)
    console.print(
        f"{command.split}: accuracy {score.accuracy:.2%}, cross entropy {score.loss:.4f} nats, "
        f"{score.images:,} images"
    )


def _match(command: Match, console: Console) -> None:
    shape = command.image_shape or _image_shape(command.name)
    with torch.device("meta"):
        target = count_parameters(create_model(command.name, image_shape=shape))
    keywords = match_parameters(command.opponent, target, image_shape=shape)
    with torch.device("meta"):
        matched = count_parameters(create_model(command.opponent, **keywords))
    console.print(f"{command.name}: {target:,} parameters")
    console.print(f"{command.opponent} with width={keywords['width']}: {matched:,} parameters")


def _compare(command: Compare, overrides: Sequence[str], console: Console) -> None:
    from neuroconv.compare import compare_and_report  # draws plots: not loaded for `list`

    config = load_config(command.config, overrides)
    compare_and_report(
        config, output=command.report, title=command.config.stem, linear=command.linear
    )


def _demo(command: Demo, console: Console) -> None:
    from neuroconv.compare import demo

    demo(report=command.report)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
