"""Machines that were first in HPCG, and the dates that the essay prints."""

from dataclasses import dataclass
from datetime import date
from functools import cache

from neuroconv.brain.evidence.facts import read_rows
from neuroconv.brain.quantity import Quantity
from neuroconv.references import Source


def decimal_year(day: date) -> float:
    """Returns the day's start as a year with decimals: 1 July 2014 is 2014.496."""
    start, end = date(day.year, 1, 1), date(day.year + 1, 1, 1)
    return day.year + (day - start).days / (end - start).days


@dataclass(frozen=True, kw_only=True)
class Record:
    """A machine that was first in HPCG.

    Attributes:
        date, source: of the list that says so.
        hpcg, hpl: FLOP/s in HPCG, and in Linpack on the TOP500 list of that date.
        share: HPCG as a share of HPL.
    """

    machine: str
    date: date
    source: Source
    hpcg: Quantity
    hpl: Quantity
    share: Quantity

    @property
    def year(self) -> Quantity:
        value = round(decimal_year(self.date), 3)
        return Quantity(self.hpcg.name.removesuffix("hpcg") + "year", value, "year", self.source)


@cache
def hpcg_records() -> tuple[Record, ...]:
    """Returns the holders of the HPCG record, the earliest first."""
    return read_rows("machines.toml", "record", Record)


@dataclass(frozen=True, kw_only=True)
class EssayDate:
    """A date that the essay prints: doublings from the fastest computer to the brain.

    Attributes:
        label: the growth, as the essay calls it.
        printed: the year in the essay.
        needed: years a doubling that lead to it, from the essay's date.
        pace: years a doubling that the essay states; None where it states none.
        computed: the year that the pace leads to, from the essay's date.
        from_listing: the same from July 2013, where the essay dates the computer's score.
    """

    label: str
    printed: Quantity
    needed: Quantity
    pace: Quantity | None = None
    computed: Quantity | None = None
    from_listing: Quantity | None = None

    @property
    def verdict(self) -> str:
        """Whether the printed and the computed year agree."""
        printed, needed = self.printed.value, self.needed.value
        if self.pace is None or self.computed is None:
            return f"no pace given; needs {needed:.2f} years a doubling"
        computed = round(self.computed.value)
        if computed == printed:
            return "as printed"
        return (
            f"not as printed: {self.pace.value:g} years a doubling give {computed}; {printed} "
            f"needs {needed:.2f}"
        )


@cache
def essay_dates() -> tuple[EssayDate, ...]:
    """Returns the essay's five dates."""
    return read_rows("essay.toml", "date", EssayDate)
