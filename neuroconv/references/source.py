"""How a number names its source."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from neuroconv.references.brains import BRAINS
from neuroconv.references.cells import CELLS
from neuroconv.references.energy import ENERGY
from neuroconv.references.machines import MACHINES
from neuroconv.references.reference import Reference

_KEY = re.compile(r"\[(\w+)\]")
_FIELD = re.compile(r"`([\w.]+)`")
# What the project had to add, or its user set, is no citation, and says so.
OWN = ("chosen", "derived", "user")

REFERENCES: Mapping[str, Reference] = MappingProxyType(
    {each.key: each for each in (*CELLS, *BRAINS, *MACHINES, *ENERGY)}
)


@dataclass(frozen=True)
class Source:
    """Where a number comes from. In a text, [key] cites a reference and `name` names a field.

    Attributes:
        reference: key of `REFERENCES`; or "derived", a result of other numbers, "chosen", the
            project's own decision, or "user", a number that the user set.
        place: page, table, figure or section of the reference; for an own number, from what and
            how, which must name a reference or a field.
        note: species, method, and what other publications say.

    Raises:
        ValueError: an unknown reference, no place, or an own number that names nothing.
    """

    reference: str
    place: str
    note: str = ""

    def __post_init__(self) -> None:
        if not self.place.strip():
            raise ValueError(f"reference={self.reference!r}: no place; expected a page or section")
        unknown = [key for key in self.cites if key not in REFERENCES]
        if unknown:
            raise ValueError(
                f"reference {unknown[0]!r} is unknown; expected a key of REFERENCES, "
                f"or {' or '.join(repr(name) for name in OWN)}"
            )
        if self.reference in OWN and not _KEY.search(self.place) and not self.names:
            raise ValueError(
                f"{self.reference} {self.place!r} names nothing that it rests on; "
                "expected a [key] of REFERENCES or the `name` of a field"
            )

    @property
    def cites(self) -> tuple[str, ...]:
        """Keys of all references that it cites."""
        first = () if self.reference in OWN else (self.reference,)
        return first + tuple(_KEY.findall(self.place) + _KEY.findall(self.note))

    @property
    def names(self) -> tuple[str, ...]:
        """Fields that it names."""
        return tuple(_FIELD.findall(self.place) + _FIELD.findall(self.note))

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(REFERENCES[key].url for key in self.cites))

    @property
    def brief(self) -> str:
        """The reference and the place; of an own number, what it rests on."""
        if self.reference not in OWN:
            return f"{REFERENCES[self.reference].short}, {_readable(self.place)}"
        if self.reference == "user":
            return "set by the user"
        bases = [REFERENCES[key].short for key in _KEY.findall(self.place)]
        bases += [name.replace("_", " ") for name in _FIELD.findall(self.place)]
        return f"{self.reference}, from {' and '.join(dict.fromkeys(bases))}"

    def __str__(self) -> str:
        own = self.reference in OWN
        text = f"{self.reference}: {_readable(self.place)}" if own else self.brief
        return text + (f"; {_readable(self.note)}" if self.note else "")


def _readable(text: str) -> str:
    """Keys written out, and fields without their marks."""
    return _FIELD.sub(r"\1", _KEY.sub(lambda found: REFERENCES[found[1]].short, text))
