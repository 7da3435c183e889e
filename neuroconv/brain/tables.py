"""The report on the brain: its sections as rich tables, and as plain data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from neuroconv.brain.cell_costs import CellCost, cell_costs, cell_rows, cell_table, cortex_ratios
from neuroconv.brain.estimate import Estimate, estimate_brain
from neuroconv.brain.evidence.essay_check import check_rows, check_table
from neuroconv.brain.evidence.ledger import ledger_rows, ledger_table
from neuroconv.brain.evidence.others import others_rows, others_table
from neuroconv.brain.grid import grid_rows, grid_table, what_ran
from neuroconv.brain.growth.forecast import (
    essay_dates_table,
    forecast_rows,
    forecast_table,
    growth_table,
    records_table,
    share_table,
)
from neuroconv.brain.inputs import Inputs
from neuroconv.brain.machine.realtime import RealTime
from neuroconv.brain.machine.realtime_tables import realtime_table
from neuroconv.brain.quantity import Quantity, plain_table, scientific
from neuroconv.brain.readings import READINGS, Reading
from neuroconv.brain.updates import flop_per_second
from neuroconv.layers.checks import check_choice
from neuroconv.references import Source

# In the order of the report.
SECTIONS = (
    *("headline", "inputs", "grid", "cells", "readings", "sensitivity", "ledger", "checks"),
    *("others", "dates", "records", "forecast", "learning", "realtime"),
)


@dataclass(frozen=True, eq=False)
class BrainReport:
    """Everything that `neuroconv brain` says, from one estimate.

    Attributes:
        estimate: the reading, or the mix, that the user asked for.
        realtime: what this machine was measured to run; None if nothing was measured.
        learning_share: share of its measured peak that a network reached while it learned.
    """

    estimate: Estimate
    realtime: RealTime | None = None
    learning_share: Quantity | None = None

    @property
    def inputs(self) -> Inputs:
        return self.estimate.inputs

    @cached_property
    def by_reading(self) -> Mapping[str, Estimate]:
        """An estimate under each of `READINGS`, from the same draws."""
        samples, seed = len(self.estimate.samples), self.estimate.seed
        return {
            name: estimate_brain(self.inputs, reading=name, samples=samples, seed=seed)
            for name in READINGS
        }

    @property
    def values(self) -> dict[str, float]:
        """FLOP/s of each reading, all inputs at their values."""
        return {name: each.value or 0 for name, each in self.by_reading.items()}

    @cached_property
    def cells(self) -> tuple[CellCost, ...]:
        return cell_costs(self.inputs)

    def sections(self, names: Sequence[str] = SECTIONS) -> Iterator[RenderableType]:
        """The report, what matters most first; of what was not measured there is no section.

        Raises:
            ValueError: a name that is none of `SECTIONS`.
        """
        for name in names:
            check_choice("section", name, SECTIONS)
        made: dict[str, Callable[[], RenderableType]] = {
            "headline": lambda: headline_text(self),
            "inputs": lambda: inputs_table(self.inputs),
            "grid": lambda: grid_table(self.inputs),
            "cells": lambda: cell_table(self.cells, self.inputs),
            "readings": lambda: readings_table(self),
            "sensitivity": lambda: sensitivities_table(self.estimate),
            "ledger": ledger_table,
            "checks": check_table,
            "others": others_table,
            "dates": essay_dates_table,
            "records": lambda: Group(records_table(), growth_table()),
            "forecast": lambda: forecast_table(self.values),
            "learning": lambda: share_table(self.learning_share),
        }
        if self.realtime is not None:
            measured = self.realtime
            made["realtime"] = lambda: realtime_table(measured)
        for name in SECTIONS:
            if name in names and name in made:
                yield made[name]()

    def to_dict(self) -> dict[str, Any]:
        """What the tables show, as plain data in which every number has a unit and a source."""
        return {
            "headline": [each.to_dict() for each in headline(self.inputs)],
            **self.inputs.to_dict(),
            "inputs_sha256": self.inputs.sha256,
            "grid": grid_rows(self.inputs),
            "cells": cell_rows(self.cells),
            "cortex_over_cerebellum": [each.to_dict() for each in cortex_ratios(self.cells)],
            "readings": [
                {"title": READINGS[name].title, **each.to_dict(sensitivities=False)}
                for name, each in self.by_reading.items()
            ],
            "estimate": self.estimate.to_dict(),
            "swings": []
            if self.estimate.reading is None
            else [each.to_dict() for each in self.estimate.swings()],
            "ledger": ledger_rows(),
            "essay_check": check_rows(),
            "others": others_rows(),
            "forecast": forecast_rows(self.values, self.learning_share),
            "realtime": None if self.realtime is None else self.realtime.to_dict(),
        }


def headline(inputs: Inputs) -> tuple[Quantity, ...]:
    """What the dendritic non-linearity is worth, like for like too, and what the FFT saves.

    Of the Purkinje cells, with all inputs at their values: ratios of FLOP/s.
    """
    at_point = inputs.values_at_point

    def purkinje(reading: Reading) -> float:
        return flop_per_second(reading, at_point)["purkinje"]

    essay, linear = purkinje(READINGS["essay"]), purkinje(READINGS["linear_collapse"])
    ratios = (
        ("worth of the dendritic non-linearity", essay / linear, "`essay` / `linear_collapse`"),
        (
            "worth of the dendritic non-linearity for one step",
            purkinje(READINGS["one_step"]) / linear,
            "`one_step` / `linear_collapse`",
        ),
        (
            "saving of the algorithm that runs",
            essay / purkinje(READINGS["executed"]),
            "`essay` / `executed`",
        ),
    )
    return tuple(
        Quantity(
            name=name, value=value, unit="1", source=Source("derived", f"{how}, Purkinje cells")
        )
        for name, value, how in ratios
    )


def headline_text(report: BrainReport) -> Text:
    """The report's first lines, computed from its inputs."""
    inputs, estimate = report.inputs, report.estimate
    at_point = inputs.values_at_point
    worth, one_step, saving = (each.value for each in headline(inputs))
    essay = report.by_reading["essay"]
    linear = flop_per_second(READINGS["linear_collapse"], at_point)["purkinje"]
    terms = int(at_point["purkinje.synapses"] * at_point["time_steps"])
    runs = what_ran("purkinje", inputs)
    steps = int(at_point["time_steps"])
    cells = ", ".join(
        f"{cell} {scientific(value)}" for cell, value in (essay.by_cell or {}).items()
    )
    text = Text.assemble(
        (f"The essay's reading: {scientific(essay.value or 0)} FLOP/s", "bold"),
        f" ({cells}).\n",
        (f"Its whole case is the dendritic non-linearity: x {worth:,.0f}.", "bold"),
        " Were dendrites linear up to the soma, filter and sum of a Purkinje cell would be one "
        f"dot product of {terms:,} terms, and all Purkinje cells {scientific(linear)} FLOP/s. "
        f"Of the factor, {worth / one_step:,.3g} comes of computing all {steps} steps anew; for "
        f"one step from each, the non-linearity is worth x {one_step:,.0f}.\n",
        (f"The same output costs 1/{saving:,.0f}", "bold"),
        f" of the Purkinje cells' FLOP by {runs} (2.5 n log2 n FLOP for a transform of n real "
        "points; filters transformed anew at each update).\n",
    )
    if estimate.value is not None and estimate.reading is not None:
        above = int(np.sum(estimate.samples >= estimate.value))
        ranges = (inputs[name] for name in estimate.free)
        at_top = sum(each.high is not None and each.value == each.high.value for each in ranges)
        low, middle, high = estimate.quantiles()
        text.append(
            f"Over the inputs' ranges, read as {estimate.reading.name}: {scientific(low)} to "
            f"{scientific(high)} (90 %), median {scientific(middle)}; {above:,} of "
            f"{len(estimate.samples):,} draws reach the value {scientific(estimate.value)}, "
            f"which takes the upper end of {at_top} of the {len(estimate.free)} ranges.\n"
        )
    else:
        mix = ", ".join(f"{each.name} {share:.3g}" for each, share in estimate.weights.items())
        low, middle, high = estimate.quantiles()
        text.append(
            f"Mixed as asked for ({mix}): {scientific(low)} to {scientific(high)} (90 %), median "
            f"{scientific(middle)}; readings differ in kind, and the weights are yours.\n"
        )
    return text


def inputs_table(inputs: Inputs) -> Group:
    """Value and range of each input; numbers in brackets lead to the sources below."""
    table = plain_table("inputs")
    table.add_column("input", no_wrap=True)
    for column in ("value", "low", "high"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("distribution", no_wrap=True)
    notes: dict[str, int] = {}

    def noted(quantity: Quantity | None) -> Text:
        if quantity is None:
            return Text("-")
        number = notes.setdefault(quantity.source.brief, len(notes) + 1)
        return Text(f"{scientific(quantity.value, trim=True)} [{number}]")

    for each in inputs.values():
        numbers = (noted(each.quantity), noted(each.low), noted(each.high))
        table.add_row(each.name, *numbers, each.distribution)
    for correlation in inputs.correlations:
        number = notes.setdefault(correlation.source.brief, len(notes) + 1)
        shown = Text(f"{correlation.rank:g} [{number}]")
        table.add_row(" ~ ".join(correlation.between), shown, "", "", "rank correlation")
    below = Table.grid(padding=(0, 1))
    below.add_column(justify="right", no_wrap=True)
    below.add_column(overflow="fold")
    for source, number in notes.items():
        below.add_row(Text(f"[{number}]"), Text(source))
    return Group(table, below, Text())


def readings_table(report: BrainReport) -> Table:
    """Value and interval of each named reading."""
    table = plain_table("FLOP/s by named reading, over the inputs' ranges")
    table.add_column("reading", no_wrap=True)
    for column in ("value", "5 %", "50 %", "95 %"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("what it is")
    for name, each in report.by_reading.items():
        shown = [scientific(q, 3) for q in each.quantiles()]
        table.add_row(name, scientific(each.value or 0), *shown, READINGS[name].title)
    return table


def sensitivities_table(estimate: Estimate) -> Table:
    """What the spread is due to, the largest share first."""
    name = estimate.reading.name if estimate.reading else "mix"
    table = plain_table(f"what the spread of log10(FLOP/s) is due to, read as {name}")
    table.caption = (
        "Sobol indices with 95 % bootstrap intervals, inputs taken as independent"
        + (" although some are correlated here" if estimate.inputs.correlations else "")
        + ": first, the share that vanishes when the input is known; total, the share that remains "
        "when all others are. Rank: Spearman's correlation in the draws."
    )
    table.add_column("input", no_wrap=True)
    for column in ("first", "total", "rank"):
        table.add_column(column, justify="right")
    for each in estimate.sensitivities:
        table.add_row(
            each.name,
            _interval(each.first, each.first_interval),
            _interval(each.total, each.total_interval),
            "-" if each.rank_correlation is None else _share(each.rank_correlation),
        )
    if not estimate.sensitivities:
        table.add_row("no input has a range", "-", "-", "-")
    return table


def _share(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000")


def _interval(value: float, ends: tuple[float, float]) -> str:
    return f"{_share(value)} ({_share(ends[0])} to {_share(ends[1])})"
