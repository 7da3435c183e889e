"""`profile`, `cells` and `operators`: what models cost, whose numbers, and how it is counted."""

import json
from collections import Counter
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from neuroconv import flops
from neuroconv.cli.options import (
    FileOption,
    ImageShapeOption,
    InputShapeOption,
    check_output,
    check_picture,
    print_line,
    print_text,
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
        self._check_options({subject.kind for subject in subjects})
        check_output(self.json, "--json")
        check_picture(self.plot, "--plot")
        profiles = [self._profile(subject) for subject in track(subjects, "counting")]
        columns = max(1, (console.width - 54) // 22)  # of about 22 characters, beside the labels
        for first in range(0, len(profiles), columns):
            shown = profiles[first : first + columns]
            is_last = first + columns >= len(profiles)
            console.print(summary_table(shown, self.convention, legend=is_last))
        for counted in profiles if self.stages else ():
            console.print(stage_table(counted, self.convention))
        self._print_conditions(profiles, console)
        if self.json is not None:
            rows = [counted.to_dict() for counted in profiles]
            self.json.write_text(json.dumps(rows, indent=2) + "\n")
            print_line(console, f"written to {self.json}")
        if self.plot is not None:
            self._draw(subjects, profiles, self.plot)
            print_line(console, f"drawn in {self.plot}")
        if any(counted.agree is False for counted in profiles):
            raise RuntimeError("the counters disagree; see the table's last row")

    def _check_options(self, kinds: set[str]) -> None:
        """Refuses an option that is for another kind of NAME, and would change nothing."""
        cell = ("cell", "a cell, such as purkinje")
        options = {
            "--variant": (self.variant is not None, *cell),
            "--neurons": (self.neurons != 1, *cell),
            "--mode": (self.mode != "same", *cell),
            "--backend": (self.backend != "auto", *cell),
            "--image-shape": (self.image_shape is not None, "zoo", "a model of the zoo"),
            "--input-shape": (self.input_shape is not None, "module", "a module:Class"),
        }
        for option, (is_set, kind, description) in options.items():
            if is_set and kind not in kinds:
                raise ValueError(
                    f"{option} is for {description}, and there is none among {' '.join(self.names)}"
                )

    def _options(self) -> Options:
        return Options(**{field.name: getattr(self, field.name) for field in fields(Options)})

    def _profile(self, subject: Subject) -> flops.Profile:
        with torch.device("meta"):
            model, inputs = subject.build()
        size = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers(), inputs))
        if self.device != "meta" and size > _MOST_ELEMENTS:
            raise ValueError(
                f"{subject.name}: {size:,} numbers to hold on {self.device}, at most "
                f"{_MOST_ELEMENTS:,} are tried; lower --neurons or --batch, or count with "
                "--device meta, which takes no memory"
            )
        # Only a run needs memory: fvcore's on the CPU, or one that --device asks for.
        if self.device != "meta" or size <= _REAL_ELEMENTS:
            model, inputs = subject.build()
        count = partial(
            profile,
            model,
            inputs,
            name=subject.name,
            counters=COUNTERS if self.counter == "all" else (self.counter,),
            device=self.device,
            fvcore_device="cuda" if self.device == "cuda" else "cpu",
            strict=self.strict,
            timed=self.device != "meta",
        )
        return subject.run(count, inputs)

    def _print_conditions(self, profiles: list[flops.Profile], console: Console) -> None:
        """Prints the conditions under which the numbers hold, and what they leave out."""
        energy = profiles[0].energy()
        print_text(console, f"energy: {energy.node.name}; {energy.source}")
        measured = next((p.measured for p in profiles if p.measured is not None), None)
        if measured is None:
            print_line(console, "time: not measured on meta; add --device cpu or --device cuda")
        else:
            peak = measured.peak
            threads = "" if peak.threads is None else f", {peak.threads} threads"
            print_line(
                console,
                f"peaks measured now on {peak.device}{threads}, {peak.dtype}: "
                f"{in_units(peak.flop_per_s, 'FLOP/s')} ({peak.kernel}), "
                f"{in_units(peak.byte_per_s, 'B/s')} (copy)",
            )
            print_text(
                console,
                "inputs: uniform noise; for a run, its validation images. Bound by overhead: less "
                "than a tenth of both peaks",
            )
        for counted in profiles:
            name = counted.name
            for counter, reason in counted.skipped.items():
                print_line(console, f"{name}: {counter} was skipped: {reason}")
            if counted.stock_fvcore is not None and counted.stock_fvcore.unsupported:
                operators = (op.removeprefix("aten::") for op in counted.stock_fvcore.unsupported)
                listed = ", ".join(sorted(operators))
                print_text(console, f"{name}: fvcore as it comes has no handle for {listed}")
            if counted.unstated:
                kinds = Counter(
                    module.rpartition(" ")[2].strip("()") for module in counted.unstated
                )
                listed = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
                print_line(console, f"{name}: no closed form for {listed}")
            exact = counted.counts.get("exact")
            if exact is not None and exact.uncounted:
                print_line(
                    console, f"{name}: NOT COUNTED, no rule for {', '.join(exact.uncounted)}"
                )

    def _draw(self, subjects: list[Subject], profiles: list[flops.Profile], path: Path) -> None:
        from neuroconv.report.roofline import RooflinePoint, plot_roofline

        points = []
        for subject, counted in zip(subjects, profiles, strict=True):
            if counted.measured is None:  # it moves no byte, so a roofline cannot show it
                continue
            zoo = "networks" if counted.dendritic_neurons else "baselines"
            kinds = {"cell": "cells", "zoo": zoo, "run": "runs", "module": "modules"}
            reached = counted.measured.placement.flop_per_s
            points.append(
                RooflinePoint(counted.name, kinds[subject.kind], counted.flop_per_byte, reached)
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
        check_output(self.json, "--json")
        console.print(table)
        if self.cell is not None:
            console.print(references_table(self.cell))
        if self.json is not None:
            self.json.write_text(json.dumps(cells_rows(self.cell), indent=2) + "\n")
            print_line(console, f"written to {self.json}")


@dataclass(frozen=True)
class Operators:
    """Lists which operators each counter counts, how, and what costs nothing and why.

    Example: neuroconv operators '*conv*'
    """

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = "*"
    """a wildcard, such as '*softmax*'"""

    def __call__(self, console: Console) -> None:
        console.print(operators_table(self.pattern))
