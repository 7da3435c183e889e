"""`profile`, `cells` and `operators`: what models cost, whose numbers, and how it is counted."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from torch import Tensor, nn

from neuroconv import flops
from neuroconv.cli.options import (
    FileOption,
    ImageShapeOption,
    InputShapeOption,
    prepare,
    prepare_picture,
    say,
    tell,
    track,
)
from neuroconv.cli.subjects import Options, Subject, find_subjects
from neuroconv.flops import COUNTERS, in_units, operators_table, profile, stage_table, summary_table
from neuroconv.flops.machine.measured import machine_peak
from neuroconv.neurons import Variant
from neuroconv.neurons.presets.table import cells_rows, cells_table, references_table

_REAL_ELEMENTS = 100_000_000  # above it, a model is counted without being given memory
_MOST_ELEMENTS = 8_000_000_000  # above it, no machine is asked to hold it


@dataclass(frozen=True)
class Profile:
    """Counts what models and cells cost: multiply-adds, FLOPs, bytes, time, energy.

    A NAME is a model of `neuroconv list`, a cell (granule, purkinje, golgi, deep_nuclear or
    pyramidal: one neuron of full size), the folder of a finished run, or any module as
    module:Class. A wildcard stands for cells and models: '*' is all of them.

    Example: neuroconv profile granule purkinje --json cells.json

    Example: neuroconv profile '*' --device cpu --no-stages --plot roofline.svg

    Example: neuroconv profile torchvision.models:vit_b_16 --input-shape 3x224x224
    """

    names: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="NAME...", help_behavior_hint=""),
    ]
    """models, cells, runs, modules"""
    counter: Literal["all", "closed_form", "exact", "fvcore"] = "all"
    """what counts; counters that run must agree"""
    device: Literal["meta", "cpu", "cuda"] = "meta"
    """where the model runs to be counted. meta takes no memory, and leaves fvcore, which has to run
    the model, to the CPU and to models of up to 100 million parameters. On cpu and cuda time and
    firing are measured too, beside the machine's peaks"""
    convention: Literal["mac", "flop"] = "mac"
    """what the tables show of multiply-adds; 1 MAC = 2 FLOP"""
    strict: bool = False
    """fail on an operator that the exact counter has no rule for"""
    variant: Annotated[
        Variant | None,
        tyro.conf.arg(metavar="{dettmers2015,literature}", help_behavior_hint=""),
    ] = None
    """of a cell: whose numbers (default: the essay's, where it speaks of the cell)"""
    neurons: int = 1
    """of a cell: neurons in the population; a hundred million take no more time than one"""
    mode: Literal["same", "valid", "per_dendrite"] = "same"
    """of a cell: how the filter meets the sheet"""
    backend: Literal["auto", "direct", "fft", "matmul"] = "auto"
    """of a cell: the dendritic convolution's algorithm"""
    image_shape: ImageShapeOption = None
    """of a zoo model: its image, such as 3x224x224 (default: the model's own)"""
    input_shape: InputShapeOption = None
    """of a module:Class: one sample, such as 3x224x224"""
    batch: int = 1
    """samples in the run that is counted"""
    stages: bool = True
    """also print a table of the stages"""
    json: FileOption = None
    """write everything that the tables show, and more, to this file"""
    plot: FileOption = None
    """draw the roofline of this machine with every NAME on it, with --device cpu or cuda"""

    def __call__(self, console: Console) -> None:
        if not self.names:
            raise ValueError(
                "no name given; expected names such as: granule purkinje granule_convnet"
            )
        for option, value in (("--neurons", self.neurons), ("--batch", self.batch)):
            if value < 1:
                raise ValueError(f"{option} {value}: expected an integer of at least 1")
        if self.plot is not None and self.device == "meta":
            raise ValueError("--plot needs times, and meta runs nothing: add --device cpu or cuda")
        subjects = find_subjects(self.names, self._options())
        self._refuse_idle_options({subject.kind for subject in subjects})
        prepare(self.json, "--json")
        prepare_picture(self.plot, "--plot")
        profiles = [self._profile(subject) for subject in track(subjects, "counting")]
        side_by_side = max(1, (console.width - 54) // 22)  # labels, and columns as wide
        for first in range(0, len(profiles), side_by_side):
            shown = profiles[first : first + side_by_side]
            last = first + side_by_side >= len(profiles)
            console.print(summary_table(shown, self.convention, legend=last))
        if self.stages:
            for each in profiles:
                console.print(stage_table(each, self.convention))
        self._say_conditions(profiles, console)
        if self.json is not None:
            self.json.write_text(json.dumps([each.to_dict() for each in profiles], indent=2) + "\n")
            say(console, f"written to {self.json}")
        if self.plot is not None:
            self._draw(subjects, profiles, self.plot)
            say(console, f"drawn in {self.plot}")
        if any(each.agree is False for each in profiles):
            raise RuntimeError("the counters disagree; see the table's last row")

    def _refuse_idle_options(self, kinds: set[str]) -> None:
        """An option for another kind of NAME would change nothing, and must not seem to."""
        given = {
            "--variant": (self.variant is not None, "cell", "a cell, such as purkinje"),
            "--neurons": (self.neurons != 1, "cell", "a cell, such as purkinje"),
            "--mode": (self.mode != "same", "cell", "a cell, such as purkinje"),
            "--backend": (self.backend != "auto", "cell", "a cell, such as purkinje"),
            "--image-shape": (self.image_shape is not None, "zoo", "a model of the zoo"),
            "--input-shape": (self.input_shape is not None, "module", "a module:Class"),
        }
        for option, (is_given, kind, whose) in given.items():
            if is_given and kind not in kinds:
                raise ValueError(
                    f"{option} is for {whose}, and there is none among {' '.join(self.names)}"
                )

    def _options(self) -> Options:
        return Options(
            batch=self.batch,
            neurons=self.neurons,
            variant=self.variant,
            mode=self.mode,
            backend=self.backend,
            image_shape=self.image_shape,
            input_shape=self.input_shape,
        )

    def _profile(self, subject: Subject) -> flops.Profile:
        with torch.device("meta"):
            model, inputs = subject.build()
        held = (*model.parameters(), *model.buffers(), inputs)
        size = sum(tensor.numel() for tensor in held)
        if self.device != "meta" and size > _MOST_ELEMENTS:
            raise ValueError(
                f"{subject.name}: {size:,} numbers to hold on {self.device}, at most "
                f"{_MOST_ELEMENTS:,} are tried; lower --neurons or --batch, or count with "
                "--device meta, which takes no memory"
            )
        # Only a run needs memory: fvcore's on the CPU, or one that --device asks for.
        if self.device != "meta" or size <= _REAL_ELEMENTS:
            model, inputs = subject.build()
        return subject.run(lambda: self._count(subject.name, model, inputs), inputs)

    def _count(self, name: str, model: nn.Module, inputs: Tensor) -> flops.Profile:
        return profile(
            model,
            inputs,
            name=name,
            counters=COUNTERS if self.counter == "all" else (self.counter,),
            device=self.device,
            fvcore_device="cuda" if self.device == "cuda" else "cpu",
            strict=self.strict,
            timed=self.device != "meta",
        )

    def _say_conditions(self, profiles: list[flops.Profile], console: Console) -> None:
        """What the numbers hold under, and what is not in them."""
        measured = next((each.measured for each in profiles if each.measured is not None), None)
        energy = profiles[0].energy()
        tell(console, f"energy: {energy.node.name}; {energy.source}")
        if measured is None:
            say(console, "time: not measured on meta; add --device cpu or --device cuda")
        else:
            peak = measured.peak
            threads = "" if peak.threads is None else f", {peak.threads} threads"
            say(
                console,
                f"peaks measured now on {peak.device}{threads}, {peak.dtype}: "
                f"{in_units(peak.flop_per_s, 'FLOP/s')} ({peak.kernel}), "
                f"{in_units(peak.byte_per_s, 'B/s')} (copy)",
            )
            tell(
                console,
                "inputs: uniform noise; of a run, its validation images. Bound by overhead: less "
                "than a tenth of both peaks",
            )
        for each in profiles:
            for what, reason in each.skipped.items():
                say(console, f"{each.name}: {what} was skipped: {reason}")
            if each.stock_fvcore is not None and each.stock_fvcore.unsupported:
                lacking = (op.removeprefix("aten::") for op in each.stock_fvcore.unsupported)
                names = ", ".join(sorted(lacking))
                tell(console, f"{each.name}: fvcore as it comes has no handle for {names}")
            if each.unstated:
                kinds = Counter(name.rpartition(" ")[2].strip("()") for name in each.unstated)
                listed = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
                say(console, f"{each.name}: no closed form for {listed}")
            exact = each.counts.get("exact")
            if exact is not None and exact.uncounted:
                say(
                    console,
                    f"{each.name}: NOT COUNTED, no rule for {', '.join(exact.uncounted)}",
                )

    def _draw(self, subjects: list[Subject], profiles: list[flops.Profile], path: Path) -> None:
        from neuroconv.report.roofline import RooflinePoint, plot_roofline

        points = []
        for subject, each in zip(subjects, profiles, strict=True):
            if each.measured is None:  # it moves no byte: the roofline has no place for it
                continue
            of_zoo = "networks" if each.dendritic_neurons else "baselines"
            kinds = {"cell": "cells", "zoo": of_zoo, "run": "runs", "module": "modules"}
            points.append(
                RooflinePoint(
                    name=each.name,
                    kind=kinds[subject.kind],
                    flop_per_byte=each.flop_per_byte,
                    flop_per_s=each.measured.placement.flop_per_s,
                )
            )
        plot_roofline(points, machine_peak(self.device)).savefig(path)


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


@dataclass(frozen=True)
class Operators:
    """Lists which operators each counter counts, how, and what costs nothing and why.

    Example: neuroconv operators '*conv*'
    """

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = "*"
    """a wildcard, such as '*softmax*'"""

    def __call__(self, console: Console) -> None:
        console.print(operators_table(self.pattern))
