"""Option types that commands share, and their output files."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from tyro.constructors import PrimitiveConstructorSpec

from neuroconv.core.files import write_text

PICTURES = (".svg", ".png", ".pdf")

# Arguments by their metavar, without tyro's "(required)" or "(default: None)" behind their help.
named = partial(tyro.conf.arg, help_behavior_hint="")
repeatable = partial(tyro.conf.arg, help_behavior_hint="(repeatable)")

Words = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
FileOption = Annotated[Path | None, named(metavar="FILE")]
PageOption = Annotated[Path, tyro.conf.arg(metavar="FILE")]
ConfigArgument = Annotated[Path, tyro.conf.Positional, named(metavar="CONFIG")]
RunArgument = Annotated[Path, tyro.conf.Positional, named(metavar="RUN")]
PatternArgument = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")]


def _shape_option(
    metavar: str, expected: str, axes: int | None = None
) -> PrimitiveConstructorSpec[tuple[int, ...] | None]:
    """Returns an option of sizes such as 3x224x224, with the given number of axes or any."""

    def parse(words: list[str]) -> tuple[int, ...]:
        sizes = words[0].split("x")
        well_formed = all(size.isdecimal() and 0 < int(size[:19]) < 10**18 for size in sizes)
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


InputShape = Annotated[tuple[int, ...], _shape_option("AxBx...", "the shape of one sample")]
ImageShapeOption = Annotated[
    tuple[int, int, int] | None,
    _shape_option("CxHxW", "channels x height x width in pixels", axes=3),
    named(),
]


def check_output(path: Path | None, option: str, suffixes: tuple[str, ...] = ()) -> None:
    """Creates the folder of an output file, before the work rather than after it.

    Raises:
        ValueError: the file cannot be written, or has none of the suffixes.
    """
    if path is None:
        return
    if suffixes and path.suffix not in suffixes:
        raise ValueError(
            f"{option} {path}: the ending {path.suffix!r} is not known; expected one "
            f"of {', '.join(suffixes)}"
        )
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


def write_json(console: Console, path: Path | None, values: Any, remark: str = "") -> None:
    """Writes values to a JSON file, and says so; without a path, nothing."""
    if path is None:
        return
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
    console.out(f"written to {path}{remark}")
