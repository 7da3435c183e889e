"""Two sides of the essay's arithmetic that should fit, and whether they do."""

from dataclasses import dataclass
from typing import Any, Literal

from neuroconv.brain.quantity import Quantity, derived

Expects = Literal["equal", "part", "at least", "within"]
ABOUT = 0.1  # what "about" is taken to allow: a tenth


@dataclass(frozen=True, kw_only=True)
class Check:
    """Two sides that should fit.

    Attributes:
        name: of the check.
        claim: what the essay says.
        stated: its number, or the two ends of its range.
        implied: what its other numbers come to.
        expects: how `implied` should lie to `stated`: "equal", "part" (clearly less: something
            else makes up the rest), "at least" (stated as a lower bound), "within" the range.
        tolerance: relative; half of the last printed digit, or a tenth for "about".
        finding: what follows.
    """

    name: str
    claim: str
    stated: tuple[Quantity, ...]
    implied: Quantity
    expects: Expects = "equal"
    tolerance: float = ABOUT
    finding: str

    @property
    def ratio(self) -> Quantity:
        """Implied to stated; of a range, to its nearer end, and 1 inside of it."""
        low, high = self.stated[0].value, self.stated[-1].value
        nearest = min(max(self.implied.value, low), high)
        return derived(
            f"{self.name.replace(' ', '_')}.ratio",
            self.implied.value / nearest,
            "1",
            f"`{self.implied.name}` to " + " .. ".join(f"`{each.name}`" for each in self.stated),
        )

    @property
    def fits(self) -> bool:
        ratio = self.ratio.value
        if self.expects == "part":
            return ratio < 1 - self.tolerance
        if self.expects == "at least":
            return ratio >= 1 - self.tolerance
        return abs(ratio - 1) <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "claim": self.claim,
            "stated": [each.to_dict() for each in self.stated],
            "implied": self.implied.to_dict(),
            "ratio": self.ratio.to_dict(),
            "expects": self.expects,
            "fits": self.fits,
            "finding": self.finding,
        }
