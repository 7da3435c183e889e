"""Machines that were first in HPCG, and the dates that the essay prints."""

import re
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from typing import Any

from neuroconv.brain.evidence.facts import facts, read_rows
from neuroconv.brain.quantity import Quantity
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

    @cached_property
    def year(self) -> Quantity:
        return self._quantity("year", round(decimal_year(self.date), 3), "year", self.source)

    @cached_property
    def hpcg(self) -> Quantity:
        """FLOP/s in HPCG."""
        return self._quantity("hpcg", self.hpcg_pflop_per_s * PETA, "FLOP/s", self.hpcg_source)

    @cached_property
    def hpl(self) -> Quantity:
        """FLOP/s in Linpack."""
        return self._quantity("hpl", self.hpl_pflop_per_s * PETA, "FLOP/s", self.hpl_source)

    @cached_property
    def share(self) -> Quantity:
        """HPCG as a share of HPL."""
        source = Source("derived", f"`{self.hpcg.name}` / `{self.hpl.name}`")
        return self._quantity("hpcg_over_hpl", self.hpcg.value / self.hpl.value, "1", source)

    def _quantity(self, part: str, value: float, unit: str, source: Source) -> Quantity:
        machine = re.sub(r"\W", "_", self.machine.lower())
        name = f"hpcg_record.{machine}_{self.date:%Y%m}.{part}"
        return Quantity(name=name, value=value, unit=unit, source=source)


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
        printed = years(f"{name}.printed", self.printed, self.source)
        starts = {"computed": "essay.year", "from_listing": "essay.computer_year"}
        sheet = Worksheet([*(facts()[fact] for fact in ("doublings", *starts.values())), printed])
        formula = f"(`{printed.name}` - `essay.year`) / `doublings`"
        needed = sheet.derive(f"{name}.needed", "year", formula)
        row: dict[str, Any] = {"label": self.label, "printed": printed, "needed": needed}
        if self.pace is None or self.pace_source is None:
            verdict = f"no pace given; needs {needed.value:.2f} years a doubling"
            return row | dict.fromkeys(("pace", *starts)) | {"verdict": verdict}
        row["pace"] = years(f"{name}.pace", self.pace, self.pace_source)
        sheet.add(row["pace"])
        for part, start in starts.items():
            formula = f"`{start}` + `doublings` x `{name}.pace`"
            row[part] = sheet.derive(f"{name}.{part}", "year", formula)
        computed = round(row["computed"].value)
        row["verdict"] = "as printed"
        if computed != self.printed:
            row["verdict"] = (
                f"not as printed: {self.pace:g} years a doubling give {computed}; {self.printed} "
                f"needs {needed.value:.2f}"
            )
        return row


@cache
def essay_dates() -> tuple[EssayDate, ...]:
    """Returns the essay's five dates."""
    return read_rows("essay.toml", "date", EssayDate)
