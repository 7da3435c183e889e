"""Published numbers of the brain: estimates, firing rates, its power; and the rebuttal."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from neuroconv.brain.evidence.facts import facts, read_rows
from neuroconv.brain.quantity import Quantity, derived
from neuroconv.brain.section import Column, Notes, Section, number
from neuroconv.references import REFERENCES, Source

_EDGES = "edges/s"  # traversed edges measure communication, and no arithmetic
_ENERGIES = (
    *("brain.power", "brain.power.computing", "brain.power.signalling"),
    *("brain.energy_per_flop", "landauer_bound", "brain.energy_per_flop_to_bound"),
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published range: an estimate of what a brain computes, a limit to it, or a firing rate."""

    name: str  # who gives it, and which of several
    what: str  # what is counted
    kind: Literal["estimate", "limit", "rate"] = "estimate"
    low: Quantity
    high: Quantity  # equals `low` for a single figure
    best: Quantity | None = None  # the figure that the source prefers, if any

    @property
    def source(self) -> Source:
        return self.low.source

    @property
    def year(self) -> int:
        """Year of the first publication that the source cites."""
        return REFERENCES[self.source.cites[0]].year

    @property
    def essay_times(self) -> Quantity | None:
        """The essay's figure to this range's upper end; None if it counts something else."""
        if self.high.unit == _EDGES:
            return None
        essay, high = _essay_figure(self.kind), self.high
        basis = f"`{essay.name}` / `{high.name}`"
        return derived(f"{high.name}.essay_times", essay.value / high.value, "1", basis)


def _essay_figure(kind: str) -> Quantity:
    return facts()["purkinje.rate_hz" if kind == "rate" else "brain.flop_per_second"]


@dataclass(frozen=True, kw_only=True)
class Argument:
    """An argument of the essay's best-known rebuttal in our words, and the answer to it here."""

    claim: str
    source: Source
    answer: str
    evidence: tuple[Quantity, ...]
    kind: Literal["argument"] = "argument"

    @property
    def urls(self) -> tuple[str, ...]:
        return self.source.urls


@cache
def published() -> tuple[Published, ...]:
    """Returns the estimates, ordered by year, then the firing rates."""
    return read_rows("published.toml", "published", Published)


@cache
def arguments() -> tuple[Argument, ...]:
    """Returns the rebuttal's arguments, in its order."""
    return read_rows("published.toml", "argument", Argument)


def others_sections() -> tuple[Section, ...]:
    """Returns the estimates of others, firing rates, the brain's energy, and the rebuttal."""
    energy = Section(
        "What a brain's power leaves for a FLOP",
        [{"kind": "energy", "quantity": facts()[name]} for name in _ENERGIES],
        (
            Column("quantity", lambda row: row["quantity"].name, wrap=False),
            Column("value", "quantity", "right"),
            Column("unit", lambda row: row["quantity"].unit),
            Column("source", lambda row: str(row["quantity"].source), ratio=5),
        ),
        "the bound is of one bit erased, and a FLOP erases many: no ordinary machine of that power "
        "could execute the estimate",
    )
    rebuttal = Section(
        "The rebuttal, and what speaks to it",
        arguments(),
        (
            Column("argument", "claim", ratio=3),
            Column("answer", "answer", ratio=3),
            Column("figures", lambda row: "\n".join(map(_figure, row.evidence)) or "-", ratio=3),
            Column("source", lambda row: str(row.source), ratio=2),
        ),
        keys=("kind", "claim", "source", "urls", "answer", "evidence"),
        spaced=True,
    )
    estimates = _ranges("Other estimates of what a brain computes", "estimate", "limit")
    return estimates, _ranges("Mean firing rates", "rate"), energy, rebuttal


def _ranges(title: str, *kinds: str) -> Section:
    """Returns the ranges, and the essay's figure as a multiple of their upper ends."""
    notes = Notes()
    return Section(
        title,
        [row for row in published() if row.kind in kinds],
        (
            Column("who", "name", ratio=3),
            Column("range", _range, ratio=3),
            number(f"{_essay_figure(kinds[0]).shown} is x", "essay_times"),
            Column("what is counted", "what", ratio=4),
            Column("", lambda row: notes.mark(str(row.source)), wrap=False),
        ),
        "x: times the upper end of the range",
        ("kind", "name", "year", "source", "what", "low", "high", "best", "essay_times"),
        notes,
    )


def _range(row: Published) -> str:
    ends = row.low.shown if row.high is row.low else f"{row.low.shown} to {row.high.shown}"
    return ends + (f", best {row.best.shown}" if row.best else "") + f" {row.high.unit}"


def _figure(quantity: Quantity) -> str:
    unit = "" if quantity.unit == "1" else f" {quantity.unit}"
    return f"{quantity.name.replace('.', ' ').replace('_', ' ')}: {quantity.shown}{unit}"
