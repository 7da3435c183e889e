"""`brain`: the FLOP/s of a brain by the essay's method, and their uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from neuroconv import __version__
from neuroconv.brain import READINGS, BrainReport, Estimate, estimate_brain, read_inputs
from neuroconv.brain.report import SECTIONS
from neuroconv.cli.options import PICTURES, FileOption, Words, check_output, repeatable, write_json
from neuroconv.core.checks import check_choice


@dataclass(frozen=True)
class Brain:
    """Estimates the FLOP/s of a brain by the essay's method: values, intervals, what matters most.

    The essay: FLOP/s = FLOP per MAC x updates a second x sum over cell types of (cells x MAC of
    one update). Each input has a value, a range and a source; MAC come from the modules' own
    counts. Readings of the formula differ by orders of magnitude and are never mixed unasked:
    essay, published, whole_neuron, with_cortex, backpropagating, one_step, one_step_per_frame,
    valid, valid_one_step, executed, cached, linear_collapse.

    A FILE of inputs is TOML:

        [inputs."purkinje.cells"]
        low = 15e6
        high = 30e6
        source = "[andersen1992], abstract"

    Example: neuroconv brain --set rate_hz=0.1..5 --set purkinje.cells=15e6..30e6

    Example: neuroconv brain --reading one_step_per_frame --json brain.json --plot tornado.svg

    Example: neuroconv brain --weigh essay=1 --weigh linear_collapse=3
    """

    inputs: FileOption = None
    """take inputs from this file"""
    set: Annotated[Words, repeatable(metavar="NAME=VALUE|LOW..HIGH")] = ()
    """fix an input, or give it a range, over what the file says"""
    reading: Annotated[
        str | None, tyro.conf.arg(metavar="READING", help_behavior_hint="(default: essay)")
    ] = None
    """whose interval and sensitivities are shown in full, and are plotted"""
    weigh: Annotated[Words, repeatable(metavar="READING=W")] = ()
    """instead of one reading, mix several, each with this weight"""
    section: Annotated[
        Words, repeatable(metavar="SECTION", help_behavior_hint="(repeatable; default: all)")
    ] = ()
    """what to print: headline, inputs, grid, cells, readings, sensitivity, ledger, checks, others,
    dates, records, forecast, learning"""
    samples: int = 4096
    """draws of the inputs"""
    seed: int = 0
    """of the draws"""
    json: FileOption = None
    """write everything that the tables show, each number with unit and source, to this file"""
    plot: FileOption = None
    """draw a tornado of the inputs to this file (.svg, .png, .pdf), and the forecast beside it"""
    cite: bool = False
    """print only what names this estimate: version and a hash of its inputs"""

    def __call__(self, console: Console) -> None:
        self._check_options()
        inputs = read_inputs(self.inputs, self.set)
        weights = _weights(self.weigh)
        check_output(self.json, "--json")
        check_output(self.plot, "--plot", PICTURES)
        estimate = estimate_brain(
            inputs, reading=self.reading, weights=weights, samples=self.samples, seed=self.seed
        )
        citation = _citation(estimate)
        if self.cite:
            console.out(citation)
            return
        report = BrainReport(estimate)
        for section in report.sections(self.section):
            console.print(section)
            console.print()
        console.out(citation)
        if self.json is not None:
            values = {"neuroconv_version": __version__, "cite": citation, **report.to_dict()}
            write_json(console, self.json, values, ", with all sources in full")
        if self.plot is not None:
            _draw(report, self.plot, console)

    def _check_options(self) -> None:
        """Refuses values and combinations of options, before any work."""
        if not 2 <= self.samples <= 1_000_000:
            raise ValueError(f"--samples {self.samples}: expected an integer, 2 to 1,000,000")
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed}: expected an integer, 0 or more")
        if self.weigh and self.reading is not None:
            raise ValueError(f"--reading {self.reading} with --weigh: expected one of the two")
        if self.weigh and self.plot is not None:
            raise ValueError(
                "--plot with --weigh: a mix has no one value for a tornado; expected --reading"
            )
        if self.reading is not None:
            check_choice("--reading", self.reading, list(READINGS))
        for name in self.section:
            check_choice("--section", name, list(SECTIONS))


def _citation(estimate: Estimate) -> str:
    readings = ", ".join(
        f"{reading.name}={share:g}" if len(estimate.weights) > 1 else reading.name
        for reading, share in estimate.weights.items()
    )
    return (
        f"neuroconv {__version__}, inputs sha256:{estimate.inputs.sha256[:12]}, reading "
        f"{readings}, {len(estimate.samples)} samples, seed {estimate.seed}"
    )


def _weights(words: Sequence[str]) -> dict[str, float] | None:
    weights: dict[str, float] = {}
    for word in words:
        name, equals, number = word.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if not equals or name not in READINGS or not 0 <= weight < float("inf"):
            raise ValueError(
                f"--weigh {word}: expected READING=W with a weight of 0 or more, READING one of "
                f"{', '.join(READINGS)}"
            )
        if name in weights:
            raise ValueError(f"--weigh {word}: {name} is weighed twice; expected it once")
        weights[name] = weight
    if words and not any(weights.values()):
        raise ValueError("--weigh: all weights are 0; expected one above it")
    return weights or None


def _draw(report: BrainReport, path: Path, console: Console) -> None:
    """Draws the tornado, and the forecast of all readings beside it."""
    # matplotlib: not loaded without --plot
    from neuroconv.report.tornado import plot_tornado
    from neuroconv.report.trends import plot_trends

    estimate = report.estimate
    assert estimate.reading is not None
    assert estimate.value is not None
    tornado = plot_tornado(
        estimate.swings(),
        estimate.value,
        shares={index.name: index.total for index in estimate.sensitivities},
        title=f"What each input alone moves, read as {estimate.reading.name}",
    )
    forecast = plot_trends({name: float(flops) for name, flops in report.values.items()})
    beside = path.with_stem(f"{path.stem}_forecast")
    for file, figure in ((path, tornado), (beside, forecast)):
        figure.savefig(file, dpi=200)
        console.out(f"drawn to {file}")
