"""The essay's dates against its print, the record's growth, and dates by hand."""

import math
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from neuroconv.brain.evidence.facts import facts
from neuroconv.brain.growth import sections
from neuroconv.brain.growth.trends import (
    crossings,
    decimal_year,
    essay_dates,
    hpcg_records,
    record_growth,
    scores,
    trends,
)  # fmt: skip
from neuroconv.brain.quantity import derived
from tests.brain.reporting import bare_numbers, printed

READINGS = {"published": 1.075e21, "one step, 30/s": 3.0e19, "linear collapse": 2.0e16}


def crossing(reading: str, trend: str) -> dict[str, Any]:
    rows = (row for row in crossings(READINGS) if row["reading"] == reading)
    return next(row for row in rows if row["trend"].startswith(trend))


def test_the_essays_dates_beside_the_computed_ones() -> None:
    doublings = facts()["doublings"].value
    assert facts()["hpcg.start"].value * 2**doublings == pytest.approx(1.075e21)
    moore, past, network, preferred, far = essay_dates()
    assert [row.printed.value for row in essay_dates()] == [2037, 2053, 2078, 2080, 2100]
    for row, year in ((moore, 2047), (past, 2053), (network, 2078)):
        assert round(row.computed.value) == year
        earlier = row.computed.value - row.from_listing.value
        assert earlier == pytest.approx(2.067, abs=0.001)
    assert moore.needed.value == pytest.approx(1.03, abs=0.005)
    assert moore.verdict == "not as printed: 1.5 years a doubling give 2047; 2037 needs 1.03"
    assert past.verdict == network.verdict == "as printed"
    assert preferred.computed is None
    assert "needs 3.09" in preferred.verdict
    assert "needs 4.06" in far.verdict


def test_decimal_year() -> None:
    assert decimal_year(date(2015, 1, 1)) == 2015
    assert decimal_year(date(2015, 7, 27)) == pytest.approx(2015 + 207 / 365)
    assert decimal_year(date(2016, 12, 31)) == pytest.approx(2016 + 365 / 366)
    assert facts()["essay.year"].value == round(decimal_year(date(2015, 7, 27)), 3)
    assert facts()["ai.colossus.year"].value == round(decimal_year(date(2025, 3, 1)), 3)


def test_records_rise_and_lead_to_addresses() -> None:
    dates = [record.year.value for record in hpcg_records()]
    results = [record.hpcg.value for record in hpcg_records()]
    assert dates == sorted(dates)
    assert results == sorted(set(results))
    shares = {record.hpcg.name.split(".")[1]: record.share.value for record in hpcg_records()}
    assert shares["tianhe_2_201406"] == pytest.approx(0.58 / 33.86)
    assert all(0.009 < value < 0.06 for value in shares.values())
    for record in hpcg_records():
        assert all(part.source.urls for part in (record.year, record.hpcg, record.hpl))


def test_growth_of_records_that_double_every_two_years_is_two_years() -> None:
    # A scatter that sums to nothing along the line, so that the interval has a width.
    results = [2 ** (step + scatter * 0.01) for step, scatter in enumerate((1, -2, 2, -2, 1))]
    steady = [
        replace(
            hpcg_records()[0],
            date=date(2000 + 2 * step, 1, 1),
            hpcg=derived("made_up.hpcg", result, "FLOP/s", "`test`"),
        )
        for step, result in enumerate(results)
    ]
    growth = record_growth(steady)
    assert growth["fitted"].value == pytest.approx(2)
    assert growth["between_ends"].value == pytest.approx(2)
    assert growth["low"].value < 2 < growth["high"].value < 2.1


def test_growth_of_the_record() -> None:
    growth, first, last = record_growth(), hpcg_records()[0], hpcg_records()[-1]
    doublings = math.log2(last.hpcg.value / first.hpcg.value)
    between = (last.year.value - first.year.value) / doublings
    assert growth["between_ends"].value == pytest.approx(between)
    assert growth["fitted"].value == pytest.approx(2.12, abs=0.01)
    assert 1.03 < growth["low"].value < 1.5 < 3 < growth["high"].value
    assert growth["recent"].value > 10
    with pytest.raises(ValueError, match="3 records; expected 4 or more"):
        record_growth(hpcg_records()[:3])
    with pytest.raises(ValueError, match="doublings a year; expected one above zero"):
        record_growth([hpcg_records()[i] for i in (0, 3, 1, 2)][::-1])


def test_the_essays_paces_scored_by_the_latest_record() -> None:
    best, second = scores()[:2]
    assert (best["trend"], second["trend"]) == ("essay, 1.8 years", "essay, 3 years")
    years = hpcg_records()[-1].year.value - 2015.567
    assert best["foretold"].value == pytest.approx(0.58e15 * 2 ** (years / 1.8))
    assert best["ratio"].value < 1 < second["ratio"].value
    caption = sections.records_section().caption or ""
    assert caption.endswith("The interval holds 1.5 years, 1.8 years, 3 years.")


@pytest.mark.parametrize(
    ("trend", "year"),
    [
        *(("essay, 1.03", 2037), ("essay, 1.5", 2047), ("essay, 1.8", 2053), ("essay, 3", 2078)),
        # Colossus of March 2025, and log2(1.075e21 / 2e20) = 2.43 times nine months.
        ("AI clusters", 2027),
    ],
)
def test_when_the_published_reading_is_reached(trend: str, year: int) -> None:
    assert round(crossing("published", trend)["year"].value) == year
    assert not crossing("published", trend)["reached"]


def test_the_records_line_has_an_interval() -> None:
    row = crossing("published", "HPCG record")
    assert row["earliest"].value < row["year"].value < row["latest"].value
    last = hpcg_records()[-1]
    years = record_growth()["fitted"].value * math.log2(1.075e21 / last.hpcg.value)
    assert row["year"].value == pytest.approx(last.year.value + years)


def test_a_machine_that_was_built_is_a_fact_and_no_line() -> None:
    row = crossing("linear collapse", "HPCG record")
    assert (row["machine"], int(row["year"].value), row["earliest"]) == ("LineShine", 2026, None)
    assert crossing("one step, 30/s", "AI clusters")["machine"] == "Colossus"
    assert crossings({"as large": facts()["ai.colossus.peak"].value})[-1]["machine"] == "Colossus"


def test_a_line_passes_through_its_start_and_doubles() -> None:
    for trend in trends():
        start, pace = trend.start_year.value, trend.doubling_time.value
        assert trend.year_of(trend.start.value) == pytest.approx(start)
        assert trend.flop_per_s(start + pace) == pytest.approx(2 * trend.start.value)
        assert trend.year_of(trend.flop_per_s(2060)) == pytest.approx(2060)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
def test_a_reading_must_be_a_positive_number(value: float) -> None:
    with pytest.raises(ValueError, match=r"readings\['odd'\]=.*expected a positive number"):
        crossings({"odd": value})


def test_the_claim_on_deep_learning_beside_published_shares() -> None:
    verdict = sections.share_claim()["verdict"]
    assert verdict.startswith("The claim does not hold for large training runs")
    assert "38 to 46 % of the peak, HPCG's record holders 1.0 to 5.7 %" in verdict


def test_every_number_of_the_rows_has_a_unit_and_a_source() -> None:
    rows = sections.forecast_rows(READINGS)
    assert bare_numbers(rows) == []
    names = [row["section"] for row in rows]
    assert names.count("reach") == len(READINGS) * len(trends())
    assert names.count("hpcg_record") == len(hpcg_records())
    assert {"essay_date", "hpcg_growth", "score", "ai_growth", "share_claim"} <= set(names)
    built = {row["machine"] for row in rows if row["section"] == "reach" and row["reached"]}
    assert built == {"LineShine", "Colossus"}


def test_tables_say_what_the_rows_say() -> None:
    forecast = sections.forecast_section(READINGS)
    for section, words in (
        (sections.dates_section(), ("2037 needs 1.03", "20.82 doublings")),
        (sections.records_section(), ("38.7 PFLOP/s (1.8 years)",)),
        (sections.growth_section(), ("no FLOP/s",)),
        (sections.learning_section(), ("1.0 to 5.7",)),
        (forecast, ("by 2026,", "LineShine", "physical limit")),
    ):
        text = printed(section, 400)
        assert all(word in text for word in words)
    (line,) = (line for line in text.splitlines() if line.strip().startswith("published"))
    assert all(year in line for year in ("2037", "2047", "2053", "2078", "2027"))


def test_a_reading_below_the_start_of_a_line_has_no_date_on_it() -> None:
    for value, expected in ((1e13, 4), (1e21, 0)):
        text = printed(sections.forecast_section({"reading": value}), 80)
        assert text.count("<2015") == expected + 1  # and once in the caption
        assert "…" not in text
