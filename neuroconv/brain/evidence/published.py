"""What others say of the brain: their estimates, firing rates, its power, and the rebuttal."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from neuroconv.brain.evidence.facts import facts, read_rows
from neuroconv.brain.quantity import Quantity, derived
from neuroconv.brain.section import Column, Notes, Row, Section, number
from neuroconv.references import REFERENCES, Source

EDGES = "edges/s"  # traversed edges measure communication, and no arithmetic
_ENERGIES = (
    *("brain.power", "brain.power.computing", "brain.power.signalling"),
    *("brain.energy_per_flop", "landauer_bound", "brain.energy_per_flop_to_bound"),
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A range that somebody gives.

    Attributes:
        name: who, and which of several.
        what: what is counted.
        kind: "estimate" of what a brain computes, a "limit" that it hardly exceeds, or a mean
            firing "rate".
        facts: quantities: low, high and preferred; or low and high; or a single one.
        key, values, unit, source: the same as numbers, with their key, unit and source.

    Raises:
        ValueError: neither facts nor values, or both.
    """

    name: str
    what: str
    kind: Literal["estimate", "limit", "rate"] = "estimate"
    facts: tuple[Quantity, ...] = ()
    key: str = ""
    values: tuple[float, ...] = ()
    unit: str = ""
    source: Source | None = None

    def __post_init__(self) -> None:
        if bool(self.facts) == bool(self.values and self.key and self.source):
            raise ValueError(
                f"{self.name}: facts={[fact.name for fact in self.facts]}, values={self.values}; "
                "expected facts, or values with key, unit and source"
            )

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Low, high and preferred; low and high; or a single one."""
        if self.source is None:
            return self.facts
        ends = ("low", "high", "best") if len(self.values) > 1 else ("value",)
        return tuple(
            Quantity(
                name=f"{self.kind}.{self.key}.{end}", value=value, unit=self.unit,
                source=self.source,
            )
            for end, value in zip(ends, self.values, strict=False)
        )  # fmt: skip

    @property
    def low(self) -> Quantity:
        return self.quantities[0]

    @property
    def high(self) -> Quantity:
        return self.quantities[min(1, len(self.quantities) - 1)]

    @property
    def best(self) -> Quantity | None:
        """The figure that the source prefers, if it names one."""
        return self.quantities[2] if len(self.quantities) > 2 else None

    @property
    def year(self) -> int:
        """Year of the first publication that the source cites."""
        return REFERENCES[self.low.source.cites[0]].year

    @property
    def essay_times(self) -> Quantity | None:
        """The essay's figure to this range's upper end; None if it counts something else."""
        if self.high.unit == EDGES:
            return None
        essay = facts()[_ESSAY_FIGURE[self.kind]]
        return derived(
            f"{self.high.name}.essay_times",
            essay.value / self.high.value,
            "1",
            f"`{essay.name}` / `{self.high.name}`",
        )


_ESSAY_FIGURE = {
    "estimate": "brain.flop_per_second",
    "limit": "brain.flop_per_second",
    "rate": "purkinje.rate_hz",
}


@dataclass(frozen=True, kw_only=True)
class Argument:
    """An argument of the essay's best-known rebuttal.

    Attributes:
        claim: the argument, in a sentence of ours.
        source: where it is made.
        answer: what here speaks to it.
        evidence: the figures that the answer rests on.
    """

    claim: str
    source: Source
    answer: str
    evidence: tuple[Quantity, ...]


@cache
def published() -> tuple[Published, ...]:
    """Returns the estimates, ordered by year, then the firing rates."""
    return read_rows("published.toml", "published", Published)


@cache
def arguments() -> tuple[Argument, ...]:
    """Returns the rebuttal's arguments, in its order."""
    return read_rows("published.toml", "argument", Argument)


def energies() -> tuple[Quantity, ...]:
    """Returns the brain's power, what it leaves for a FLOP of the essay's, and Landauer's bound."""
    return tuple(facts()[name] for name in _ENERGIES)


def bands() -> tuple[tuple[str, float, float, int], ...]:
    """Returns (name, low, high, year) of the estimates that count operations of some kind."""
    return tuple(
        (estimate.name, float(estimate.low.value), float(estimate.high.value), estimate.year)
        for estimate in published()
        if estimate.kind == "estimate" and estimate.high.unit != EDGES
    )


def others_sections() -> tuple[Section, ...]:
    """Returns the estimates of others, firing rates, the brain's energy, and the rebuttal."""
    estimates = [row for row in published() if row.kind != "rate"]
    rates = [row for row in published() if row.kind == "rate"]
    energy = Section(
        "What a brain's power leaves for a FLOP",
        [{"kind": "energy", "quantity": quantity} for quantity in energies()],
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
        [
            {
                "kind": "argument",
                "claim": argument.claim,
                "source": argument.source,
                "urls": argument.source.urls,
                "answer": argument.answer,
                "evidence": argument.evidence,
            }
            for argument in arguments()
        ],
        (
            Column("argument", "claim", ratio=3),
            Column("answer", "answer", ratio=3),
            Column("figures", _figures, ratio=3),
            Column("source", lambda row: str(row["source"]), ratio=2),
        ),
        spaced=True,
    )
    return (
        _ranges("Other estimates of what a brain computes", estimates),
        _ranges("Mean firing rates", rates),
        energy,
        rebuttal,
    )


def _ranges(title: str, published: list[Published]) -> Section:
    """Returns the ranges, and the essay's figure as a multiple of their upper ends."""
    notes = Notes()
    essay = facts()[_ESSAY_FIGURE[published[0].kind]]
    rows = [
        {
            "kind": row.kind,
            "name": row.name,
            "year": row.year,
            "source": row.low.source,
            "what": row.what,
            "low": row.low,
            "high": row.high,
            "best": row.best,
            "essay_times": row.essay_times,
        }
        for row in published
    ]
    columns = (
        Column("who", "name", ratio=3),
        Column("range", _range, ratio=3),
        number(f"{essay.shown} is x", "essay_times"),
        Column("what is counted", "what", ratio=4),
        Column("", lambda row: notes.mark(str(row["source"])), wrap=False),
    )
    return Section(title, rows, columns, "x: times the upper end of the range", notes)


def _range(row: Row) -> str:
    low, high, best = row["low"], row["high"], row["best"]
    ends = low.shown if high is low or high == low else f"{low.shown} to {high.shown}"
    return ends + (f", best {best.shown}" if best else "") + f" {high.unit}"


def _figures(row: Row) -> str:
    lines = []
    for quantity in row["evidence"]:
        unit = "" if quantity.unit == "1" else f" {quantity.unit}"
        name = quantity.name.replace(".", " ").replace("_", " ")
        lines.append(f"{name}: {quantity.shown}{unit}")
    return "\n".join(lines) or "-"
