"""Facts on computers that the forecast is held against, each with its source.

Performance is kept apart by arithmetic: HPL and HPCG are measured in 64 bit, an AI cluster's peak
is the sum of its chips' theoretical dense 16-bit rates. A date is a decimal year.
"""

import re
from dataclasses import dataclass
from datetime import date

from neuroconv.brain.quantity import Quantity
from neuroconv.references import Source

PETA = 10**15


def decimal_year(day: date) -> float:
    """The day's start as a year with decimals: 1 July 2014 is 2014.496."""
    start, end = date(day.year, 1, 1), date(day.year + 1, 1, 1)
    return day.year + (day - start).days / (end - start).days


@dataclass(frozen=True, kw_only=True)
class Record:
    """A machine that was first in HPCG, at the date of the list that says so.

    Attributes:
        machine: its name.
        year: date of the list, in years.
        hpcg: its HPCG result, in FLOP/s.
        hpl: its Linpack result on the TOP500 list of that date, in FLOP/s.
    """

    machine: str
    year: Quantity
    hpcg: Quantity
    hpl: Quantity

    @property
    def share(self) -> Quantity:
        """HPCG as a share of HPL."""
        return Quantity(
            name=self.hpcg.name.replace(".hpcg", ".hpcg_over_hpl"),
            value=self.hpcg.value / self.hpl.value,
            unit="1",
            source=Source("derived", f"`{self.hpcg.name}` / `{self.hpl.name}`"),
        )


def _record(
    machine: str, day: date, listed: Source, hpcg: tuple[float, Source], hpl: tuple[float, Source]
) -> Record:
    """HPCG and HPL in PFLOP/s, each with its source."""
    slug = re.sub(r"\W", "_", machine.lower())
    name = f"hpcg_record.{slug}_{day:%Y%m}"
    return Record(
        machine=machine,
        year=Quantity(
            name=f"{name}.year", value=round(decimal_year(day), 3), unit="year", source=listed
        ),
        hpcg=Quantity(name=f"{name}.hpcg", value=hpcg[0] * PETA, unit="FLOP/s", source=hpcg[1]),
        hpl=Quantity(name=f"{name}.hpl", value=hpl[0] * PETA, unit="FLOP/s", source=hpl[1]),
    )


_LIST_202011 = Source("top500_202011", "rank 1", "announced on 23 November 2020")
_LIST_202506 = Source("top500_202506", "El Capitan", "announced on 10 June 2025")
_LIST_202606 = Source(
    "letsdatascience2026", "quotation of the release", "the TOP500's own page not looked up here"
)

HPCG_RECORDS: tuple[Record, ...] = (
    _record(
        "Tianhe-2",
        date(2014, 6, 23),
        Source(
            "hpcg201806",
            "the first HPCG list is ISC 2014's",
            "[dettmers2015] dates the score July 2013, a year before the first list, which is when "
            "the machine led in Linpack; which list of 2014 held 0.58 is not looked up here",
        ),
        (0.58, Source("dettmers2015", "part IV", "0.580 on the lists, not looked up here")),
        (33.86, Source("top500_201506", "first paragraph", "unchanged since June 2013")),
    ),
    _record(
        "K computer",
        date(2016, 11, 14),
        Source("hpcg201706", "second highlight: first since SC16, November 2016"),
        (0.602, Source("kcomputer2016", "602 teraflops", "on all its 82,944 nodes")),
        (10.51, Source("top500_201506", "fourth highlight", "unchanged since 2011")),
    ),
    _record(
        "Summit",
        date(2018, 6, 25),
        Source("hpcg201806", "first paragraphs"),
        (2.92575, Source("top500_202011", "rank 2", "first with 2.9: [hpcg201806]")),
        (
            122.3,
            Source("summit2018", "second paragraph", "148.6 in [top500_202011]"),
        ),
    ),
    _record(
        "Fugaku",
        date(2020, 6, 22),
        Source("hpcg202006", "second paragraph"),
        (13.4, Source("fujitsu2020", "13,400 teraflops", "on 138,240 nodes, 87 % of the machine")),
        (415.53, Source("fujitsu2020", "first paragraph", "on 152,064 nodes")),
    ),
    _record(
        "Fugaku", date(2020, 11, 23), _LIST_202011, (16.0045, _LIST_202011), (442.01, _LIST_202011)
    ),
    _record(
        "El Capitan",
        date(2025, 6, 10),
        _LIST_202506,
        (17.41, _LIST_202506),
        (1742.0, _LIST_202506),
    ),
    _record(
        "LineShine", date(2026, 6, 23), _LIST_202606, (22.0, _LIST_202606), (2198.0, _LIST_202606)
    ),
)

_NOT_SEEN = "the paper's own page not seen"

COLOSSUS_YEAR = Quantity(
    name="ai.colossus.year",
    value=round(decimal_year(date(2025, 3, 1)), 3),
    unit="year",
    source=Source("pilz2025", "abstract: the leading system in March 2025"),
)
COLOSSUS_CHIPS = Quantity(
    name="ai.colossus.chips", value=200_000, unit="chips", source=Source("pilz2025", "abstract")
)
COLOSSUS = Quantity(
    name="ai.colossus.peak",
    value=2e20,
    unit="FLOP/s",
    source=Source(
        "pilz2025",
        "peak, dense, 16 bit, as summaries of the paper quote it",
        f"{_NOT_SEEN}; `ai.colossus.chips` at 989 TFLOP/s ([itkb2026], table) give 1.98e20",
    ),
)
COLOSSUS_POWER = Quantity(
    name="ai.colossus.power",
    value=300e6,
    unit="W",
    source=Source("pilz2025", "abstract", "280 MW in [epoch2025]"),
)
CLUSTER_DOUBLING = Quantity(
    name="ai.clusters.doubling_time",
    value=0.75,
    unit="year",
    source=Source(
        "pilz2025",
        "abstract: nine months",
        "leading AI supercomputers, 2019 to 2025, peak in 16 bit",
    ),
)

# What grows how fast; a factor per year where the publication gives one.
AI_GROWTH: tuple[Quantity, ...] = (
    Quantity(
        name="ai.training_compute.doubling_time",
        value=0.5,
        unit="year",
        source=Source(
            "sevilla2022",
            "abstract: approximately six months, since 2010",
            "of the FLOP of one training run, which is no FLOP/s: runs also grew longer",
        ),
    ),
    Quantity(
        name="ai.training_compute.growth_low",
        value=4,
        unit="fold/year",
        source=Source(
            "epoch2024",
            "introduction: 4 to 5 times a year, 2010 to May 2024",
            "4.1 times in [pilz2025], executive summary; FLOP of a run, no FLOP/s",
        ),
    ),
    Quantity(
        name="ai.training_compute.growth_high",
        value=5,
        unit="fold/year",
        source=Source("epoch2024", "introduction: 4 to 5 times a year, 2010 to May 2024"),
    ),
    CLUSTER_DOUBLING,
    Quantity(
        name="ai.largest_site.doubling_time",
        value=round(7 / 12, 3),
        unit="year",
        source=Source(
            "epoch2026",
            "first paragraph: seven months, since August 2024",
            "peak of the largest data centre; none meaningfully larger expected before the second "
            "half of 2027",
        ),
    ),
    Quantity(
        name="ai.clusters.power_doubling_time",
        value=round(13 / 12, 3),
        unit="year",
        source=Source(
            "epoch2025", "title: 13 months", "cost and power every year in [pilz2025], abstract"
        ),
    ),
    COLOSSUS_CHIPS,
    COLOSSUS,
    COLOSSUS_POWER,
    Quantity(
        name="ai.colossus_2.planned_capacity",
        value=1_400_000,
        unit="H100 equivalents",
        source=Source(
            "nextbigfuture2025",
            "third paragraph",
            "a plan for 2026; the largest site in [epoch2026], what stands there not looked up "
            "here. At 989 TFLOP/s each ([itkb2026], table) that is 1.4e21 FLOP/s on paper",
        ),
    ),
)

CMOS_LIMIT = Quantity(
    name="limit.cmos_efficiency_4_bit",
    value=4.7e15,
    unit="FLOP/J",
    source=Source(
        "ho2023", "abstract", "4-bit operations; about 200 times what processors did in 2023"
    ),
)

# Share of the peak that training runs of language models reached on thousands of chips.
UTILISATION: tuple[Quantity, ...] = (
    Quantity(
        name="utilisation.palm_540b",
        value=0.462,
        unit="1",
        source=Source(
            "chowdhery2022",
            "training efficiency: model FLOPs utilisation on 6,144 TPU v4",
            f"as summaries of the paper quote it, {_NOT_SEEN}; of the 16-bit peak",
        ),
    ),
    Quantity(
        name="utilisation.llama3_405b_low",
        value=0.38,
        unit="1",
        source=Source(
            "grattafiori2024",
            "scaling configurations: BF16 model FLOPs utilisation, up to 16,384 H100",
            f"38 to 43 %, as summaries of the paper quote it, {_NOT_SEEN}",
        ),
    ),
    Quantity(
        name="utilisation.llama3_405b_high",
        value=0.43,
        unit="1",
        source=Source(
            "grattafiori2024",
            "scaling configurations: BF16 model FLOPs utilisation, 8,192 H100",
            f"as summaries of the paper quote it, {_NOT_SEEN}",
        ),
    ),
)
