"""Machines that were first in HPCG, and the dates that the essay prints."""

import re
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from typing import Any

from neuroconv.brain.evidence.facts import facts, read_rows
from neuroconv.brain.quantity import Quantity, derived
from neuroconv.brain.worksheet import Worksheet
from neuroconv.references import Source

PETA = 10**15


def decimal_year(day: date) -> float:
    """Returns the day's start as a year with decimals: 1 July 2014 is 2014.496."""
    start, end = date(day.year, 1, 1), date(day.year + 1, 1, 1)
    return day.year + (day - start).days / (end - start).days


def years(name: str, value: float, source: Source) -> Quantity:
    """Returns a year, or a number of them, as a quantity."""
    return Quantity(name=name, value=value, unit="year", source=source)


@dataclass(frozen=True, kw_only=True)
class Record:
    """A machine that was first in HPCG.

    Attributes:
        machine: its name.
        date: of the list that says so.
        source: that list.
        hpcg_pflop_per_s, hpcg_source: its HPCG result.
        hpl_pflop_per_s, hpl_source: its Linpack result on the TOP500 list of that date.
    """

    machine: str
    date: date
    source: Source
    hpcg_pflop_per_s: float
    hpcg_source: Source
    hpl_pflop_per_s: float
    hpl_source: Source

    @property
    def _name(self) -> str:
        machine = re.sub(r"\W", "_", self.machine.lower())
        return f"hpcg_record.{machine}_{self.date:%Y%m}"

    @cached_property
    def year(self) -> Quantity:
        return years(f"{self._name}.year", round(decimal_year(self.date), 3), self.source)

    @cached_property
    def hpcg(self) -> Quantity:
        return self._flop_per_s("hpcg", self.hpcg_pflop_per_s, self.hpcg_source)

    @cached_property
    def hpl(self) -> Quantity:
        return self._flop_per_s("hpl", self.hpl_pflop_per_s, self.hpl_source)

    @cached_property
    def share(self) -> Quantity:
        """HPCG as a share of HPL."""
        return derived(
            f"{self._name}.hpcg_over_hpl",
            self.hpcg.value / self.hpl.value,
            "1",
            f"`{self.hpcg.name}` / `{self.hpl.name}`",
        )

    def _flop_per_s(self, benchmark: str, peta: float, source: Source) -> Quantity:
        name = f"{self._name}.{benchmark}"
        return Quantity(name=name, value=peta * PETA, unit="FLOP/s", source=source)


@cache
def hpcg_records() -> tuple[Record, ...]:
    """Returns the holders of the HPCG record, the earliest first."""
    return read_rows("machines.toml", "record", Record)


@dataclass(frozen=True, kw_only=True)
class EssayDate:
    """A date that the essay prints, beside what its numbers give.

    The essay counts doublings from the fastest computer of its day to its estimate of the brain.

    Attributes:
        key: name of the growth in names of quantities.
        label: name of the growth in the essay.
        printed: the year in the essay.
        source: where it is printed.
        pace: years a doubling that the essay states; None where it states none.
        pace_source: where it is stated.
    """

    key: str
    label: str
    printed: int
    source: Source
    pace: float | None = None
    pace_source: Source | None = None

    def to_row(self) -> dict[str, Any]:
        """Returns the printed and the computed numbers.

        Returns:
            printed: the year, as a quantity.
            pace: years a doubling that the essay states; None where it states none.
            computed: the year that the pace leads to, from the essay's date.
            from_listing: the same from July 2013, where the essay dates the computer's score.
            needed: years a doubling that lead to the printed year, from the essay's date.
            verdict: whether the printed and the computed year agree.
        """
        name = f"essay.{self.key}"
        sheet = Worksheet(facts()[fact] for fact in ("essay.year", "essay.computer_year"))
        sheet.add(facts()["doublings"], years(f"{name}.printed", self.printed, self.source))
        formula = f"(`{name}.printed` - `essay.year`) / `doublings`"
        needed = sheet.derive(f"{name}.needed", "year", formula)
        pace = computed = from_listing = None
        verdict = f"no pace given; needs {needed.value:.2f} years a doubling"
        if self.pace is not None and self.pace_source is not None:
            pace = years(f"{name}.pace", self.pace, self.pace_source)
            sheet.add(pace)
            computed, from_listing = (
                sheet.derive(f"{name}.{part}", "year", f"`{start}` + `doublings` x `{pace.name}`")
                for part, start in (
                    ("computed", "essay.year"),
                    ("from_listing", "essay.computer_year"),
                )
            )
            verdict = "as printed"
            if round(computed.value) != self.printed:
                verdict = (
                    f"not as printed: {self.pace:g} years a doubling give "
                    f"{round(computed.value)}; {self.printed} needs {needed.value:.2f}"
                )
        return {
            "label": self.label,
            "printed": sheet[f"{name}.printed"],
            "pace": pace,
            "computed": computed,
            "from_listing": from_listing,
            "needed": needed,
            "verdict": verdict,
        }


@cache
def essay_dates() -> tuple[EssayDate, ...]:
    """Returns the essay's five dates."""
    return read_rows("essay.toml", "date", EssayDate)
