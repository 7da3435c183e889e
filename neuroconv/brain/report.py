"""The report on the brain: its sections, as rich tables and as plain data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from neuroconv.brain.cell_costs import cell_costs, cell_sections, cortex_ratios
from neuroconv.brain.estimate import Estimate, estimate_brain
from neuroconv.brain.evidence.checks import checks_section
from neuroconv.brain.evidence.facts import facts
from neuroconv.brain.evidence.ledger import ledger_section
from neuroconv.brain.evidence.published import others_sections
from neuroconv.brain.grid import algorithm_of, grid_rows, grid_section
from neuroconv.brain.growth import sections as growth
from neuroconv.brain.inputs import Inputs
from neuroconv.brain.quantity import Quantity, derived, plain, scientific
from neuroconv.brain.readings import READINGS
from neuroconv.brain.section import Column, Notes, Section, numbers
from neuroconv.brain.updates import flop_per_second
from neuroconv.core.checks import check_choice


@dataclass(frozen=True, eq=False)
class BrainReport:
    """Everything that `neuroconv brain` says, from one estimate."""

    estimate: Estimate

    @property
    def inputs(self) -> Inputs:
        return self.estimate.inputs

    @cached_property
    def by_reading(self) -> Mapping[str, Estimate]:
        """An estimate under each of `READINGS`, from the same draws."""
        options: Any = {"samples": len(self.estimate.samples), "seed": self.estimate.seed}
        return {name: estimate_brain(self.inputs, reading=name, **options) for name in READINGS}

    @property
    def values(self) -> dict[str, float]:
        """FLOP/s of each reading, all inputs at their values."""
        at_point = self.inputs.values_at_point
        return {
            name: sum(flop_per_second(reading, at_point).values())
            for name, reading in READINGS.items()
        }

    def sections(self, names: Sequence[str] = ()) -> Iterator[RenderableType]:
        """Yields the named `SECTIONS`, by default all, what matters most first."""
        for name in names:
            check_choice("section", name, SECTIONS)
        for name, tables in _TABLES.items():
            if not names or name in names:
                lines = [line for table in tables(self) for line in (Text(), table)]
                yield Group(*lines[1:])

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain data, in which every number has a unit and a source."""
        swings = self.estimate.swings() if self.estimate.reading else ()
        costs = cell_costs(self.inputs)
        return {
            "headline": plain(headline(self.inputs)),
            **self.inputs.to_dict(),
            "inputs_sha256": self.inputs.sha256,
            "grid": plain(grid_rows(self.inputs)),
            "cells": plain(costs),
            "cortex_over_cerebellum": plain(cortex_ratios(costs)),
            "readings": [
                {"title": READINGS[name].title, **estimate.to_dict(sensitivities=False)}
                for name, estimate in self.by_reading.items()
            ],
            "estimate": self.estimate.to_dict(),
            "swings": [swing.to_dict() for swing in swings],
            "ledger": ledger_section().to_list(),
            "essay_check": checks_section().to_list(),
            "others": [row for table in others_sections() for row in table.to_list()],
            "forecast": growth.forecast_rows(self.values),
        }


def headline(inputs: Inputs) -> tuple[Quantity, ...]:
    """Returns ratios of the Purkinje cells' FLOP/s: the non-linearity's worth, the FFT's saving.

    In order: the worth, and for one step; the saving with filters transformed at each update, and
    with their transforms cached; the worth for one step so computed, with filters transformed at
    each update, with these transforms cached, and with those of past steps stored too.
    """
    at_point = inputs.values_at_point

    def purkinje(name: str, **changes: Any) -> float:
        return flop_per_second(replace(READINGS[name], **changes), at_point)["purkinje"]

    essay, linear = purkinje("essay"), purkinje("linear_collapse")
    worth, by = "worth of the dendritic non-linearity", "the algorithm that runs"
    kept = {
        "executed": "",
        "cached": ", filters' transforms cached",
        "stored": ", filters' and past steps' transforms stored",
    }
    rows = [
        (worth, essay / linear, "`essay` / `linear_collapse`"),
        (f"{worth} for one step", purkinje("one_step") / linear, "`one_step` / `linear_collapse`"),
    ]
    for name in ("executed", "cached"):
        saving = essay / purkinje(name)
        rows.append((f"saving of {by}{kept[name]}", saving, f"`essay` / `{name}`"))
    for name, how in kept.items():
        factor = purkinje("executed", algorithm=name, steps="last") / linear
        basis = f"`{name}`, of its one new step, / `linear_collapse`"
        rows.append((f"{worth} for one step, by {by}{how}", factor, basis))
    return tuple(derived(name, x, "1", f"{basis}, Purkinje cells") for name, x, basis in rows)


def headline_text(estimate: Estimate) -> Text:
    """Returns the first lines: the essay's reading and its basis; the estimate's interval."""
    inputs = estimate.inputs
    at_point = inputs.values_at_point
    worth, one_step, saving, saving_cached, *steps_executed = (x.value for x in headline(inputs))
    essay = flop_per_second(READINGS["essay"], at_point)
    linear = flop_per_second(READINGS["linear_collapse"], at_point)["purkinje"]
    terms = int(at_point["purkinje.synapses"] * at_point["time_steps"])
    algorithm = algorithm_of("purkinje", inputs)
    cached = also_stored = ""
    if "Fourier" in algorithm:
        algorithm += (
            " (2.5 n log2 n FLOP for a transform of n real points, and the products of the "
            "spectra) that transforms the filters at each update"
        )
        cached = f", and 1/{saving_cached:,.0f} with their transforms cached, as in evaluation"
        also_stored = (
            " ({1:,.3g} with the filters' transforms cached, and {2:,.3g} were those of the past "
            "steps stored too, which no module does)".format(*steps_executed)
        )
    steps = int(at_point["time_steps"])
    cells = ", ".join(f"{cell} {scientific(value)}" for cell, value in essay.items())
    text = Text.assemble(
        (f"The essay's reading: {scientific(sum(essay.values()))} FLOP/s", "bold"),
        f" ({cells}).\n",
        (f"Its whole case is the dendritic non-linearity: x {worth:,.0f}.", "bold"),
        " Were dendrites linear up to the soma, filter and sum of a Purkinje cell would be one "
        f"dot product of {terms:,} terms, and all Purkinje cells {scientific(linear)} FLOP/s. "
        f"Of the factor, {worth / one_step:,.3g} comes from recomputing all {steps} steps; for "
        f"one step from each, the non-linearity is worth x {one_step:,.0f}.\n",
        (f"The same output costs 1/{saving:,.0f}", "bold"),
        f" of the Purkinje cells' FLOP by {algorithm}{cached}. Computed so, the non-linearity is "
        f"worth x {steps_executed[0]:,.3g} for one step{also_stored}.\n",
    )
    low, middle, high = (scientific(level, 2) for level in estimate.quantiles())
    if estimate.value is not None and estimate.reading is not None:
        above = int(np.sum(estimate.samples >= estimate.value))
        ranges = [inputs[name] for name in estimate.free]
        at_top = sum(row.high is not None and row.value == row.high.value for row in ranges)
        text.append(
            f"Over the inputs' ranges, read as {estimate.reading.name}: {low} to {high} (90 %), "
            f"median {middle}; {above:,} of {len(estimate.samples):,} draws reach the value "
            f"{scientific(estimate.value)}, which takes the upper end of {at_top} of the "
            f"{len(ranges)} ranges.\n"
        )
    else:
        mix = ", ".join(f"{row.name} {share:.3g}" for row, share in estimate.weights.items())
        text.append(
            f"Mixed with your weights ({mix}): {low} to {high} (90 %), median {middle}; readings "
            "differ in kind, and no weights are right by themselves.\n"
        )
    return text


def inputs_section(inputs: Inputs) -> Section:
    """Returns value and range of each input; numbers in brackets lead to the sources below."""
    notes = Notes()

    def cell(quantity: Quantity | None) -> str:
        return "-" if quantity is None else f"{quantity.shown} {notes.mark(quantity.source.brief)}"

    rows: list[tuple[str, ...]] = [
        (name, cell(row.quantity), cell(row.low), cell(row.high), row.distribution)
        for name, row in inputs.items()
    ]
    for pair in inputs.correlations:
        rank = f"{pair.rank:g} {notes.mark(pair.source.brief)}"
        rows.append((" ~\n".join(pair.between), rank, "", "", "rank\ncorrelation"))
    columns = (
        Column("input", 0, wrap=False),
        *numbers("value", "low", "high"),
        Column("distribution", 4, wrap=False),
    )
    caption = (
        "All draws lie from low to high, these included; of a normal or log-normal distribution, "
        "90 % of them. Of counts they are whole numbers."
    )
    return Section("inputs", rows, columns, caption, notes=notes)


def readings_section(report: BrainReport) -> Section:
    """Returns value and interval of each named reading."""
    rate = facts()["purkinje.literature.rate_hz"]
    at_point = {**report.inputs.values_at_point, "rate_hz": rate.value}
    measured = sum(flop_per_second(READINGS["essay"], at_point).values())
    rates = " to ".join(dict.fromkeys(f"{end:g}" for end in report.inputs["rate_hz"].ends))
    rows = []
    for name, estimate in report.by_reading.items():
        quantiles = (scientific(level, 3) for level in estimate.quantiles())
        rows.append((name, scientific(estimate.value or 0), *quantiles, READINGS[name].title))
    return Section(
        "FLOP/s by named reading, over the inputs' ranges",
        rows,
        (
            Column("reading", 0, wrap=False),
            *numbers("value", "5 %", "50 %", "95 %"),
            Column("what it is", 5),
        ),
        f"One rate_hz, here {rates}/s, clocks cells of all types, though types differ. Purkinje "
        f"cells, which nearly all FLOP are of, fire at {rate.value:g}/s by themselves "
        f"({rate.source}): at that rate the essay's reading is {scientific(measured, 2)}.",
    )


def sensitivity_section(estimate: Estimate) -> Section:
    """Returns the shares of the inputs in the spread, the largest first."""
    name = estimate.reading.name if estimate.reading else "mix"
    rows = [
        (
            row.name,
            f"{_share(row.first)} ({' to '.join(map(_share, row.first_interval))})",
            f"{_share(row.total)} ({' to '.join(map(_share, row.total_interval))})",
            "-" if row.rank_correlation is None else _share(row.rank_correlation),
        )
        for row in estimate.sensitivities
    ]
    shares = (Column(title, i, "right") for i, title in enumerate(("first", "total", "rank"), 1))
    return Section(
        f"what the spread of log10(FLOP/s) is due to, read as {name}",
        rows or [("no input has a range", "-", "-", "-")],
        (Column("input", 0, wrap=False), *shares),
        "Sobol indices with 95 % bootstrap intervals, which overstate the error (they "
        "take a regular sequence for random draws); inputs taken as independent"
        + (" although some are correlated here" if estimate.inputs.correlations else "")
        + ": first, the share that vanishes when the input is known; total, the share that remains "
        "when all others are. Rank: Spearman's correlation in the draws.",
    )


def _share(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000")


# In the order of the report.
_TABLES: Mapping[str, Callable[[BrainReport], Sequence[RenderableType]]] = {
    "headline": lambda report: [headline_text(report.estimate)],
    "inputs": lambda report: [inputs_section(report.inputs)],
    "grid": lambda report: [grid_section(report.inputs)],
    "cells": lambda report: cell_sections(cell_costs(report.inputs), report.inputs),
    "readings": lambda report: [readings_section(report)],
    "sensitivity": lambda report: [sensitivity_section(report.estimate)],
    "ledger": lambda report: [ledger_section()],
    "checks": lambda report: [checks_section()],
    "others": lambda report: others_sections(),
    "dates": lambda report: [growth.dates_section()],
    "records": lambda report: [growth.records_section(), growth.growth_section()],
    "forecast": lambda report: [growth.forecast_section(report.values)],
    "learning": lambda report: [growth.learning_section()],
}
SECTIONS = tuple(_TABLES)
