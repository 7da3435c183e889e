"""Option types that commands share, their printing, and checks of output files."""

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

Item = TypeVar("Item")
PICTURES = (".svg", ".png", ".pdf")


def _shape_option(
    metavar: str, expected: str, axes: int | None = None
) -> PrimitiveConstructorSpec[tuple[int, ...] | None]:
    """Returns an option of sizes such as 3x224x224, with the given number of axes or any."""

    def parse(words: list[str]) -> tuple[int, ...]:
        sizes = words[0].split("x")
        well_formed = all(size.isdecimal() and int(size) for size in sizes)
        if not well_formed or len(sizes) != (axes or len(sizes)):
            raise ValueError(f"{words[0]!r}: expected {expected}, such as 3x224x224")
        return tuple(map(int, sizes))

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=parse,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: ["x".join(map(str, value or ()))],
    )


# What tyro's help shows of an option: its metavar, and an empty hint instead of "(default: None)".
_NO_HINT = tyro.conf.arg(help_behavior_hint="")
FileOption = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
PageOption = Annotated[Path, tyro.conf.arg(metavar="FILE")]
ConfigArgument = Annotated[
    Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG", help_behavior_hint="")
]
RunArgument = Annotated[
    Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="")
]
InputShapeOption = Annotated[
    tuple[int, ...] | None, _shape_option("AxBx...", "the shape of one sample"), _NO_HINT
]
ImageShapeOption = Annotated[
    tuple[int, int, int] | None,
    _shape_option("CxHxW", "channels x height x width in pixels", axes=3),
    _NO_HINT,
]


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Iterates over the items, with a progress bar on standard error if that is a terminal."""
    console = Console(stderr=True)
    return progress.track(
        items, description, console=console, transient=True, disable=not console.is_terminal
    )


def print_line(console: Console, text: str) -> None:
    """Prints text as it is: a path keeps its brackets, and stays on one line."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def print_text(console: Console, text: str) -> None:
    """Prints prose, wrapped to the width of the console."""
    console.print(text, markup=False, highlight=False)


def config_keys() -> str:
    """Returns the keys of a configuration's tables and their defaults, written as in the file."""
    lines = []
    for name, table in (("data", DataConfig), ("train", TrainConfig)):
        keys = [
            field.name
            if field.default is None or field.default is MISSING
            else f"{field.name} = {json.dumps(field.default)}"
            for field in fields(table)
        ]
        lines.append(f"Keys of [{name}]: {', '.join(keys)}.")
    lines.append("Keys of [model]: name, one of `neuroconv list`, and the keywords of that model.")
    return "\n\n    ".join(lines)


def check_picture(path: Path | None, option: str) -> None:
    """Does what `check_output` does for a picture, whose suffix names its format."""
    if path is not None and path.suffix not in PICTURES:
        raise ValueError(
            f"{option} {path}: the ending {path.suffix!r} is no picture; expected one of "
            f"{', '.join(PICTURES)}"
        )
    check_output(path, option)


def check_output(path: Path | None, option: str) -> None:
    """Creates the folder of an output file, before the work rather than after it.

    Raises:
        ValueError: the file cannot be written.
    """
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
