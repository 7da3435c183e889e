"""`list` and `match`: what the zoo has, and opponents of equal size."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from neuroconv.cli.options import ImageShapeOption, print_line
from neuroconv.comparison import count_flops, match_flops, match_parameters
from neuroconv.neurons import CELL_CLASSES
from neuroconv.zoo import count_parameters, create_model, get_builder, list_models


@dataclass(frozen=True)
class List:
    """Lists the zoo's models with their parameters, and the cells that `profile` takes.

    Example: neuroconv list 'granule*'
    """

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = "*"
    """a wildcard, such as 'granule*'"""

    def __call__(self, console: Console) -> None:
        names = list_models(self.pattern)
        if not names:
            raise ValueError(
                f"no model matches {self.pattern!r}; the zoo has {', '.join(list_models())}"
            )
        table = Table("name", "parameters", "image", "what it is")
        table.columns[1].justify = "right"
        for name in names:
            with torch.device("meta"):
                parameters = count_parameters(create_model(name))
            summary = (inspect.getdoc(get_builder(name)) or "").partition("\n")[0]
            table.add_row(name, f"{parameters:,}", "x".join(map(str, image_shape(name))), summary)
        console.print(table)
        print_line(console, f"cells for `neuroconv profile`: {', '.join(CELL_CLASSES)}")


@dataclass(frozen=True)
class Match:
    """Finds the width that gives an opponent as many parameters as a model has, or just fewer.

    With --by flops the opponent costs as many FLOPs an image instead: two for each multiply-add of
    the convolutions, matrix products and Fourier transforms that run; nothing else is counted.

    Example: neuroconv match granule_convnet --opponent mlp

    Example: neuroconv match granule_convnet --by flops
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
    """the model to match"""
    opponent: Annotated[str, tyro.conf.arg(metavar="NAME")] = "plain_cnn"
    """a zoo model with a free width"""
    by: Literal["parameters", "flops"] = "parameters"
    """the quantity that the two have in equal amount"""
    image_shape: ImageShapeOption = None
    """the image, such as 3x32x32 (default: the model's own)"""

    def __call__(self, console: Console) -> None:
        for name in (self.name, self.opponent):
            if name in CELL_CLASSES:
                raise ValueError(
                    f"{name} is a cell, and `match` takes models of the zoo: "
                    f"{', '.join(list_models())}; `neuroconv profile {name}` counts a cell"
                )
        defaults = inspect.signature(get_builder(self.name)).parameters
        task = {  # the opponent is built for the same task as the model
            "image_shape": self.image_shape or image_shape(self.name),
            "num_classes": defaults["num_classes"].default,
            "time_steps": defaults["time_steps"].default,
        }
        if self.by == "flops":
            keywords = match_flops(self.opponent, count_flops(self.name, **task), **task)
        else:
            keywords = match_parameters(self.opponent, _parameters(self.name, **task), **task)
        print_line(console, self._sizes(self.name, task))
        print_line(
            console, self._sizes(self.opponent, keywords, f" with width={keywords['width']}")
        )

    def _sizes(self, name: str, keywords: dict[str, Any], width: str = "") -> str:
        sizes = f"{name}{width}: {_parameters(name, **keywords):,} parameters"
        if self.by == "flops":
            sizes += f", {count_flops(name, **keywords):,} FLOPs an image"
        return sizes


def _parameters(name: str, **keywords: Any) -> int:
    with torch.device("meta"):
        return count_parameters(create_model(name, **keywords))


def image_shape(name: str) -> tuple[int, int, int]:
    """Returns the default image of a model: (channels, height, width)."""
    shape = inspect.signature(get_builder(name)).parameters["image_shape"].default
    return (shape[0], shape[1], shape[2])
