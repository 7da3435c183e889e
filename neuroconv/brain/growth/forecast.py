"""The forecast's tables, and the same as rows for a JSON file.

`forecast_table` shows when each reading of the estimate is reached under each trend; the other
tables show the essay's own dates, the HPCG record, the growth of AI computers, and what the essay
says of deep learning beside measured shares of a peak.
"""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from rich.table import Table
from rich.text import Text

from neuroconv.brain.evidence.essay import DOUBLINGS, FASTEST, TOTAL
from neuroconv.brain.growth.essay_dates import (
    ESSAY_YEAR,
    LISTED_YEAR,
    essay_dates,
)
from neuroconv.brain.growth.records import (
    AI_GROWTH,
    CMOS_LIMIT,
    COLOSSUS_YEAR,
    HPCG_RECORDS,
    PETA,
    UTILISATION,
)
from neuroconv.brain.growth.trends import TRENDS, Reach, reach_dates, record_growth, scores
from neuroconv.brain.quantity import Quantity, plain_table, scientific
from neuroconv.references import Source

CAVEATS = (
    "A line is arithmetic, and some physical limit ends it: one estimate of CMOS's limit lies at "
    "about 200 times the FLOP per joule of 2023.",
    "HPCG is measured in 64 bit; an AI cluster's peak is theoretical, dense and in 16 bit, and "
    "training sustains less than half of it: the two are not one history.",
    "Training compute is FLOP, spread over weeks or months, and no FLOP/s: its growth is no date "
    "at which a machine keeps up with a brain.",
)


def essay_dates_table() -> Table:
    """The years that the essay prints beside those that its own numbers give."""
    table = plain_table(
        "The essay's dates, recomputed",
        f"{DOUBLINGS.value:.2f} doublings from {FASTEST.shown} to {TOTAL.shown} FLOP/s, counted "
        f"from {ESSAY_YEAR.value:.2f}, the essay's date; right, from {LISTED_YEAR.value:.1f}, "
        "where it dates the computer",
    )
    for name in ("growth", "printed", "years a\ndoubling", "computed", "from 2013.5"):
        table.add_column(name, justify="left" if name == "growth" else "right", no_wrap=True)
    table.add_column("verdict")
    for each in essay_dates():
        years = (_shown(year, ".1f") for year in (each.computed, each.from_listing))
        table.add_row(
            each.label, f"{each.printed.value:g}", _shown(each.pace, "g"), *years, each.verdict
        )
    return table


def records_table() -> Table:
    """Every holder of the HPCG record, its share of Linpack, and the growth of the record."""
    growth = record_growth()
    table = plain_table(
        "The HPCG record",
        f"Doubling time {growth.fitted.value:.2f} years (least squares, 95 % interval "
        f"{growth.low.value:.2f} to {growth.high.value:.2f}), {growth.between_ends.value:.2f} from "
        f"first to last; since {HPCG_RECORDS[-3].year.value:.1f} only {growth.recent.value:.1f}. "
        + forecast_so_far(),
    )
    table.add_column("machine")
    for name in ("date", "HPCG,\nPFLOP/s", "HPL,\nPFLOP/s", "HPCG / HPL,\n%"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("source of the HPCG result")
    for each in HPCG_RECORDS:
        table.add_row(
            each.machine,
            f"{each.year.value:.1f}",
            f"{each.hpcg.value / PETA:.3g}",
            f"{each.hpl.value / PETA:.4g}",
            f"{each.share.value * 100:.1f}",
            each.hpcg.source.brief,
        )
    return table


def forecast_so_far() -> str:
    """Which of the essay's paces the HPCG record has borne out so far, in two sentences."""
    growth, last, found = record_growth(), HPCG_RECORDS[-1], scores()
    inside = [
        trend.removeprefix("essay, ")
        for trend, pace in (
            (each.name, each.doubling_time.value) for each in TRENDS if not each.facts
        )
        if growth.low.value <= pace <= growth.high.value
    ]
    foretold = "; ".join(
        f"{each.foretold.value / PETA:.3g} PFLOP/s ({each.trend.removeprefix('essay, ')})"
        for each in found
    )
    return (
        f"For {last.year.value:.1f} the essay's paces foretold, nearest first: {foretold}; built "
        f"were {last.hpcg.value / PETA:.1f}. The interval holds {', '.join(inside) or 'none'}."
    )


def growth_table() -> Table:
    """How fast AI's training compute and clusters grew."""
    table = plain_table("The growth of AI computers", CAVEATS[2])
    table.add_column("quantity")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("source")
    for each in (*AI_GROWTH, CMOS_LIMIT):
        name = each.name.removeprefix("ai.").replace("_", " ").replace(".", ", ")
        table.add_row(name, f"{each.shown} {each.unit}", each.source.brief)
    return table


def forecast_table(readings: Mapping[str, float]) -> Table:
    """Year in which each trend reaches each reading, or the machine that has.

    Args:
        readings: FLOP/s by name.

    Raises:
        ValueError: a reading that is no positive number of FLOP/s.
    """
    table = plain_table(
        "When each reading is reached",
        "by YEAR, machine: reached, by a machine that was built. <2015: a line starts above it. "
        "Below a year the ends of the growth's 95 % interval. " + " ".join(CAVEATS[:2]),
    )
    table.add_column("reading", no_wrap=True)
    table.add_column("FLOP/s", justify="right", no_wrap=True)
    for trend in TRENDS:
        # Words one below another, so that all trends fit into 80 columns.
        title = fill(trend.name.replace(",", ""), 9 if trend.facts else 5, break_long_words=False)
        table.add_column(title, justify="right", no_wrap=True)
    dates = iter(reach_dates(readings))
    for name, value in readings.items():
        cells = [_reached(next(dates)) for _ in TRENDS]
        table.add_row(Text(name), scientific(value, 2), *cells)
    return table


def _reached(date: Reach) -> str:
    if date.reached:
        return f"by {int(date.year.value)},\n{date.machine}"
    if date.year.value < ESSAY_YEAR.value:  # the line starts above the reading
        return f"<{int(ESSAY_YEAR.value)}"
    if date.earliest is None or date.latest is None:
        return f"{date.year.value:.0f}"
    return f"{date.year.value:.0f}\n{date.earliest.value:.0f}-{date.latest.value:.0f}"


def share_table(measured_share: Quantity | None = None) -> Table:
    """Shares of a peak beside the essay's claim that HPCG overstates deep learning.

    Args:
        measured_share: share of this machine's measured peak that a network reached; unit "1".

    Raises:
        ValueError: a share with another unit, or not above zero.
    """
    claim = share_claim(measured_share)
    table = plain_table(
        "Does HPCG overstate deep learning?",
        claim["verdict"],
    )
    table.add_column("share of a peak")
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("source")
    hpcg = [record.share.value * 100 for record in HPCG_RECORDS]
    table.add_row(
        "HPCG / HPL, record holders",
        f"{min(hpcg):.1f} to {max(hpcg):.1f}",
        "the table of the HPCG record",
    )
    for each in (*UTILISATION, *((measured_share,) if measured_share else ())):
        name = each.name.replace("_", " ").replace(".", ", ")
        table.add_row(name, f"{each.value * 100:.1f}", each.source.brief)
    return table


def share_claim(measured_share: Quantity | None = None) -> dict[str, Any]:
    """The essay's claim beside shares of a peak, published and measured, as a row for JSON.

    HPCG is divided by Linpack's 64-bit result, a network by a peak of the arithmetic it runs in:
    the shares compare how well two kinds of work use a computer, not two speeds.

    Args:
        measured_share: share of this machine's measured peak that a network reached; unit "1".

    Returns:
        {"claim", "source", "hpcg_over_hpl", "published", "measured", "verdict"}.

    Raises:
        ValueError: a share with another unit, or not above zero.
    """
    if measured_share is not None and (measured_share.unit != "1" or measured_share.value <= 0):
        raise ValueError(
            f"{measured_share.name}={measured_share.value!r} {measured_share.unit!r}; "
            "expected a share above zero, of unit '1'"
        )
    hpcg = [record.share.value * 100 for record in HPCG_RECORDS]
    runs = [each.value * 100 for each in UTILISATION]
    holds = "does not hold" if min(runs) > max(hpcg) else "is not refuted"
    verdict = (
        f"The claim {holds} for large training runs: they reached {min(runs):.0f} to "
        f"{max(runs):.0f} % of the peak, HPCG's record holders {min(hpcg):.1f} to "
        f"{max(hpcg):.1f} % of their Linpack result. "
        "The machines differ, and so does the arithmetic (16 and 64 bit): no machine here has "
        "both numbers, and nothing here says what networks of 2015 reached."
    )
    if measured_share is not None:
        share = measured_share.value * 100
        side = "above all" if share > max(hpcg) else "below all" if share < min(hpcg) else "among"
        verdict += f" Measured here: {share:.1f} %, {side} of HPCG's shares."
    return {
        "claim": "HPCG greatly overstates what deep learning can get out of a computer",
        "source": str(Source("dettmers2015", "part IV")),
        "hpcg_over_hpl": [record.share.to_dict() for record in HPCG_RECORDS],
        "published": [each.to_dict() for each in UTILISATION],
        "measured": None if measured_share is None else measured_share.to_dict(),
        "verdict": verdict,
    }


def forecast_rows(
    readings: Mapping[str, float], measured_share: Quantity | None = None
) -> list[dict[str, Any]]:
    """What the tables show, each number with its unit and its source.

    Every row has a "section": essay_date, essay_basis, hpcg_record, hpcg_growth, score, ai_growth,
    reach, share_claim or caveat.

    Args:
        readings: FLOP/s by name.
        measured_share: share of this machine's measured peak that a network reached; unit "1".

    Raises:
        ValueError: a reading that is no positive number, or a share that `share_claim` refuses.
    """
    basis = (TOTAL, FASTEST, ESSAY_YEAR, LISTED_YEAR, DOUBLINGS)
    rows: list[dict[str, Any]] = [_row("essay_basis", quantity=each) for each in basis]
    rows += [_row("essay_date", **vars(each)) for each in essay_dates()]
    rows += [_row("hpcg_record", share=each.share, **vars(each)) for each in HPCG_RECORDS]
    rows.append(_row("hpcg_growth", **vars(record_growth())))
    rows += [_row("score", **vars(each)) for each in scores()]
    growth = (*AI_GROWTH, COLOSSUS_YEAR, CMOS_LIMIT)
    rows += [_row("ai_growth", quantity=each) for each in growth]
    for reach in reach_dates(readings):
        value = Quantity(
            name="reading",
            value=readings[reach.reading],
            unit="FLOP/s",
            source=Source("derived", f"{reach.reading!r} of `readings`, elsewhere in this report"),
        )
        rows.append(_row("reach", flop_per_s=value, reached=reach.reached, **vars(reach)))
    rows.append({"section": "share_claim", **share_claim(measured_share)})
    return rows + [{"section": "caveat", "text": text} for text in CAVEATS]


def _row(section: str, **fields: Any) -> dict[str, Any]:
    return {"section": section} | {
        name: each.to_dict() if isinstance(each, Quantity) else each
        for name, each in fields.items()
    }


def _shown(quantity: Quantity | None, form: str) -> str:
    return "-" if quantity is None else f"{quantity.value:{form}}"
