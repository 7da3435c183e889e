"""What commands share: the kinds of their options, and files that are checked before the work."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, TypeVar

import tyro
from rich import progress
from rich.console import Console
from tyro.constructors import PrimitiveConstructorSpec

from neuroconv.training import DataConfig, TrainConfig


def _shape_option(
    metavar: str, what: str, axes: int | None = None
) -> PrimitiveConstructorSpec[tuple[int, ...] | None]:
    """An option of sizes such as 3x224x224, the notation of `neuroconv list`; of any number of
    axes, or of so many."""

    def read(words: list[str]) -> tuple[int, ...]:
        sizes = words[0].split("x")
        well_formed = all(size.isdecimal() and int(size) for size in sizes)
        if not well_formed or len(sizes) != (axes or len(sizes)):
            raise ValueError(f"{words[0]!r}: expected {what}, such as 3x224x224")
        return tuple(map(int, sizes))

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: ["x".join(map(str, value or ()))],
    )


Item = TypeVar("Item")
PICTURES = (".svg", ".png", ".pdf")

# What tyro shows of an option: its metavar, and no "(default: None)".
FileOption = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
PageOption = Annotated[Path, tyro.conf.arg(metavar="FILE")]
ConfigArgument = Annotated[
    Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG", help_behavior_hint="")
]
RunArgument = Annotated[
    Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="")
]
InputShapeOption = Annotated[
    tuple[int, ...] | None,
    _shape_option("AxBx...", "the shape of one sample"),
    tyro.conf.arg(help_behavior_hint=""),
]
ImageShapeOption = Annotated[
    tuple[int, int, int] | None,
    _shape_option("CxHxW", "channels x height x width in pixels", axes=3),
    tyro.conf.arg(help_behavior_hint=""),
]


def track(items: Sequence[Item], what: str) -> Iterable[Item]:
    """The items, with a bar on a terminal's standard error while they are gone through."""
    console = Console(stderr=True)
    return progress.track(
        items, what, console=console, transient=True, disable=not console.is_terminal
    )


def say(console: Console, text: str) -> None:
    """Print as it is: a path keeps its brackets, and stays on one line."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def tell(console: Console, text: str) -> None:
    """Print prose, broken into lines that fit; no paths."""
    console.print(text, markup=False, highlight=False)


def keys_of_tables() -> str:
    """The keys of a configuration's tables and their defaults, as in the file."""
    told = []
    for name, table in (("data", DataConfig), ("train", TrainConfig)):
        keys = []
        for each in fields(table):
            known = each.default is not None and each.default is not MISSING
            keys.append(f"{each.name} = {json.dumps(each.default)}" if known else each.name)
        told.append(f"Keys of [{name}]: {', '.join(keys)}.")
    told.append("Keys of [model]: name, one of `neuroconv list`, and those of that model.")
    return "\n\n    ".join(told)


def prepare_picture(path: Path | None, option: str) -> None:
    """As `prepare`, for a picture; its ending is its format."""
    if path is not None and path.suffix not in PICTURES:
        raise ValueError(
            f"{option} {path}: the ending {path.suffix!r} is no picture; expected one of "
            f"{', '.join(PICTURES)}"
        )
    prepare(path, option)


def prepare(path: Path | None, option: str) -> None:
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
