"""Published estimates of what a brain computes, and mean firing rates in the literature.

Each author counts something else: the units say what, and nothing is converted.
"""

from dataclasses import dataclass
from typing import Any, Literal

from neuroconv.brain.evidence.essay import (
    FLOP_PER_MAC,
    SPIKE_RATES,
    SYNAPSES,
    TOTAL,
    USE,
    of_preset,
)
from neuroconv.brain.quantity import Quantity, derived
from neuroconv.references import REFERENCES, Source

Kind = Literal["estimate", "limit", "rate"]
FLOPS = "FLOP/s"
EDGES = "edges/s"  # traversed edges measure communication, and no arithmetic
_UNSEEN = "not looked up here"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A range that somebody gives.

    Attributes:
        name: who, and which of several.
        kind: "estimate" of what a brain computes, a "limit" that it hardly exceeds, or mean firing
            "rate".
        low, high: ends of the range; the same for a single figure.
        best: the figure that the source prefers, if it names one.
        what: what is counted.
    """

    name: str
    kind: Kind = "estimate"
    low: Quantity
    high: Quantity
    best: Quantity | None = None
    what: str

    @property
    def year(self) -> int:
        """Of the first publication that the source cites."""
        return REFERENCES[self.low.source.cites[0]].year

    @property
    def essay_times(self) -> Quantity | None:
        """The essay's figure to this range's upper end; None if it counts something else."""
        if self.high.unit == EDGES:
            return None
        ours = of_preset("purkinje", "rate_hz") if self.kind == "rate" else TOTAL
        return derived(
            f"{self.high.name}.essay_times",
            ours.value / self.high.value,
            "1",
            f"`{ours.name}` / `{self.high.name}`",
        )

    def to_dict(self) -> dict[str, Any]:
        times = self.essay_times
        return {
            "kind": self.kind,
            "name": self.name,
            "year": self.year,
            "source": str(self.low.source),
            "what": self.what,
            "low": self.low.to_dict(),
            "high": self.high.to_dict(),
            "best": None if self.best is None else self.best.to_dict(),
            "essay_times": None if times is None else times.to_dict(),
        }


def _given(
    name: str,
    key: str,
    values: tuple[float, ...],
    unit: str,
    source: Source,
    what: str,
    best: float | None = None,
    kind: Kind = "estimate",
) -> Published:
    ends = ("low", "high") if len(values) == 2 else ("value",)
    low, *rest = (
        Quantity(name=f"{kind}.{key}.{end}", value=value, unit=unit, source=source)
        for end, value in zip(ends, values, strict=True)
    )
    high = rest[0] if rest else low
    middle = None
    if best is not None:
        middle = Quantity(name=f"{kind}.{key}.best", value=best, unit=unit, source=source)
    return Published(name=name, kind=kind, low=low, high=high, best=middle, what=what)


def _synapses_by_rate() -> Published:
    """Neurons x synapses x rate, from the essay's own numbers."""
    rate = of_preset("purkinje", "rate_hz")
    events = derived(
        "estimate.synapses_by_rate.low",
        SYNAPSES.value * rate.value,
        FLOPS,
        f"`{SYNAPSES.name}` x `{rate.name}`, one FLOP each: [dettmers2015], '{USE}'",
    )
    return Published(
        name="neurons x synapses x rate",
        low=events,
        high=derived(
            "estimate.synapses_by_rate.high",
            FLOP_PER_MAC.value * events.value,
            FLOPS,
            f"`{events.name}` x `{FLOP_PER_MAC.name}`: [dettmers2015], '{USE}'",
        ),
        what="the simpler model that the essay tells first, by its numbers: every synapse, every "
        "spike",
    )


def _levels() -> tuple[Published, ...]:
    place = "table 9, processing demands"
    told = f"as section 40.3.2 of [drexler2019] relates it; the table itself {_UNSEEN}"
    second_hand = f"as AI Impacts relates it; the table itself {_UNSEEN}"
    return tuple(
        _given(
            f"Sandberg and Bostrom 2008, {level}",
            f"sandberg2008.{level.split()[0]}",
            (10**power,),
            FLOPS,
            Source("sandberg2008", place, note),
            "emulation of a human brain at this level of detail",
        )
        for level, power, note in (
            ("analog network of populations", 15, told),
            ("spiking network", 18, told),
            ("electrophysiology", 22, told),
            ("metabolome", 25, second_hand),
        )
    )


OTHERS: tuple[Published, ...] = (
    _given(
        "Merkle 1989",
        "merkle1989",
        (10**13, 10**16),
        "operations/s",
        Source(
            "merkle1989",
            "'Other estimates', and its conclusion",
            "1e16 is 1e15 synapses at 10 impulses a second; the conclusion's range " + _UNSEEN,
        ),
        "synaptic operations, from counts, the retina and the energy of nerve impulses",
    ),
    _given(
        "Moravec 1998",
        "moravec1998",
        (10**14,),
        "instructions/s",
        Source("moravec1998", "'Brains, eyes and machines': 100 million MIPS"),
        "robot vision that matches a retina, 100,000 times",
    ),
    _given(
        "Kurzweil 2005, functions",
        "kurzweil2005.function",
        (10**14, 10**16),
        "calculations/s",
        Source("kurzweil2005", "chapter 3, 'The computational capacity of the human brain'"),
        "brain regions whose function has been rebuilt, scaled up",
        best=10**16,
    ),
    _given(
        "Kurzweil 2005, neurons",
        "kurzweil2005.neurons",
        (10**19,),
        "calculations/s",
        Source(
            "kurzweil2005",
            "chapter 3, 'The computational capacity of the human brain'",
            f"as a summary relates it; the page itself {_UNSEEN}",
        ),
        "simulation of each neuron and its connections",
    ),
    *_levels(),
    _given(
        "AI Impacts 2015, traversed edges",
        "aiimpacts2015teps",
        (18 * 10**12, 64 * 10**13),
        EDGES,
        Source(
            "aiimpacts2015teps",
            "its estimate, 0.18 to 6.4 x 10^14",
            f"the upper end as the press related it; the lower {_UNSEEN}",
        ),
        "spikes arriving at synapses, as a graph search is measured",
    ),
    _synapses_by_rate(),
    _given(
        "Drexler 2019",
        "drexler2019",
        (10**15,),
        FLOPS,
        Source("drexler2019", "section 40, its title's 1 PFLOP/s", f"the section {_UNSEEN}"),
        "tasks of narrow AI compared with the brain regions that do the like",
    ),
    _given(
        "Carlsmith 2020",
        "carlsmith2020",
        (10**13, 10**17),
        FLOPS,
        Source("carlsmith2020", "executive summary"),
        "enough for the brain's tasks by its mechanisms; the best figure: more likely than not",
        best=10**15,
    ),
    _given(
        "Carlsmith 2020, hardly more",
        "carlsmith2020",
        (10**21,),
        FLOPS,
        Source("carlsmith2020", "executive summary"),
        "that more is required has a probability under 10 %",
        kind="limit",
    ),
)


_CELLS = {
    "pyramidal": "pyramidal",
    "purkinje": "Purkinje",
    "deep_nuclear": "deep nuclear",
    "golgi": "Golgi",
}


def _preset_rate(cell: str) -> Published:
    quantity = of_preset(cell, "rate_hz", "literature")
    what = quantity.source.note or quantity.source.place
    return Published(
        name=f"{REFERENCES[quantity.source.cites[0]].short}, {_CELLS[cell]} cell",
        kind="rate",
        low=quantity,
        high=quantity,
        what=what,
    )


RATES: tuple[Published, ...] = (
    Published(
        name="the essay, most neurons",
        kind="rate",
        low=SPIKE_RATES[0],
        high=SPIKE_RATES[1],
        best=of_preset("purkinje", "rate_hz"),
        what="by type and activity; the best figure: an average neuron's",
    ),
    _preset_rate("pyramidal"),
    _given(
        "Attwell and Laughlin 2001, rodent",
        "attwell2001",
        (4,),
        "Hz",
        Source("attwell2001", "p. 1139"),
        "mean rate for which the energy budget is drawn up",
        kind="rate",
    ),
    _given(
        "AI Impacts 2015, human brain",
        "aiimpacts2015rates",
        (0.1, 2),
        "Hz",
        Source(
            "aiimpacts2015rates",
            "its best guess",
            "recordings find the active neurons: many fire rarely ([shoham2006], abstract), and "
            "rates are spread log-normally ([buzsaki2014], abstract), a mean above the median",
        ),
        "average neuron, silent ones included",
        kind="rate",
    ),
    *(_preset_rate(cell) for cell in ("purkinje", "deep_nuclear", "golgi")),
)
