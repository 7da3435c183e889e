"""Machines that were first in HPCG, and the dates that the essay prints."""

import re
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property

from neuroconv.brain.evidence.facts import facts, read_rows
from neuroconv.brain.quantity import Quantity, derived
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

    @property
    def printed_year(self) -> Quantity:
        return years(f"essay.{self.key}.printed", self.printed, self.source)

    @property
    def stated_pace(self) -> Quantity | None:
        if self.pace is None or self.pace_source is None:
            return None
        return years(f"essay.{self.key}.pace", self.pace, self.pace_source)

    def computed(self, start: str = "essay.year", part: str = "computed") -> Quantity | None:
        """Returns the year that the pace leads to from a starting year; None without a pace."""
        if self.pace is None:
            return None
        value = facts()[start].value + facts()["doublings"].value * self.pace
        basis = f"`{start}` + `doublings` x `essay.{self.key}.pace`"
        return years(f"essay.{self.key}.{part}", value, Source("derived", basis))

    @property
    def from_listing(self) -> Quantity | None:
        """The year from July 2013, where the essay dates the computer's score."""
        return self.computed("essay.computer_year", "from_listing")

    @property
    def needed(self) -> Quantity:
        """Years a doubling that lead to the printed year, from the essay's date."""
        value = (self.printed - facts()["essay.year"].value) / facts()["doublings"].value
        basis = f"(`essay.{self.key}.printed` - `essay.year`) / `doublings`"
        return years(f"essay.{self.key}.needed", value, Source("derived", basis))

    @property
    def verdict(self) -> str:
        """Whether the printed and the computed year agree."""
        computed = self.computed()
        if computed is None:
            return f"no pace given; needs {self.needed.value:.2f} years a doubling"
        if round(computed.value) == self.printed:
            return "as printed"
        return (
            f"not as printed: {self.pace:g} years a doubling give {round(computed.value)}; "
            f"{self.printed} needs {self.needed.value:.2f}"
        )


@cache
def essay_dates() -> tuple[EssayDate, ...]:
    """Returns the essay's five dates."""
    return read_rows("essay.toml", "date", EssayDate)
