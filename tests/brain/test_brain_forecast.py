"""The essay's dates against its print, the record's growth, and dates by hand."""

import math
from datetime import date
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from neuroconv.brain.evidence.essay import DOUBLINGS, FASTEST, TOTAL
from neuroconv.brain.growth.essay_dates import essay_dates
from neuroconv.brain.growth.forecast import (
    essay_dates_table,
    forecast_rows,
    forecast_so_far,
    forecast_table,
    growth_table,
    records_table,
    share_claim,
    share_table,
)
from neuroconv.brain.growth.records import COLOSSUS, HPCG_RECORDS, UTILISATION, decimal_year
from neuroconv.brain.growth.trends import TRENDS, Reach, reach_dates, record_growth, scores
from neuroconv.brain.quantity import Quantity, bare_numbers
from neuroconv.references import Source

READINGS = {"published": 1.075e21, "one step, 30/s": 3.0e19, "linear collapse": 2.0e16}


def share(value: float, unit: str = "1") -> Quantity:
    source = Source("derived", "`achieved` / `peak`")
    return Quantity(name="measured.share", value=value, unit=unit, source=source)


def reach(reading: str, trend: str) -> Reach:
    (found,) = [
        each
        for each in reach_dates(READINGS)
        if each.reading == reading and each.trend.startswith(trend)
    ]
    return found


def printed(table: Table) -> str:
    console = Console(width=400)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_doublings_of_the_essay() -> None:
    assert DOUBLINGS.value == pytest.approx(20.82, abs=0.005)
    assert FASTEST.value * 2**DOUBLINGS.value == pytest.approx(TOTAL.value)


def test_the_essays_dates_beside_the_computed_ones() -> None:
    moore, past, network, preferred, far = essay_dates()
    assert [each.printed.value for each in essay_dates()] == [2037, 2053, 2078, 2080, 2100]
    assert [round(each.computed.value) for each in (moore, past, network) if each.computed] == [
        2047,
        2053,
        2078,
    ]
    assert moore.needed.value == pytest.approx(1.03, abs=0.005)
    assert moore.verdict == "not as printed: 1.5 years a doubling give 2047; 2037 needs 1.03"
    assert past.verdict == network.verdict == "as printed"
    assert preferred.computed is None
    assert "needs 3.09" in preferred.verdict
    assert "needs 4.06" in far.verdict


def test_a_start_where_the_essay_dates_the_computer_comes_two_years_earlier() -> None:
    for each in essay_dates()[:3]:
        assert each.computed
        assert each.from_listing
        assert each.computed.value - each.from_listing.value == pytest.approx(2.067, abs=0.001)


def test_decimal_year() -> None:
    assert decimal_year(date(2015, 1, 1)) == 2015
    assert decimal_year(date(2015, 7, 27)) == pytest.approx(2015 + 207 / 365)
    assert decimal_year(date(2016, 12, 31)) == pytest.approx(2016 + 365 / 366)


def test_records_rise_in_date_and_performance() -> None:
    dates = [record.year.value for record in HPCG_RECORDS]
    results = [record.hpcg.value for record in HPCG_RECORDS]
    assert dates == sorted(dates)
    assert results == sorted(set(results))


def test_shares_of_linpack_are_a_few_percent() -> None:
    by_name = {record.hpcg.name.split(".")[1]: record.share.value for record in HPCG_RECORDS}
    assert by_name["tianhe_2_201406"] == pytest.approx(0.58 / 33.86)
    assert by_name["el_capitan_202506"] == pytest.approx(0.01, abs=1e-4)
    assert all(0.009 < value < 0.06 for value in by_name.values())


def test_growth_of_records_that_double_every_two_years_is_two_years() -> None:
    first = HPCG_RECORDS[0]
    steady = []
    for step in range(5):
        # A scatter that sums to nothing along the line, so that the interval has a width.
        wobble = (1, -2, 2, -2, 1)[step] * 0.01
        steady.append(
            type(first)(
                machine="made up",
                year=Quantity(
                    name="y", value=2000 + 2 * step, unit="year", source=first.hpl.source
                ),
                hpcg=Quantity(
                    name="h", value=2 ** (step + wobble), unit="FLOP/s", source=first.hpl.source
                ),
                hpl=first.hpl,
            )
        )
    growth = record_growth(steady)
    assert growth.fitted.value == pytest.approx(2)
    assert growth.between_ends.value == pytest.approx(2)
    assert growth.low.value < 2 < growth.high.value < 2.1


def test_growth_of_the_record() -> None:
    growth, first, last = record_growth(), HPCG_RECORDS[0], HPCG_RECORDS[-1]
    doublings = math.log2(last.hpcg.value / first.hpcg.value)
    between = (last.year.value - first.year.value) / doublings
    assert growth.between_ends.value == pytest.approx(between)
    assert growth.fitted.value == pytest.approx(2.12, abs=0.01)
    assert growth.low.value < 1.5 < 3 < growth.high.value
    assert growth.low.value > 1.03
    assert growth.recent.value > 10


def test_growth_needs_records_and_growth() -> None:
    with pytest.raises(ValueError, match="3 records; expected 4 or more"):
        record_growth(HPCG_RECORDS[:3])
    with pytest.raises(ValueError, match="doublings a year; expected one above zero"):
        record_growth([HPCG_RECORDS[i] for i in (0, 3, 1, 2)][::-1])


def test_the_essays_paces_scored_by_the_latest_record() -> None:
    best, second = scores()[:2]
    assert best.trend == "essay, 1.8 years"
    assert second.trend == "essay, 3 years"
    years = HPCG_RECORDS[-1].year.value - 2015.567
    assert best.foretold.value == pytest.approx(0.58e15 * 2 ** (years / 1.8))
    assert best.ratio.value < 1 < second.ratio.value
    assert "The interval holds 1.5 years, 1.8 years, 3 years." in forecast_so_far()


@pytest.mark.parametrize(
    ("trend", "year"),
    [
        ("essay, 1.03", 2037),
        ("essay, 1.5", 2047),
        ("essay, 1.8", 2053),
        ("essay, 3", 2078),
        # Colossus of March 2025, and log2(1.075e21 / 2e20) = 2.43 times nine months.
        ("AI clusters", 2027),
    ],
)
def test_when_the_published_reading_is_reached(trend: str, year: int) -> None:
    found = reach("published", trend)
    assert round(found.year.value) == year
    assert not found.reached


def test_the_records_line_has_an_interval() -> None:
    found = reach("published", "HPCG record")
    assert found.earliest
    assert found.latest
    assert found.earliest.value < found.year.value < found.latest.value
    by_hand = HPCG_RECORDS[-1].year.value + record_growth().fitted.value * math.log2(
        1.075e21 / HPCG_RECORDS[-1].hpcg.value
    )
    assert found.year.value == pytest.approx(by_hand)


def test_what_has_been_built_is_a_fact_and_no_line() -> None:
    found = reach("linear collapse", "HPCG record")
    assert (found.machine, int(found.year.value), found.earliest) == ("LineShine", 2026, None)
    assert reach("one step, 30/s", "AI clusters").machine == "Colossus"
    exactly = reach_dates({"as large": COLOSSUS.value})
    assert exactly[-1].machine == "Colossus"


def test_a_line_passes_through_its_start_and_doubles() -> None:
    for trend in TRENDS:
        start, pace = trend.start_year.value, trend.doubling_time.value
        assert trend.year_of(trend.start.value) == pytest.approx(start)
        assert trend.flop_per_s(start + pace) == pytest.approx(2 * trend.start.value)
        assert trend.year_of(trend.flop_per_s(2060)) == pytest.approx(2060)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
def test_a_reading_must_be_a_positive_number(value: float) -> None:
    with pytest.raises(ValueError, match=r"readings\['odd'\]=.*expected a positive number"):
        reach_dates({"odd": value})


def test_the_claim_on_deep_learning_beside_published_and_measured_shares() -> None:
    alone = share_claim()
    assert alone["measured"] is None
    assert alone["verdict"].startswith("The claim does not hold for large training runs")
    assert "38 to 46 %" in alone["verdict"]
    assert "1.0 to 5.7 %" in alone["verdict"]
    assert "31.0 %, above all" in share_claim(share(0.31))["verdict"]
    assert "2.0 %, among" in share_claim(share(0.02))["verdict"]
    assert "0.5 %, below all" in share_claim(share(0.005))["verdict"]
    assert share_claim(share(0.31))["measured"]["value"] == 0.31


@pytest.mark.parametrize("wrong", [share(31, "%"), share(0.0), share(-0.1)])
def test_a_measured_share_is_a_share(wrong: Quantity) -> None:
    with pytest.raises(ValueError, match="expected a share above zero, of unit '1'"):
        share_claim(wrong)


def test_every_number_of_the_rows_has_a_unit_and_a_source() -> None:
    rows = forecast_rows(READINGS, share(0.31))
    assert bare_numbers(rows) == []
    sections = [row["section"] for row in rows]
    assert sections.count("reach") == len(READINGS) * len(TRENDS)
    assert sections.count("hpcg_record") == len(HPCG_RECORDS)
    assert {"essay_date", "hpcg_growth", "score", "ai_growth", "share_claim"} <= set(sections)
    built = [row for row in rows if row["section"] == "reach" and row["reached"]]
    assert {row["machine"] for row in built} == {"LineShine", "Colossus"}


def test_every_fact_leads_to_an_address() -> None:
    facts = [each for record in HPCG_RECORDS for each in (record.year, record.hpcg, record.hpl)]
    assert all(each.source.urls for each in (*facts, *UTILISATION, COLOSSUS))


def test_tables_say_what_the_rows_say() -> None:
    assert "2037 needs 1.03" in printed(essay_dates_table())
    assert "20.82 doublings" in printed(essay_dates_table())
    assert "38.7 PFLOP/s (1.8 years)" in printed(records_table())
    assert "no FLOP/s" in printed(growth_table())
    text = printed(forecast_table(READINGS))
    assert "by 2026," in text
    assert "LineShine" in text
    assert "physical limit" in text
    (line,) = [each for each in text.splitlines() if each.strip().startswith("published")]
    assert [year in line for year in ("2037", "2047", "2053", "2078", "2027")] == [True] * 5
    assert "measured, share" in printed(share_table(share(0.31)))
    assert "measured" not in printed(share_table())


def test_a_reading_below_the_start_of_a_line_has_no_date_on_it() -> None:
    for value, expected in ((1e13, 4), (1e21, 0)):
        console = Console(file=StringIO(), width=80)
        console.print(forecast_table({"reading": value}))
        assert isinstance(console.file, StringIO)
        printed = console.file.getvalue()
        assert printed.count("<2015") == expected + 1  # and once in the legend
        assert "…" not in printed
