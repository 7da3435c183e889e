"""`bench`: how fast the neuron is, side by side with what it is held against."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from neuroconv.cli.options import FileOption, prepare, prepare_picture, say

if TYPE_CHECKING:
    from neuroconv.bench import BenchReport, Row


@dataclass(frozen=True)
class Bench:
    """Times neurons side by side with conv3d, fft-conv-pytorch and CNNs of equal FLOPs.

    Variants of a job take turns in one process; medians and quartiles are over the repeats. The
    full map and the gradients are computed, and weights change before each call, so that nothing
    can be left out or kept from before. Each figure stands beside the bar that it is held to.

    accuracy: errors of every backend, gradients too, against float64.
    purkinje: the full 10x1000x5 filter, and its peak memory.
    granule: 32 x 4,096 granule cells, their dendrites alone and whole cells.
    image_layer: GranuleConv2d against its convolutions alone.
    auto: the choice of a backend against the best, over 40 shapes.
    growth: exponents in neurons, batch, time steps, sites and dendrites.
    training: an epoch of MNIST against a plain CNN of equal FLOPs.
    cnn: a neuron's forward pass against a CNN's; shares of the machine's peaks.
    scaling: data-parallel steps by the number of workers.
    On CUDA also purkinje_population, granule_bandwidth, image_layer_roof and real_time.

    Example: neuroconv bench --json bench.json --plot growth.svg

    Example: neuroconv bench --only purkinje granule --seconds 3

    Example: neuroconv bench --quick
    """

    device: Literal["cpu", "cuda"] = "cpu"
    """where to measure"""
    only: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="SECTION ...", help_behavior_hint="(default: all)")
    ] = ()
    """some of the sections"""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """small shapes and few repeats, in seconds: shows that all runs, and judges nothing"""
    seconds: float = 1.0
    """how long to measure a comparison, roughly; what takes longer is timed once"""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """a folder of MNIST: the section training then trains on it, loading included"""
    json: FileOption = None
    """write everything to this file, after each section: an interrupted run keeps what it has"""
    plot: FileOption = None
    """draw the growth of time with its fitted exponents to this file (.svg, .png, .pdf)"""

    def __call__(self, console: Console) -> None:
        from neuroconv.bench import run_bench, section_names, section_table, verdict

        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"--seconds {self.seconds}: expected a number above 0")
        try:
            names = section_names(self.device, self.only)
        except ValueError as error:
            raise ValueError(f"--only: {error}") from None
        if self.plot is not None and "growth" not in names:
            raise ValueError("--plot draws the section growth: add it to --only")
        if self.data is not None and not self.data.is_dir():
            raise ValueError(f"--data {self.data}: expected a folder that is there")
        prepare(self.json, "--json")
        prepare_picture(self.plot, "--plot")
        with _Bar(len(names)) as bar:
            report = run_bench(
                self.device,
                only=names,
                quick=self.quick,
                seconds=self.seconds,
                data=self.data,
                json_file=self.json,
                on_row=bar.row,
                on_section=bar.section,
            )
        for name in report.sections:
            console.print(section_table(name, report))
            console.print()
        say(console, _conditions(report))
        say(console, verdict(report))
        if self.json is not None:
            say(console, f"written to {self.json}")
        if self.plot is not None and report.growth:
            from neuroconv.report.growth import plot_growth

            plot_growth(report.growth).savefig(self.plot, dpi=150)
            say(console, f"drawn in {self.plot}")
        if report.failed:
            lines = (f"{name}: {error}" for name, error in report.failed.items())
            raise RuntimeError(f"sections failed: {'; '.join(lines)}")


class _Bar:
    """What is being measured, on a terminal's standard error."""

    def __init__(self, sections: int) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.completed} of {task.total} sections"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=sections)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def section(self, name: str, report: "BenchReport") -> None:
        self._progress.update(self._task, description=name, completed=len(report.sections))

    def row(self, name: str, row: "Row") -> None:
        self._progress.update(self._task, description=f"{name}: {row.comparison}"[:60])


def _conditions(report: "BenchReport") -> str:
    found, versions = report.hardware, report.versions
    machine = found.get("gpu", f"{found['processor']}, {found['threads']} threads")
    gib = found.get("gpu_memory_bytes", found["memory_bytes"]) / 2**30
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return f"on {machine}, {gib:.0f} GiB; {packages}"
