"""`list`, `cells`, `operators` and `match`: what can be counted, and opponents of equal size."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from neuroconv.cli.options import (
    FileOption,
    ImageShapeOption,
    PatternArgument,
    check_output,
    named,
    write_json,
)
from neuroconv.comparison import count_axons, count_flops
from neuroconv.comparison.match import MATCHES, parameter_count
from neuroconv.data import DATASETS
from neuroconv.flops import operators_table
from neuroconv.neurons import CELL_CLASSES
from neuroconv.neurons.presets.table import cells_rows, cells_table, references_table
from neuroconv.training import list_configs
from neuroconv.zoo import default_keywords, get_builder, list_models


@dataclass(frozen=True)
class List:
    """Lists the zoo's models with their parameters, cells, configurations and data sets.

    Example: neuroconv list 'granule*'
    """

    pattern: PatternArgument = "*"
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
            shape = "x".join(map(str, default_keywords(name)["image_shape"]))
            summary = (inspect.getdoc(get_builder(name)) or "").partition("\n")[0]
            missing = not list_models(name, installed=True)
            table.add_row(name, "-" if missing else f"{parameter_count(name):,}", shape, summary)
        console.print(table)
        console.out(f"cells for `neuroconv profile`: {', '.join(CELL_CLASSES)}")
        console.out(f"configs for `neuroconv train` and `compare`: {', '.join(list_configs())}")
        console.out(f"data sets for `neuroconv train`, [data] name: {', '.join(DATASETS)}")


@dataclass(frozen=True)
class Cells:
    """Shows where the essay's numbers of a cell and the literature's differ, with their sources.

    Example: neuroconv cells

    Example: neuroconv cells purkinje --json purkinje.json
    """

    cell: Annotated[str | None, tyro.conf.Positional, named(metavar="CELL")] = None
    """granule, purkinje, golgi, deep_nuclear or pyramidal; default all, with short sources"""
    json: FileOption = None
    """write all rows, with whole sources, to this file"""

    def __call__(self, console: Console) -> None:
        table = cells_table(self.cell)
        check_output(self.json, "--json")
        console.print(table)
        if self.cell is not None:
            console.print(references_table(self.cell))
        write_json(console, self.json, cells_rows(self.cell))


@dataclass(frozen=True)
class Operators:
    """Lists which operators each counter counts, how, and what costs nothing and why.

    Example: neuroconv operators '*conv*'
    """

    pattern: PatternArgument = "*"
    """a wildcard, such as '*softmax*'"""

    def __call__(self, console: Console) -> None:
        console.print(operators_table(self.pattern))


@dataclass(frozen=True)
class Match:
    """Finds the width, and depth if need be, that gives an opponent as many parameters as a model.

    The width alone if it comes within 2 % of them; what is left is printed as a ratio. With --by
    flops the opponent costs as many FLOPs an image instead: two for each multiply-add of the
    convolutions, matrix products and Fourier transforms that run; nothing else is counted. With
    --by axons its units send one another as many values an image.

    Example: neuroconv match granule_convnet --opponent mlp

    Example: neuroconv match granule_convnet --by flops --json match.json
    """

    name: Annotated[str, tyro.conf.Positional, named(metavar="NAME")]
    """the model to match"""
    opponent: Annotated[str, tyro.conf.arg(metavar="NAME")] = "plain_cnn"
    """a zoo model with a free width"""
    by: Literal["parameters", "flops", "axons"] = "parameters"
    """the quantity that the two have in equal amount"""
    rule: Literal["nearest", "at_most"] = "nearest"
    """at_most: the largest width of the default depth that is not above the model"""
    image_shape: ImageShapeOption = None
    """the image, such as 3x32x32 (default: the model's own)"""
    json: FileOption = None
    """write the opponent's keywords and the ratio to this file"""

    def __call__(self, console: Console) -> None:
        check_output(self.json, "--json")
        for name in (self.name, self.opponent):
            if name in CELL_CLASSES:
                raise ValueError(
                    f"{name} is a cell, and `match` takes models of the zoo: "
                    f"{', '.join(list_models())}; `neuroconv profile {name}` counts a cell"
                )
        # The opponent is built for the same task as the model.
        defaults = default_keywords(self.name)
        task = {key: defaults[key] for key in ("image_shape", "num_classes", "time_steps")}
        if self.image_shape is not None:
            task["image_shape"] = self.image_shape
        count, match = MATCHES[self.by]
        at_most = self.rule == "at_most"
        matched = match(self.opponent, count(self.name, **task), at_most=at_most, **task)
        chosen = ", ".join(f"{key}={matched[key]}" for key in ("width", "depth") if key in matched)
        console.out(f"{self.name}: {self._size(self.name, task)}")
        console.out(f"{self.opponent} with {chosen}: {self._size(self.opponent, matched)}")
        console.out(f"ratio of {self.by}: {matched.ratio:.4f}")
        values = {
            "name": self.name, "opponent": self.opponent, "keywords": matched, "by": self.by,
            "target": matched.target, "matched": matched.amount,
            "matched_over_target": matched.ratio,
        }  # fmt: skip
        write_json(console, self.json, values)

    def _size(self, name: str, keywords: dict[str, Any]) -> str:
        size = f"{parameter_count(name, **keywords):,} parameters"
        if self.by == "flops":
            size += f", {count_flops(name, **keywords):,} FLOPs an image"
        if self.by == "axons":
            size += f", {count_axons(name, **keywords):,} axons an image"
        return size
