"""The source of a number: a publication and where to look in it, or a derivation."""

import re
from dataclasses import dataclass

from neuroconv.references.reference import REFERENCES

_KEY = re.compile(r"\[(\w+)\]")
_FIELD = re.compile(r"`([\w.]+)`")
# Numbers that the project added or the user set are no citations, and say so.
UNPUBLISHED = ("chosen", "derived", "user")


@dataclass(frozen=True)
class Source:
    """The source of a number. In its texts, [key] cites a reference and `name` names a field.

    Attributes:
        reference: key of `REFERENCES`; or "derived" from other numbers, "chosen" by the project,
            or set by the "user".
        place: page, table, figure or section of the reference; for an unpublished number, the
            reasoning behind it, which must name a reference or a field.
        note: species, method, and what other publications say.

    Raises:
        ValueError: an unknown reference, no place, or an unpublished number that names no basis.
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
                f"or {' or '.join(map(repr, UNPUBLISHED))}"
            )
        if self.reference in UNPUBLISHED and not _KEY.search(self.place) and not self.names:
            raise ValueError(
                f"{self.reference} {self.place!r} names nothing that it rests on; "
                "expected a [key] of REFERENCES or the `name` of a field"
            )

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Returns the source that a data file writes as "reference: place; note"."""
        reference, colon, rest = text.partition(": ")
        if not colon:
            raise ValueError(f"source={text!r}; expected 'reference: place' or '...; note'")
        place, _, note = rest.partition("; ")
        return cls(reference, place, note)

    @property
    def cites(self) -> tuple[str, ...]:
        """Keys of all references that it cites."""
        first = () if self.reference in UNPUBLISHED else (self.reference,)
        return (*first, *_KEY.findall(f"{self.place} {self.note}"))

    @property
    def names(self) -> tuple[str, ...]:
        """Fields that it names."""
        return tuple(_FIELD.findall(f"{self.place} {self.note}"))

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(REFERENCES[key].url for key in self.cites))

    @property
    def brief(self) -> str:
        """The reference and the place; for an unpublished number, its basis."""
        if self.reference not in UNPUBLISHED:
            return f"{REFERENCES[self.reference].short}, {_readable(self.place)}"
        if self.reference == "user":
            return "set by the user"
        bases = [REFERENCES[key].short for key in _KEY.findall(self.place)]
        bases += [name.replace("_", " ") for name in _FIELD.findall(self.place)]
        return f"{self.reference}, from {' and '.join(dict.fromkeys(bases))}"

    def __str__(self) -> str:
        unpublished = self.reference in UNPUBLISHED
        text = f"{self.reference}: {_readable(self.place)}" if unpublished else self.brief
        return text + (f"; {_readable(self.note)}" if self.note else "")


def _readable(text: str) -> str:
    """Writes keys out as citations, and removes the marks of fields."""
    return _FIELD.sub(r"\1", _KEY.sub(lambda match: REFERENCES[match[1]].short, text))
