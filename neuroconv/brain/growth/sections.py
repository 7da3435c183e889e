"""The forecast's tables: the essay's dates, the HPCG record, AI's growth, when it is reached."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from neuroconv.brain.evidence.facts import facts, read_toml
from neuroconv.brain.growth.trends import (
    crossings,
    essay_dates,
    hpcg_records,
    record_growth,
    scores,
    trends,
)  # fmt: skip
from neuroconv.brain.quantity import Quantity, derived, plain, scientific
from neuroconv.brain.section import Column, Section, number
from neuroconv.references import Source

_PETA = 10**15
_BASIS = ("brain.flop_per_second", "hpcg.start", "essay.year", "essay.computer_year", "doublings")


def dates_section() -> Section:
    """Returns the years that the essay prints beside those that its numbers give."""
    total, start, essay_year, computer_year, doublings = (facts()[name] for name in _BASIS)
    return Section(
        "The essay's dates, recomputed",
        essay_dates(),
        (
            Column("growth", "label", wrap=False),
            number("printed", "printed"),
            _formatted("years a\ndoubling", "pace", "g"),
            _formatted("computed", "computed", ".1f"),
            _formatted("from 2013.5", "from_listing", ".1f"),
            Column("verdict", "verdict"),
        ),
        f"{doublings.value:.2f} doublings from {start.shown} to {total.shown} FLOP/s, counted "
        f"from {essay_year.value:.2f}, the essay's date; right, from {computer_year.value:.1f}, "
        "where it dates the computer",
        ("label", "printed", "needed", "pace", "computed", "from_listing", "verdict"),
    )


def records_section() -> Section:
    """Returns every holder of the HPCG record, its share of Linpack, and the record's growth."""
    growth, last = {key: row.value for key, row in record_growth().items()}, hpcg_records()[-1]
    within = [
        trend.name.removeprefix("essay, ")
        for trend in trends()
        if not trend.machines and growth["low"] <= trend.doubling_time.value <= growth["high"]
    ]
    foretold = "; ".join(
        f"{score['foretold'].value / _PETA:.3g} PFLOP/s ({score['trend'].removeprefix('essay, ')})"
        for score in scores()
    )
    return Section(
        "The HPCG record",
        hpcg_records(),
        (
            Column("machine", "machine"),
            _formatted("date", "year", ".1f"),
            _formatted("HPCG,\nPFLOP/s", "hpcg", ".3g", 1 / _PETA),
            _formatted("HPL,\nPFLOP/s", "hpl", ".4g", 1 / _PETA),
            _formatted("HPCG / HPL,\n%", "share", ".1f", 100),
            Column("source of the HPCG result", lambda row: row.hpcg.source),
        ),
        f"Doubling time {growth['fitted']:.2f} years (least squares, 95 % interval "
        f"{growth['low']:.2f} to {growth['high']:.2f}), {growth['between_ends']:.2f} from "
        f"first to last; since {hpcg_records()[-3].year.value:.1f} only {growth['recent']:.1f}. "
        f"For {last.year.value:.1f} the essay's paces foretold, nearest first: {foretold}; built "
        f"were {last.hpcg.value / _PETA:.1f}. The interval holds {', '.join(within) or 'none'}.",
        ("machine", "year", "hpcg", "hpl", "share"),
    )


def growth_section() -> Section:
    """Returns how fast AI's training compute and clusters grew."""
    rows = [{"quantity": fact} for fact in _facts("ai.", "limit.cmos")]
    columns = (
        Column("quantity", lambda row: _title(row["quantity"].name.removeprefix("ai."))),
        number("value", lambda row: f"{row['quantity'].shown} {row['quantity'].unit}"),
        Column("source", lambda row: row["quantity"].source),
    )
    return Section("The growth of AI computers", rows, columns, _caveats()[2])


def forecast_section(readings: Mapping[str, float]) -> Section:
    """Returns the year in which each trend reaches each reading, or the machine that has."""
    dates = iter(crossings(readings))
    rows = [
        {"reading": name, "flop_per_s": scientific(value, 2)}
        | {trend.name: _reached(next(dates)) for trend in trends()}
        for name, value in readings.items()
    ]
    columns = [Column("reading", "reading", wrap=False), number("FLOP/s", "flop_per_s")]
    for trend in trends():
        width = 9 if trend.machines else 5  # so that all trends fit into 80 columns
        title = fill(trend.name.replace(",", ""), width, break_long_words=False)
        columns.append(number(title, trend.name))
    return Section(
        "When each reading is reached",
        rows,
        columns,
        "by YEAR, machine: reached, by a machine that was built. <2015: a line starts above it. "
        "Below a year the ends of the growth's 95 % interval. " + " ".join(_caveats()[:2]),
    )


def _reached(crossing: Mapping[str, Any]) -> str:
    year, start = crossing["year"].value, facts()["essay.year"].value
    if crossing["reached"]:
        return f"by {int(year)},\n{crossing['machine']}"
    if year < start:  # the line starts above the reading
        return f"<{int(start)}"
    if crossing["earliest"] is None:
        return f"{year:.0f}"
    return f"{year:.0f}\n{crossing['earliest'].value:.0f}-{crossing['latest'].value:.0f}"


def learning_section() -> Section:
    """Returns shares of a peak beside the essay's claim that HPCG overstates deep learning."""
    claim = share_claim()
    low, high = _percent_range(claim["hpcg_over_hpl"])
    rows = [
        ("HPCG / HPL, record holders", f"{low:.1f} to {high:.1f}", "the table of the HPCG record"),
        *((_title(row.name), f"{row.value * 100:.1f}", row.source) for row in claim["published"]),
    ]
    columns = (Column("share of a peak", 0), number("%", 1), Column("source", 2))
    return Section("Does HPCG overstate deep learning?", rows, columns, claim["verdict"])


def share_claim() -> dict[str, Any]:
    """Returns the essay's claim beside published shares of a peak, and a verdict."""
    # The shares compare how well two kinds of work use a computer, not two speeds.
    hpcg = [record.share for record in hpcg_records()]
    published = _facts("utilisation.")
    (low, high), (fewest, most) = _percent_range(hpcg), _percent_range(published)
    verdict = (
        f"The claim {'does not hold' if fewest > high else 'is not refuted'} for large training "
        f"runs: they reached {fewest:.0f} to {most:.0f} % of the peak, HPCG's record holders "
        f"{low:.1f} to {high:.1f} % of their Linpack result. "
        "The machines differ, and so does the arithmetic (16 and 64 bit): no machine here has "
        "both numbers, and nothing here says what networks of 2015 reached."
    )
    return {
        "claim": "HPCG greatly overstates what deep learning can get out of a computer",
        "source": Source("dettmers2015", "part IV"),
        "hpcg_over_hpl": hpcg,
        "published": published,
        "verdict": verdict,
    }


def forecast_rows(readings: Mapping[str, float]) -> list[dict[str, Any]]:
    """Returns the rows of all these tables as plain data, and the facts that they rest on."""
    basis = "of `readings`, elsewhere in this report"
    values = {
        name: derived("reading", value, "FLOP/s", f"{name!r} {basis}")
        for name, value in readings.items()
    }
    rows: dict[str, Sequence[Any]] = {
        "essay_basis": [{"quantity": facts()[name]} for name in _BASIS],
        "essay_date": dates_section().to_list(),
        "hpcg_record": records_section().to_list(),
        "hpcg_growth": [record_growth()],
        "score": scores(),
        "ai_growth": growth_section().to_list(),
        "reach": [{"flop_per_s": values[row["reading"]], **row} for row in crossings(readings)],
        "share_claim": [share_claim()],
        "caveat": [{"text": text} for text in _caveats()],
    }
    return [{"section": name} | plain(row) for name in rows for row in rows[name]]


def _caveats() -> list[str]:
    """Returns the limits of lines of growth, of benchmarks, and of figures for training compute."""
    return list(read_toml("machines.toml")["caveats"])


def _facts(*prefixes: str) -> list[Quantity]:
    return [fact for name, fact in facts().items() if name.startswith(prefixes)]


def _percent_range(shares: list[Quantity]) -> tuple[float, float]:
    percents = [share.value * 100 for share in shares]
    return min(percents), max(percents)


def _title(name: str) -> str:
    return name.replace("_", " ").replace(".", ", ")


def _formatted(title: str, key: str, form: str, factor: float = 1) -> Column:
    """Returns a column of a quantity's formatted value, "-" for none."""

    def cell(row: Any) -> str:
        quantity = getattr(row, key)
        return "-" if quantity is None else f"{quantity.value * factor:{form}}"

    return number(title, cell)
