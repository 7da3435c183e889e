"""`profile`: the cost of models and cells."""

import fnmatch
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from neuroconv import flops
from neuroconv.cli.imported import DTYPES, build_inputs, build_module
from neuroconv.cli.options import (
    PICTURES,
    FileOption,
    ImageShapeOption,
    InputShape,
    Words,
    check_output,
    named,
    repeatable,
    write_json,
)
from neuroconv.core.arguments import Size, as_argument, buildable
from neuroconv.core.checks import check_choice
from neuroconv.core.text import Terminal
from neuroconv.flops import (
    COUNTERS,
    UncountedWarning,
    in_units,
    profile,
    stage_table,
    summary_table,
)
from neuroconv.flops.inputs import as_inputs
from neuroconv.flops.machine.roofline import machine_peak
from neuroconv.flops.operators import explain_uncounted
from neuroconv.learning import RULES, NotLocal
from neuroconv.learning.cost import learning_cost
from neuroconv.neurons import CELL_CLASSES, Variant
from neuroconv.training import rebuild
from neuroconv.training.process_memory import ProcessMemory, process_memory
from neuroconv.zoo import create_model, default_keywords, list_models

_REAL_ELEMENTS = 100_000_000  # above it, a model is counted on meta, without memory
_MOST_ELEMENTS = 8_000_000_000  # above it, a model is not put on a device


@dataclass(frozen=True)
class Subject:
    """What a NAME stands for; `build` makes the model and its inputs on the torch.device."""

    name: str
    kind: Literal["cell", "zoo", "run", "module"]
    build: Callable[[], tuple[nn.Module, Any]]


@dataclass(frozen=True)
class Profile:
    """Counts what models and cells cost: multiply-adds, FLOPs, bytes, time, energy.

    A NAME is a model of `neuroconv list`, a cell (granule, purkinje, golgi, deep_nuclear or
    pyramidal: one neuron of full size), the folder of a finished run, or any module as
    module:Class. A wildcard stands for cells and models: '*' is all of them.

    Example: neuroconv profile granule purkinje --json cells.json

    Example: neuroconv profile '*' --device cpu --no-stages --plot roofline.svg

    Example: neuroconv profile torchvision.models:vit_b_16 --input-shape 3x224x224

    Example: neuroconv profile torch.nn:Embedding --argument num_embeddings=1000 --argument
    embedding_dim=64 --input-shape 128 --input-dtype int64
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, named(metavar="NAME...")]
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
    variant: Annotated[Variant | None, named(metavar="{dettmers2015,literature}")] = None
    """of a cell: whose numbers (default: the essay's, where it speaks of the cell)"""
    neurons: int = 1
    """of a cell: neurons in the population; a hundred million take no more time than one"""
    axons: Annotated[int | None, named(metavar="INT")] = None
    """of a cell: axons that the population receives (default: as many as one cell has, the
    dendrites of a granule cell, the synapses of others); they cost memory, and no arithmetic"""
    mode: Literal["same", "valid", "per_dendrite"] = "same"
    """of a cell: how the filter meets the sheet"""
    backend: Literal["auto", "direct", "fft", "matmul"] = "auto"
    """of a cell: the dendritic convolution's algorithm"""
    image_shape: ImageShapeOption = None
    """of a zoo model: its image, such as 3x224x224 (default: the model's own)"""
    input_shape: Annotated[
        tuple[InputShape, ...], tyro.conf.UseAppendAction, repeatable(metavar="AxBx...")
    ] = ()
    """of a module:Class: one sample, such as 3x224x224; once for each positional input"""
    input_dtype: Annotated[Words, repeatable(metavar="DTYPE")] = ()
    """of a module:Class: float32 (the default), float16, int64, bool ..., for all inputs or for
    each; integers are zeros, which are valid token ids"""
    argument: Annotated[Words, repeatable(metavar="NAME=VALUE")] = ()
    """of a module:Class: an argument that it is built with, such as num_classes=10"""
    batch: int = 1
    """samples in the run that is counted"""
    ranks: Annotated[int | None, named(metavar="INT")] = None
    """also state the memory of a process in training by AdamW, with the model spread over this
    number of processes; --batch is of all, on meta, and nothing is allocated"""
    split: Literal["none", "neurons"] = "none"
    """with --ranks: leave each process a part of all parameters, or some of a population's neurons,
    as [train] shard and split do"""
    rule: Annotated[Words, repeatable(metavar="RULE")] = ()
    """of a zoo model: also count an update by this learning rule, such as backprop"""
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
        sizes = {"--neurons": self.neurons, "--axons": self.axons, "--batch": self.batch}
        sizes["--ranks"] = self.ranks
        for option, value in sizes.items():
            as_argument(option, value, Size | None)
        for dtype in self.input_dtype:
            check_choice("--input-dtype", dtype, DTYPES)
        for rule in self.rule:
            check_choice("--rule", rule, tuple(RULES))
        if self.plot is not None and self.device == "meta":
            raise ValueError("--plot needs times, and meta runs nothing: add --device cpu or cuda")
        subjects = self._subjects()
        self._check_options({subject.kind for subject in subjects})
        check_output(self.json, "--json")
        check_output(self.plot, "--plot", PICTURES)
        screen = Terminal(stderr=True)
        progress = track(
            subjects, "counting", console=screen, transient=True, disable=not screen.is_terminal
        )
        records = [self._profile(subject) for subject in progress]
        spread = [] if self.ranks is None else [self._process_memory(s) for s in subjects]
        columns = max(1, (console.width - 54) // 22)  # of about 22 characters, beside the labels
        for first in range(0, len(records), columns):
            is_last = first + columns >= len(records)
            part = records[first : first + columns]
            console.print(summary_table(part, self.convention, legend=is_last))
        for record in records if self.stages else ():
            console.print(stage_table(record, self.convention))
        for record, memory in zip(records, spread, strict=False):
            bytes_of = ", ".join(f"{k} {in_units(v, 'B')}" for k, v in memory._asdict().items())
            total = in_units(sum(memory), "B")
            console.print(f"{record.name}, each of {self.ranks} processes: {bytes_of}: {total}")
        learning = [self._learning(subject, console) for subject in subjects]
        _print_conditions(records, console)
        if self.json is not None:
            rows = [r.to_dict() | costs for r, costs in zip(records, learning, strict=True)]
            for row, memory in zip(rows, spread, strict=False):
                row["process_memory_bytes"] = memory._asdict()
            write_json(console, self.json, rows)
        if self.plot is not None:
            self._draw(subjects, records, self.plot)
            console.out(f"drawn in {self.plot}")
        if any(record.agree is False for record in records):
            raise RuntimeError("the counters disagree; see the table's last row")

    def _check_options(self, kinds: set[str]) -> None:
        """Refuses an option that is for another kind of NAME, and would change nothing."""
        options = {
            "cell": ("a cell, such as purkinje", "variant neurons axons mode backend"),
            "zoo": ("a model of the zoo", "image_shape rule"),
            "module": ("a module:Class", "input_shape input_dtype argument"),
        }
        defaults = {field.name: field.default for field in fields(self)}
        for kind, (description, names) in options.items():
            for name in names.split():
                if kind not in kinds and getattr(self, name) != defaults[name]:
                    raise ValueError(
                        f"--{name.replace('_', '-')} is for {description}, and there is none among "
                        f"{' '.join(self.names)}"
                    )

    def _subjects(self) -> list[Subject]:
        """Returns the subject of each name, once; a wildcard matches cells and zoo models."""
        all_names = [*CELL_CLASSES, *list_models(installed=True)]
        subjects: dict[str, Subject] = {}
        for name in self.names:
            if not name:
                raise ValueError("an empty name; expected names such as: granule purkinje")
            is_wildcard = any(sign in name for sign in "*?[")
            matches = fnmatch.filter(all_names, name) if is_wildcard else [name]
            if not matches:
                raise ValueError(f"{name!r} matches none of {', '.join(all_names)}")
            subjects |= {match: self._subject(match) for match in matches}
        return list(subjects.values())

    def _subject(self, name: str) -> Subject:
        if name in CELL_CLASSES:
            return Subject(name, "cell", lambda: self._cell(name))
        if ":" in name:
            return Subject(name, "module", lambda: self._module(name))
        if Path(name).is_dir():
            return Subject(Path(name).name, "run", lambda: self._run(name))
        try:
            shape = self.image_shape or default_keywords(name)["image_shape"]
        except ValueError as error:
            raise ValueError(
                f"{error}; or a cell: {', '.join(CELL_CLASSES)}; or a run's folder; or module:Class"
            ) from None
        return Subject(name, "zoo", lambda: self._network(name, shape))

    def _cell(self, name: str) -> tuple[nn.Module, Tensor]:
        stages: Any = {"tree": {"mode": self.mode}, "taps": {"backend": self.backend}}
        cell = CELL_CLASSES[name]
        axons = cell.physiology(self.variant).axons if self.axons is None else self.axons
        cells = cell(axons, self.neurons, variant=self.variant, **stages)
        return cells, torch.rand(self.batch, axons, cells.time_steps)

    def _network(self, name: str, image_shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
        return create_model(name, image_shape=image_shape), torch.rand(self.batch, *image_shape)

    def _run(self, folder: str) -> tuple[nn.Module, Tensor]:
        with torch.device("cpu"):
            _, model, splits = rebuild(folder)
            if len(splits.val) < self.batch:
                raise ValueError(f"--batch {self.batch}: {folder} has {len(splits.val)} images")
            images = torch.stack([splits.val[index][0] for index in range(self.batch)])
        return model, images

    def _module(self, name: str) -> tuple[nn.Module, Any]:
        if not self.input_shape:
            raise ValueError(
                f"{name}: give the shape of one sample, such as --input-shape 3x224x224"
            )
        inputs = build_inputs(self.input_shape, self.input_dtype or ("float32",), self.batch)
        return build_module(name, self.argument), inputs

    def _profile(self, subject: Subject) -> flops.Profile:
        with torch.device("meta"), buildable(subject.name, vars(self)):
            model, inputs = subject.build()
        tensors = (*model.parameters(), *model.buffers(), *as_inputs(inputs).tensors)
        size = sum(tensor.numel() for tensor in tensors)
        if self.device != "meta" and size > _MOST_ELEMENTS:
            raise ValueError(
                f"{subject.name}: {size:,} numbers to hold on {self.device}, at most "
                f"{_MOST_ELEMENTS:,} are tried; lower --neurons or --batch, or count with "
                "--device meta, which takes no memory"
            )
        # Only a run needs memory: fvcore's on the CPU, or one that --device asks for.
        if self.device != "meta" or size <= _REAL_ELEMENTS:
            model, inputs = subject.build()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UncountedWarning)  # printed below the table
                return profile(
                    model, inputs, name=subject.name, device=self.device, strict=self.strict,
                    counters=COUNTERS if self.counter == "all" else (self.counter,),
                    fvcore_device="cuda" if self.device == "cuda" else "cpu",
                    timed=self.device != "meta",
                )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{subject.name}: {error}") from error

    def _process_memory(self, subject: Subject) -> ProcessMemory:
        assert self.ranks is not None
        one = self
        if self.split == "none":  # each process takes its part of the batch
            one = replace(self, batch=-(-self.batch // self.ranks))
        build = next(s.build for s in one._subjects() if s.name == subject.name)
        return process_memory(build, self.ranks, self.split)

    def _learning(self, subject: Subject, console: Console) -> dict[str, Any]:
        """Prints what an update by each rule costs, or why it is refused; returns plain data."""
        costs: dict[str, Any] = {}
        for rule in self.rule if subject.kind == "zoo" else ():
            model, inputs = subject.build()
            try:
                costs[rule] = vars(cost := learning_cost(model, rule, inputs))
                console.print(f"{subject.name} by {rule}, a sample: {cost}")
            except NotLocal as error:
                costs[rule] = {"refused": str(error)}
                console.print(f"{subject.name}: {error}")
        return {"learning": costs} if costs else {}

    def _draw(self, subjects: list[Subject], records: list[flops.Profile], path: Path) -> None:
        from neuroconv.report.roofline import RooflinePoint, plot_roofline

        points = []
        for subject, record in zip(subjects, records, strict=True):
            if record.measured is None:  # it moves no byte, so a roofline cannot show it
                continue
            zoo = "networks" if record.dendritic_neurons else "baselines"
            kinds = {"cell": "cells", "zoo": zoo, "run": "runs", "module": "modules"}
            reached = record.measured.placement.flop_per_s
            points.append(
                RooflinePoint(record.name, kinds[subject.kind], record.flop_per_byte, reached)
            )
        plot_roofline(points, machine_peak(self.device)).savefig(path)


def _print_conditions(records: list[flops.Profile], console: Console) -> None:
    """Prints the conditions under which the numbers hold, and what they leave out."""
    energy = records[0].energy()
    console.print(f"energy: {energy.node.name}; {energy.source}")
    measured = next((record.measured for record in records if record.measured is not None), None)
    if measured is None:
        console.out("time: not measured on meta; add --device cpu or --device cuda")
    else:
        peak = measured.peak
        threads = "" if peak.threads is None else f", {peak.threads} threads"
        console.out(
            f"peaks measured now on {peak.device}{threads}, {peak.dtype}: "
            f"{in_units(peak.flop_per_s, 'FLOP/s')} ({peak.kernel}), "
            f"{in_units(peak.byte_per_s, 'B/s')} (copy)"
        )
        console.print(
            "inputs: uniform noise, integers zero; for a run, its validation images. Bound by "
            "overhead: less than a tenth of both peaks"
        )
    for record in records:
        for counter, reason in record.skipped.items():
            console.out(f"{record.name}: {counter} was skipped: {reason}")
        if record.stock_fvcore is not None and record.stock_fvcore.unsupported:
            operators = (op.removeprefix("aten::") for op in record.stock_fvcore.unsupported)
            names = ", ".join(sorted(operators))
            console.print(f"{record.name}: fvcore as it comes has no handle for {names}")
        if record.unstated:
            kinds = Counter(module.rpartition(" ")[2].strip("()") for module in record.unstated)
            names = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
            console.out(f"{record.name}: no closed form for {names}")
        if record.uncounted:
            reasons = explain_uncounted(record.uncounted)
            console.out(f"{record.name}: NOT COUNTED, no rule for {reasons}")
        for operator, mac in record.reference.integers.items():
            console.out(f"{record.name}: {operator} multiplies integers, in no total: {mac:,} MAC")
