"""`list` and `match`: what the zoo has, and opponents of equal size."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

from neuroconv.cli.options import ImageShapeOption, say
from neuroconv.neurons import CELL_CLASSES
from neuroconv.zoo import count_parameters, create_model, get_builder, list_models, match_parameters


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
                size = count_parameters(create_model(name))
            summary = (inspect.getdoc(get_builder(name)) or "").partition("\n")[0]
            table.add_row(name, f"{size:,}", "x".join(map(str, image_shape(name))), summary)
        console.print(table)
        say(console, f"cells for `neuroconv profile`: {', '.join(CELL_CLASSES)}")


@dataclass(frozen=True)
class Match:
    """Finds the width that gives an opponent as many parameters as a model has, but no more.

    Example: neuroconv match granule_convnet --opponent mlp
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
    """the model to match"""
    opponent: Annotated[str, tyro.conf.arg(metavar="NAME")] = "plain_cnn"
    """a zoo model with a free width"""
    image_shape: ImageShapeOption = None
    """the image, such as 3x32x32 (default: the model's own)"""

    def __call__(self, console: Console) -> None:
        defaults = inspect.signature(get_builder(self.name)).parameters
        task = {  # the opponent is built for the very task of the model
            "image_shape": self.image_shape or image_shape(self.name),
            "num_classes": defaults["num_classes"].default,
            "time_steps": defaults["time_steps"].default,
        }
        with torch.device("meta"):
            target = count_parameters(create_model(self.name, **task))
        keywords = match_parameters(self.opponent, target, **task)
        with torch.device("meta"):
            matched = count_parameters(create_model(self.opponent, **keywords))
        say(console, f"{self.name}: {target:,} parameters")
        say(console, f"{self.opponent} with width={keywords['width']}: {matched:,} parameters")


def image_shape(name: str) -> tuple[int, int, int]:
    """The image that a model is built for by default: (channels, height, width)."""
    shape = inspect.signature(get_builder(name)).parameters["image_shape"].default
    return (shape[0], shape[1], shape[2])
