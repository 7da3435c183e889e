"""A publication, and the bibliography that is read from `references.bib`.

The reader takes the subset of BibTeX with each field on a line of its own, in braces; anything
else is an error instead of a silently lost reference.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_START = re.compile(r"@(\w+)\{([\w-]+),")
_FIELD = re.compile(r"\s*(\w+)\s*=\s*\{(.*)\},?")
_DOI = re.compile(r"10\.\d{4,9}/\S+")
_FIELDS = {
    "article": ({"journal", "volume"}, {"number", "pages"}),
    "misc": ({"howpublished"}, set[str]()),
}  # required and optional, beside author, title, year and one of doi and url


@dataclass(frozen=True)
class Reference:
    """A publication.

    Attributes:
        authors: family names, first author first; the last may be "others".
        venue: journal, volume and pages.
        doi, web: one of the two; an address where there is no DOI, or it could not be looked up.

    Raises:
        ValueError: both or none of DOI and address, or a malformed one.
    """

    key: str
    authors: tuple[str, ...]
    year: int
    title: str
    venue: str
    doi: str | None = None
    web: str | None = None

    def __post_init__(self) -> None:
        if (self.doi is None) == (self.web is None):
            raise ValueError(f"{self.key}: doi={self.doi!r}, web={self.web!r}; give one of the two")
        if self.doi is not None and not _DOI.fullmatch(self.doi):
            raise ValueError(f"{self.key}: doi={self.doi!r}; expected 10.NNNN/suffix, no address")
        if self.web is not None and not re.fullmatch(r"https?://\S+", self.web):
            raise ValueError(f"{self.key}: web={self.web!r}; expected http://... or https://...")

    @property
    def url(self) -> str:
        return f"https://doi.org/{self.doi}" if self.doi is not None else str(self.web)

    @property
    def short(self) -> str:
        """The citation in a text: "Rapp et al. 1994"."""
        others = {1: "", 2: f" and {self.authors[-1]}"}.get(len(self.authors), " et al.")
        return f"{self.authors[0]}{others} {self.year}"


def read_references(file: Path) -> Mapping[str, Reference]:
    """Returns the publications of a BibTeX file by key.

    Raises:
        ValueError: a line that is none of "@kind{key,", "field = {value},", "}", a comment (%) or
            blank; an entry that is repeated, not closed, or malformed in a field.
    """
    references: dict[str, Reference] = {}
    kind = key = ""
    fields: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        position = f"{file.name}, line {number}: {line!r}"
        if not key:
            if not line.strip() or line.startswith("%"):
                continue
            start = _START.fullmatch(line.strip())
            if start is None:
                raise ValueError(f"{position}; expected an entry such as @article{{smith2001,")
            kind, key, fields = start[1], start[2], {}
        elif line.strip() == "}":
            if key in references:
                raise ValueError(f"{position}: second entry {key!r}; expected unique keys")
            try:
                references[key] = _reference(kind, key, fields)
            except ValueError as error:
                raise ValueError(f"{file.name}: {error}") from None
            key = ""
        else:
            field = _FIELD.fullmatch(line)
            if field is None or not field[2].strip():
                raise ValueError(f"{position}; expected a field such as year = {{2001}},")
            if field[1] in fields:
                raise ValueError(f"{position}: second {field[1]!r} of {key!r}; expected one")
            fields[field[1]] = field[2]
    if key:
        raise ValueError(f"{file.name}: entry {key!r} is not closed; expected a line with }}")
    return MappingProxyType(references)


def _reference(kind: str, key: str, fields: Mapping[str, str]) -> Reference:
    if kind not in _FIELDS:
        raise ValueError(f"@{kind}{{{key}; expected @{' or @'.join(_FIELDS)}")
    required, optional = _FIELDS[kind]
    required = required | {"author", "title", "year"}
    missing = sorted(required - set(fields))
    unknown = sorted(set(fields) - required - optional - {"doi", "url"})
    if missing or unknown:
        raise ValueError(
            f"{key}: missing {missing}, unknown {unknown}; a @{kind} has "
            f"{', '.join(sorted(required))}, perhaps {', '.join(sorted(optional)) or 'no more'}, "
            "and doi or url"
        )
    title, year = fields["title"], fields["year"]
    if not year.isdigit():
        raise ValueError(f"{key}: year={year!r}; expected a number")
    venue = fields.get("howpublished", "")
    if kind == "article":
        number, pages = (fields.get(name) for name in ("number", "pages"))
        venue = f"{fields['journal']} {fields['volume']}"
        venue += (f"({number})" if number else "") + (f":{pages}" if pages else "")
    # "Smith and {de Kock} and others" are three names.
    names = (name.strip() for name in fields["author"].split(" and "))
    authors = tuple(name.removeprefix("{").removesuffix("}") for name in names)
    return Reference(key, authors, int(year), title, venue, fields.get("doi"), fields.get("url"))


REFERENCES = read_references(Path(__file__).with_name("references.bib"))
