"""`profile` and `cells`: what models and cells cost, and whose numbers a cell has."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from torch import Tensor, nn

from neuroconv import flops
from neuroconv.cli.options import FileOption, ImageShapeOption, prepare, say
from neuroconv.cli.zoo import image_shape
from neuroconv.flops import COUNTERS, profile, stage_table, summary_table
from neuroconv.neurons import CELL_CLASSES, Variant
from neuroconv.neurons.cells_table import cells_rows, cells_table, references_table
from neuroconv.zoo import count_parameters, create_model

_AXONS = 1_000  # that a cell is profiled with; sparse wiring costs the same for any number
_REAL_PARAMETERS = 20_000_000  # above it, a model is counted without being given memory


@dataclass(frozen=True)
class Profile:
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
    image_shape: ImageShapeOption = None
    """of a zoo model: its image, such as 3x224x224 (default: the model's own)"""
    batch: int = 1
    """samples in the run that is counted"""
    stages: bool = True
    """also print a table of the stages"""
    json: FileOption = None
    """write everything that the tables show, and more, to this file"""

    def __call__(self, console: Console) -> None:
        if not self.names:
            raise ValueError(
                "no name given; expected names such as: granule purkinje granule_convnet"
            )
        for option, value in (("--neurons", self.neurons), ("--batch", self.batch)):
            if value < 1:
                raise ValueError(f"{option} {value}: expected an integer of at least 1")
        prepare(self.json, "--json")
        counters = COUNTERS if self.counter == "all" else (self.counter,)
        profiles = [_profile_one(name, self, counters) for name in self.names]
        side_by_side = max(1, (console.width - 40) // 18)
        for first in range(0, len(profiles), side_by_side):
            shown = profiles[first : first + side_by_side]
            console.print(summary_table(shown, self.convention))
        if self.stages:
            for each in profiles:
                console.print(stage_table(each, self.convention))
        for each in profiles:
            for counter, reason in each.skipped.items():
                say(console, f"{each.name}: {counter} was skipped: {reason}")
            if each.unstated:
                say(console, f"{each.name}: no closed form for {', '.join(each.unstated)}")
        if self.json is not None:
            self.json.write_text(json.dumps([each.to_dict() for each in profiles], indent=2) + "\n")
            say(console, f"written to {self.json}")
        if any(each.agree is False for each in profiles):
            raise RuntimeError("the counters disagree; see the table's last column")


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
    json: FileOption = None
    """write all rows, with whole sources, to this file"""

    def __call__(self, console: Console) -> None:
        table = cells_table(self.cell)
        prepare(self.json, "--json")
        console.print(table)
        if self.cell is not None:
            console.print(references_table(self.cell))
        if self.json is not None:
            self.json.write_text(json.dumps(cells_rows(self.cell), indent=2) + "\n")
            say(console, f"written to {self.json}")


def _profile_one(name: str, command: Profile, counters: Sequence[str]) -> flops.Profile:
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


def _build(name: str, command: Profile) -> tuple[nn.Module, Tensor]:
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
        shape = command.image_shape or image_shape(name)
    except ValueError as error:
        raise ValueError(f"{error}; or a cell: {', '.join(CELL_CLASSES)}") from None
    return create_model(name, image_shape=shape), torch.zeros(command.batch, *shape)
