"""When a performance is reached along lines of doublings.

A line is arithmetic: start x 2 ^ (years / doubling time). Some physical limit ends each of them,
and where is not part of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from neuroconv.brain.evidence.essay import FASTEST
from neuroconv.brain.growth.essay_dates import ESSAY_YEAR, essay_dates, years
from neuroconv.brain.growth.records import (
    CLUSTER_DOUBLING,
    COLOSSUS,
    COLOSSUS_YEAR,
    HPCG_RECORDS,
    Record,
)
from neuroconv.brain.quantity import Quantity
from neuroconv.references import Source


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How fast a record doubled, in years.

    Attributes:
        fitted: by least squares of log2(FLOP/s) on the date.
        low, high: ends of the fit's 95 % interval. It takes the records' scatter about a line for
            independent noise, which records are not: read it as a width, not as a test.
        between_ends: from the first record to the last.
        recent: from the record of November 2020, or whichever is third last, to the last.
    """

    fitted: Quantity
    low: Quantity
    high: Quantity
    between_ends: Quantity
    recent: Quantity


def record_growth(records: Sequence[Record] = HPCG_RECORDS) -> Growth:
    """Doubling time of the HPCG record.

    Raises:
        ValueError: fewer than four records, or records whose growth is not told from none.
    """
    if len(records) < 4:
        raise ValueError(f"{len(records)} records; expected 4 or more for a line and its interval")
    dates = np.array([record.year.value for record in records])
    doublings = np.log2([record.hpcg.value for record in records])
    fit = stats.linregress(dates, doublings)
    reach = stats.t.ppf(0.975, len(records) - 2) * fit.stderr
    if fit.slope <= reach:
        raise ValueError(
            f"growth of {fit.slope:.3f} +- {reach:.3f} doublings a year; expected one above zero"
        )

    def quantity(part: str, value: float, how: str) -> Quantity:
        basis = Source("derived", f"{how} of the {len(records)} records `hpcg_record`")
        return years(f"hpcg.doubling_time.{part}", float(value), basis)

    fastest, slowest = 1 / (fit.slope + reach), 1 / (fit.slope - reach)
    ends, recent = (
        (dates[-1] - dates[start]) / (doublings[-1] - doublings[start]) for start in (0, -3)
    )
    return Growth(
        fitted=quantity("fitted", 1 / fit.slope, "least squares of log2 on the date"),
        low=quantity("low", fastest, "lower end of the 95 % interval (t) of the line"),
        high=quantity("high", slowest, "upper end of the 95 % interval (t) of the line"),
        between_ends=quantity("between_ends", ends, "first to last"),
        recent=quantity("recent", recent, "third last to last"),
    )


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A line of doublings, and the facts that stand beside it.

    Attributes:
        name: as tables and plots show it.
        start_year: where the line starts, in years.
        start: performance there, in FLOP/s.
        doubling_time: in years; low and high are its interval where there is one.
        facts: (machine, year, FLOP/s) of what was built; a line that only forecasts has none.
    """

    name: str
    start_year: Quantity
    start: Quantity
    doubling_time: Quantity
    low: Quantity | None = None
    high: Quantity | None = None
    facts: tuple[tuple[str, Quantity, Quantity], ...] = ()

    def year_of(self, flop_per_s: float, doubling_time: float | None = None) -> float:
        """Year in which the line passes a performance; before its start for a smaller one."""
        pace = self.doubling_time.value if doubling_time is None else doubling_time
        return self.start_year.value + math.log2(flop_per_s / self.start.value) * pace

    def flop_per_s(self, year: float, doubling_time: float | None = None) -> float:
        """Performance of the line in a year, in FLOP/s."""
        pace = self.doubling_time.value if doubling_time is None else doubling_time
        return float(self.start.value * 2 ** ((year - self.start_year.value) / pace))


def _essay_trend(name: str, doubling_time: Quantity) -> Trend:
    return Trend(name=name, start_year=ESSAY_YEAR, start=FASTEST, doubling_time=doubling_time)


def _trends() -> tuple[Trend, ...]:
    essay = essay_dates()
    growth, last = record_growth(), HPCG_RECORDS[-1]
    # The pace that the printed 2037 implies, and the three that the essay states.
    paces = [essay[0].needed, *(each.pace for each in essay if each.pace is not None)]
    return (
        *(_essay_trend(f"essay, {pace.value:.3g} years", pace) for pace in paces),
        Trend(
            name="HPCG record as it grew",
            start_year=last.year,
            start=last.hpcg,
            doubling_time=growth.fitted,
            low=growth.low,
            high=growth.high,
            facts=tuple((each.machine, each.year, each.hpcg) for each in HPCG_RECORDS),
        ),
        Trend(
            name="AI clusters, 16-bit peak",
            start_year=COLOSSUS_YEAR,
            start=COLOSSUS,
            doubling_time=CLUSTER_DOUBLING,
            facts=(("Colossus", COLOSSUS_YEAR, COLOSSUS),),
        ),
    )


TRENDS: tuple[Trend, ...] = _trends()


@dataclass(frozen=True, kw_only=True)
class Reach:
    """When a trend reaches a reading.

    Attributes:
        reading: name of the reading.
        trend: name of the trend.
        year: of the first machine that reached it where one has; otherwise where the line passes.
        machine: that machine; "" where none has.
        earliest, latest: where the line passes at the ends of the trend's interval.
    """

    reading: str
    trend: str
    year: Quantity
    machine: str = ""
    earliest: Quantity | None = None
    latest: Quantity | None = None

    @property
    def reached(self) -> bool:
        """Whether a machine that was built has reached it."""
        return bool(self.machine)


def reach_dates(
    readings: Mapping[str, float], trends: Sequence[Trend] = TRENDS
) -> tuple[Reach, ...]:
    """When each trend reaches each reading, reading by reading.

    Args:
        readings: FLOP/s by name.
        trends: lines of doublings.

    Raises:
        ValueError: a reading that is no positive number of FLOP/s.
    """
    for name, value in readings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"readings[{name!r}]={value!r}; expected a positive number of FLOP/s")
    return tuple(_reach(name, value, trend) for name, value in readings.items() for trend in trends)


def _reach(reading: str, flop_per_s: float, trend: Trend) -> Reach:
    for machine, year, built in trend.facts:
        if built.value >= flop_per_s:
            return Reach(reading=reading, trend=trend.name, year=year, machine=machine)

    def passes(part: str, pace: Quantity) -> Quantity:
        basis = f"`{trend.start_year.name}` + log2(reading / `{trend.start.name}`) x `{pace.name}`"
        year = trend.year_of(flop_per_s, pace.value)
        return years(f"reach.{part}", year, Source("derived", basis))

    return Reach(
        reading=reading,
        trend=trend.name,
        year=passes("year", trend.doubling_time),
        earliest=passes("earliest", trend.low) if trend.low else None,
        latest=passes("latest", trend.high) if trend.high else None,
    )


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a trend foretold for the date of the latest HPCG record, and how it came out.

    Attributes:
        trend: name of the trend.
        foretold: FLOP/s at that date.
        ratio: the record over what was foretold; above 1, growth was faster.
    """

    trend: str
    foretold: Quantity
    ratio: Quantity


def scores(record: Record = HPCG_RECORDS[-1]) -> tuple[Score, ...]:
    """The essay's trends against a record; the first is nearest to it, as a factor."""
    found = []
    for trend in TRENDS:
        if trend.facts:
            continue
        pace, name = trend.doubling_time.name, f"score.{trend.doubling_time.name}"
        foretold = Quantity(
            name=f"{name}.foretold",
            value=trend.flop_per_s(record.year.value),
            unit="FLOP/s",
            source=Source("derived", f"`{FASTEST.name}`, doubled every `{pace}` until then"),
        )
        ratio = Quantity(
            name=f"{name}.ratio",
            value=record.hpcg.value / foretold.value,
            unit="1",
            source=Source("derived", f"`{record.hpcg.name}` / `{foretold.name}`"),
        )
        found.append(Score(trend=trend.name, foretold=foretold, ratio=ratio))
    return tuple(sorted(found, key=lambda each: abs(math.log(each.ratio.value))))
