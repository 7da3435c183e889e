"""The essay's dates, the HPCG record, and the years in which trends reach a performance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Any

import numpy as np
from scipy import stats

from neuroconv.brain.evidence.facts import read_rows
from neuroconv.brain.quantity import Quantity, derived
from neuroconv.references import Source


def decimal_year(day: date) -> float:
    """Returns the day's start as a year with decimals: 1 July 2014 is 2014.496."""
    start, end = date(day.year, 1, 1), date(day.year + 1, 1, 1)
    return day.year + (day - start).days / (end - start).days


@dataclass(frozen=True, kw_only=True)
class Record:
    """A machine that was first in HPCG."""

    machine: str
    date: date  # of the list that says so
    source: Source
    hpcg: Quantity
    hpl: Quantity  # Linpack, on the TOP500 list of that date
    share: Quantity  # HPCG / HPL

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
    """A year that the essay prints: doublings from the fastest computer to the brain."""

    label: str  # the growth, as the essay calls it
    printed: Quantity
    needed: Quantity  # years per doubling that lead to the printed year, from the essay's date
    pace: Quantity | None = None  # years per doubling that the essay states, if any
    computed: Quantity | None = None  # the year that the pace leads to, from the essay's date
    from_listing: Quantity | None = None  # and from July 2013, where it dates the computer's score

    @property
    def verdict(self) -> str:
        """Whether the printed and the computed year agree."""
        printed, needed = self.printed.value, self.needed.value
        if self.pace is None or self.computed is None:
            return f"no pace given; needs {needed:.2f} years a doubling"
        computed = round(self.computed.value)
        if computed == printed:
            return "as printed"
        given = f"{self.pace.value:g} years a doubling give {computed}"
        return f"not as printed: {given}; {printed} needs {needed:.2f}"


@cache
def essay_dates() -> tuple[EssayDate, ...]:
    """Returns the essay's five dates."""
    return read_rows("essay.toml", "date", EssayDate)


def record_growth(records: Sequence[Record] | None = None) -> dict[str, Quantity]:
    """Returns the doubling time of the HPCG record, or of other records, in years.

    "fitted" is by least squares of log2(FLOP/s) on the date, "low" and "high" are the ends of its
    95 % interval (which takes records for independent: a width, no test), "between_ends" is from
    the first record to the last, "recent" from the third last to the last.

    Raises:
        ValueError: fewer than four records, or records whose growth may as well be none.
    """
    records = hpcg_records() if records is None else records
    if len(records) < 4:
        raise ValueError(f"{len(records)} records; expected 4 or more for a line and its interval")
    dates = np.array([record.year.value for record in records])
    doublings = np.log2([record.hpcg.value for record in records])
    fit = stats.linregress(dates, doublings)
    margin = stats.t.ppf(0.975, len(records) - 2) * fit.stderr
    if fit.slope <= margin:
        raise ValueError(
            f"growth of {fit.slope:.3f} +- {margin:.3f} doublings a year; expected one above zero"
        )
    ends, recent = (
        (dates[-1] - dates[start]) / (doublings[-1] - doublings[start]) for start in (0, -3)
    )
    interval = "end of the 95 % interval (t) of the line"
    times = {
        "fitted": (1 / fit.slope, "least squares of log2 on the date"),
        "low": (1 / (fit.slope + margin), f"lower {interval}"),
        "high": (1 / (fit.slope - margin), f"upper {interval}"),
        "between_ends": (ends, "first to last"),
        "recent": (recent, "third last to last"),
    }
    origin = f"of the {len(records)} records `hpcg_record`"
    return {
        part: derived(f"hpcg.doubling_time.{part}", float(value), "year", f"{basis} {origin}")
        for part, (value, basis) in times.items()
    }


@dataclass(frozen=True, kw_only=True)
class Trend:
    """An exponential trend, start x 2 ^ (years / doubling time), and the machines beside it.

    Attributes:
        low, high: ends of the doubling time's interval, if it has one.
        machines: (machine, year, FLOP/s) of what was built; a line that only forecasts has none.
    """

    name: str
    start_year: Quantity
    start: Quantity
    doubling_time: Quantity
    low: Quantity | None = None
    high: Quantity | None = None
    machines: tuple[tuple[str, Quantity, Quantity], ...] = ()

    def year_of(self, flop_per_s: float, doubling_time: float | None = None) -> float:
        """Returns the year in which the line passes a performance; it may precede the start."""
        pace = doubling_time or self.doubling_time.value
        return self.start_year.value + math.log2(flop_per_s / self.start.value) * pace

    def flop_per_s(self, year: float, doubling_time: float | None = None) -> float:
        """Returns the line's performance in a year, in FLOP/s."""
        pace = doubling_time or self.doubling_time.value
        return float(self.start.value * 2 ** ((year - self.start_year.value) / pace))


@cache
def trends() -> tuple[Trend, ...]:
    """Returns the essay's lines, the HPCG record's and the AI clusters'."""
    growth, last = record_growth(), hpcg_records()[-1]
    hpcg = Trend(
        name="HPCG record as it grew", start_year=last.year, start=last.hpcg,
        doubling_time=growth["fitted"], low=growth["low"], high=growth["high"],
        machines=tuple((row.machine, row.year, row.hpcg) for row in hpcg_records()),
    )  # fmt: skip
    *essay, clusters = read_rows("machines.toml", "trend", Trend)
    colossus = ("Colossus", clusters.start_year, clusters.start)
    return (*essay, hpcg, replace(clusters, machines=(colossus,)))


def crossings(readings: Mapping[str, float]) -> list[dict[str, Any]]:
    """Returns a row for each reading (positive FLOP/s by name) and trend: when that reaches it.

    A row has "reading" and "trend", their names; "reached", whether a machine that was built has
    reached it, and the first such "machine"; "year", that machine's or the one in which the line
    passes; "earliest" and "latest", where the line passes at the ends of the trend's interval.
    """
    for name, value in readings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"readings[{name!r}]={value!r}; expected a positive number of FLOP/s")
    return [
        {"reading": reading, "trend": trend.name, **_crossing(value, trend)}
        for reading, value in readings.items()
        for trend in trends()
    ]


def _crossing(flop_per_s: float, trend: Trend) -> dict[str, Any]:
    row: dict[str, Any] = {"reached": False, "machine": "", "earliest": None, "latest": None}
    for machine, year, built in trend.machines:
        if built.value >= flop_per_s:
            return row | {"reached": True, "machine": machine, "year": year}
    start = f"`{trend.start_year.name}` + log2(reading / `{trend.start.name}`)"
    paces = {"year": trend.doubling_time, "earliest": trend.low, "latest": trend.high}
    for part, pace in paces.items():
        if pace is not None:
            year_of = trend.year_of(flop_per_s, pace.value)
            row[part] = derived(f"reach.{part}", year_of, "year", f"{start} x `{pace.name}`")
    return row


def scores() -> list[dict[str, Any]]:
    """Returns the essay's trends against the latest HPCG record, the nearest first, as a factor.

    Rows have "trend", its name; "foretold", its FLOP/s at the record's date; and "ratio", the
    record to that: above 1, growth was faster.
    """
    record = hpcg_records()[-1]
    rows = []
    for trend in trends():
        if trend.machines:
            continue
        pace, name = trend.doubling_time.name, f"score.{trend.doubling_time.name}"
        basis = f"`{trend.start.name}`, doubled every `{pace}` until then"
        value = trend.flop_per_s(record.year.value)
        foretold = derived(f"{name}.foretold", value, "FLOP/s", basis)
        basis = f"`{record.hpcg.name}` / `{foretold.name}`"
        ratio = derived(f"{name}.ratio", record.hpcg.value / value, "1", basis)
        rows.append({"trend": trend.name, "foretold": foretold, "ratio": ratio})
    return sorted(rows, key=lambda row: abs(math.log(row["ratio"].value)))
