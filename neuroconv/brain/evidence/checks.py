"""Consistency checks of the essay's numbers against each other."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from rich.text import Text

from neuroconv.brain.evidence.facts import read_rows
from neuroconv.brain.quantity import Quantity, derived
from neuroconv.brain.section import Column, Section


@dataclass(frozen=True, kw_only=True)
class Check:
    """Two sides that should fit.

    `implied` should equal `stated`; be a "part" of it (clearly less: something else makes up the
    rest), "at least" that (a lower bound), or "within" its two ends.
    """

    name: str
    claim: str  # what the essay says
    stated: tuple[Quantity, ...]  # its number, or the two ends of its range
    implied: Quantity  # what its other numbers imply
    expects: Literal["equal", "part", "at least", "within"] = "equal"
    tolerance: float = 0.1  # relative; half of the last printed digit, or a tenth for "about"
    finding: str  # what follows

    @property
    def ratio(self) -> Quantity:
        """Implied to stated; for a range, to its nearer end, and 1 inside of it."""
        low, high = self.stated[0].value, self.stated[-1].value
        nearest = min(max(self.implied.value, low), high)
        basis = f"`{self.implied.name}` to " + " .. ".join(f"`{end.name}`" for end in self.stated)
        name = f"{self.name.replace(' ', '_')}.ratio"
        return derived(name, self.implied.value / nearest, "1", basis)

    @property
    def fits(self) -> bool:
        ratio = self.ratio.value
        if self.expects == "part":
            return ratio < 1 - self.tolerance
        if self.expects == "at least":
            return ratio >= 1 - self.tolerance
        return abs(ratio - 1) <= self.tolerance


@cache
def checks() -> tuple[Check, ...]:
    """Returns all checks, in the order of the report."""
    return read_rows("essay.toml", "check", Check)


def checks_section() -> Section:
    """Returns a row for each check: the claim, what the essay's other numbers imply, a finding."""
    fitting = sum(check.fits for check in checks())
    return Section(
        f"The essay's numbers against each other: {fitting} of {len(checks())} checks fit",
        checks(),
        (
            Column("the essay says", "claim", ratio=3),
            Column("stated", lambda row: _with_unit(*row.stated), "right", ratio=2),
            Column("its other numbers make", lambda row: _with_unit(row.implied), "right", ratio=2),
            Column("ratio", "ratio", "right"),
            Column("fits", lambda row: Text("yes") if row.fits else Text("NO", style="bold")),
            Column("finding", "finding", ratio=4),
        ),
        '"about" is taken to allow a tenth; a whole should leave room for its other parts',
        ("name", "claim", "stated", "implied", "ratio", "expects", "fits", "finding"),
        spaced=True,
    )


def _with_unit(*quantities: Quantity) -> str:
    unit = quantities[0].unit
    return " to ".join(end.shown for end in quantities) + (f" {unit}" if unit != "1" else "")
