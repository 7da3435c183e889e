"""The essay's dates, recomputed from its own two performances and its own paces.

The essay counts doublings from the fastest computer of its day to its estimate of the brain and
prints three years in which they are done, and two that it prefers.
"""

from dataclasses import dataclass
from datetime import date

from neuroconv.brain.evidence.essay import DOUBLINGS
from neuroconv.brain.growth.records import decimal_year
from neuroconv.brain.quantity import Quantity
from neuroconv.references import Source

ESSAY_YEAR = Quantity(
    name="essay.year",
    value=round(decimal_year(date(2015, 7, 27)), 3),
    unit="year",
    source=Source("chosen", "[dettmers2015] of 27 July 2015: it names no start, and this one fits"),
)
# The essay dates the computer's score so; it is when the machine came to lead in Linpack.
LISTED_YEAR = Quantity(
    name="essay.computer_year",
    value=2013.5,
    unit="year",
    source=Source("dettmers2015", "last sentence before part III: July 2013"),
)


@dataclass(frozen=True, kw_only=True)
class EssayDate:
    """A date that the essay prints, beside what its own numbers give.

    Attributes:
        label: what the essay calls the growth.
        printed: the year in the essay.
        pace: years a doubling that the essay states; None where it states none.
        computed: year that pace leads to, from the essay's date; None without a pace.
        from_listing: the same from July 2013, where the essay dates the computer's score.
        needed: years a doubling with which the printed year comes out, from the essay's date.
        verdict: whether the two agree.
    """

    label: str
    printed: Quantity
    pace: Quantity | None
    computed: Quantity | None
    from_listing: Quantity | None
    needed: Quantity
    verdict: str


def essay_dates() -> tuple[EssayDate, ...]:
    """The essay's five dates, recomputed from its two performances and its paces."""
    moore = "18 months, the caption of its last figure; Moore's law in the text"
    return (
        _essay_date("moore", "Moore's law", 2037, "part IV", 1.5, moore),
        _essay_date("past", "as in the past 60 years", 2053, "part IV", 1.8, "part IV"),
        _essay_date("network", "as network bandwidth", 2078, "part IV", 3, "part IV"),
        _essay_date("preferred", "all evidence, after", 2080, "conclusion"),
        _essay_date("far", "perhaps not far, after", 2100, "part IV, last paragraphs"),
    )


def _essay_date(
    key: str, label: str, printed: int, place: str, pace: float | None = None, pace_place: str = ""
) -> EssayDate:
    name = f"essay.{key}"
    needed = (printed - ESSAY_YEAR.value) / DOUBLINGS.value
    if pace is None:
        verdict = f"no pace given; needs {needed:.2f} years a doubling"
        stated = computed = from_listing = None
    else:
        year, listed = (start.value + DOUBLINGS.value * pace for start in (ESSAY_YEAR, LISTED_YEAR))
        agrees = round(year) == printed
        verdict = "as printed" if agrees else (
            f"not as printed: {pace:g} years a doubling give {round(year)}; "
            f"{printed} needs {needed:.2f}"
        )  # fmt: skip
        basis = f"+ `{DOUBLINGS.name}` x `{name}.pace`"
        stated = years(f"{name}.pace", pace, Source("dettmers2015", pace_place))
        computed = years(f"{name}.computed", year, Source("derived", f"`essay.year` {basis}"))
        from_listing = years(
            f"{name}.from_listing", listed, Source("derived", f"`essay.computer_year` {basis}")
        )
    return EssayDate(
        label=label,
        printed=years(f"{name}.printed", printed, Source("dettmers2015", place)),
        pace=stated,
        computed=computed,
        from_listing=from_listing,
        needed=years(
            f"{name}.needed",
            needed,
            Source("derived", f"(`{name}.printed` - `essay.year`) / `{DOUBLINGS.name}`"),
        ),
        verdict=verdict,
    )


def years(name: str, value: float, source: Source) -> Quantity:
    """A year, or a number of them."""
    return Quantity(name=name, value=value, unit="year", source=source)
