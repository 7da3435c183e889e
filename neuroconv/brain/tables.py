"""The report on the brain: its sections as rich tables, and as plain data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from neuroconv.brain.cell_costs import CellCost, cell_costs, cell_rows, cell_table, cortex_ratios
from neuroconv.brain.estimate import Estimate, estimate_brain
from neuroconv.brain.evidence.essay import of_preset
from neuroconv.brain.evidence.essay_check import check_rows, check_table
from neuroconv.brain.evidence.ledger import ledger_rows, ledger_table
from neuroconv.brain.evidence.others import others_rows, others_table
from neuroconv.brain.grid import grid_rows, grid_table
from neuroconv.brain.growth.forecast import (
    essay_dates_table,
    forecast_rows,
    forecast_table,
    growth_table,
    records_table,
    share_table,
)
from neuroconv.brain.headline import headline, headline_text
from neuroconv.brain.inputs import Inputs
from neuroconv.brain.machine.realtime import RealTime
from neuroconv.brain.machine.realtime_tables import realtime_table
from neuroconv.brain.quantity import Quantity, plain_table, scientific
from neuroconv.brain.readings import READINGS
from neuroconv.brain.updates import flop_per_second
from neuroconv.core.checks import check_choice

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
        at_point = self.inputs.values_at_point  # no draws are needed for these
        return {
            name: sum(flop_per_second(reading, at_point).values())
            for name, reading in READINGS.items()
        }

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
            "headline": lambda: headline_text(self.estimate),
            "inputs": lambda: inputs_table(self.inputs),
            "grid": lambda: grid_table(self.inputs),
            "cells": lambda: cell_table(self.cells, self.inputs),
            "readings": lambda: readings_table(self),
            "sensitivity": lambda: sensitivities_table(self.estimate),
            "ledger": ledger_table,
            "checks": check_table,
            "others": others_table,
            "dates": essay_dates_table,
            "records": lambda: Group(records_table(), Text(), growth_table()),
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
        table.add_row(" ~\n".join(correlation.between), shown, "", "", "rank\ncorrelation")
    below = Table.grid(padding=(0, 1))
    below.add_column(justify="right", no_wrap=True)
    below.add_column(overflow="fold")
    for source, number in notes.items():
        below.add_row(Text(f"[{number}]"), Text(source))
    return Group(table, below, Text())


def readings_table(report: BrainReport) -> Table:
    """Value and interval of each named reading."""
    at_point, purkinje = (
        report.inputs.values_at_point,
        of_preset("purkinje", "rate_hz", "literature"),
    )
    at_own = flop_per_second(READINGS["essay"], {**at_point, "rate_hz": purkinje.value})
    low, high = report.inputs["rate_hz"].ends
    rates = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    table = plain_table(
        "FLOP/s by named reading, over the inputs' ranges",
        f"One rate_hz, here {rates}/s, clocks cells of all types, though types differ. Purkinje "
        f"cells, which nearly all FLOP are of, fire at {purkinje.value:g}/s by themselves "
        f"({purkinje.source}): at that rate the essay's reading is "
        f"{scientific(sum(at_own.values()), 2)}.",
    )
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
        "Sobol indices with 95 % bootstrap intervals, which overstate the error (they "
        "take a regular sequence for random draws); inputs taken as independent"
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
