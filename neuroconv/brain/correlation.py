"""Inputs that go together."""

from dataclasses import dataclass
from typing import Any

from neuroconv.brain.quantity import Quantity
from neuroconv.references import Source


@dataclass(frozen=True)
class Correlation:
    """Two inputs that go together: Spearman's rank correlation of their draws.

    Of a count that has few values the drawn one is a little weaker, for equal draws tie. The two
    are kept in alphabetical order: either way they are the same inputs.

    Raises:
        ValueError: not two different inputs, a rank correlation not between -1 and 1, no source.
    """

    between: tuple[str, str]
    rank: float
    source: Source

    def __post_init__(self) -> None:
        if len(self.between) != 2 or self.between[0] == self.between[1]:
            raise ValueError(f"correlation between {self.between!r}; expected two different inputs")
        object.__setattr__(self, "between", tuple(sorted(self.between)))
        if not -1 < self.rank < 1:
            raise ValueError(
                f"correlation of {' and '.join(self.between)}: rank={self.rank!r}; "
                "expected a number between -1 and 1"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as of a quantity."""
        name = f"rank correlation of {self.between[0]} and {self.between[1]}"
        return Quantity(name=name, value=self.rank, unit="1", source=self.source).to_dict()
