"""A publication, and the bibliography that is read from `references.bib`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from neuroconv.references.bibtex import Entry, read_bibtex, split_names

_DOI = re.compile(r"10\.\d{4,9}/\S+")
_FIELDS = {
    "article": ({"journal", "volume"}, {"number", "pages"}),
    "misc": ({"howpublished"}, set[str]()),
}  # required and optional, beside author, title, year and one of doi and url


@dataclass(frozen=True)
class Reference:
    """A publication.

    Attributes:
        key: name under which sources cite it.
        authors: family names, first author first; the last may be "others".
        year: year of publication.
        title: title of the publication.
        venue: journal, volume and pages.
        doi: digital object identifier; None where `web` gives the address.
        web: address of a publication without a DOI, or whose DOI we could not look up.

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
        ValueError: an entry that lacks a field, or has one that is unknown or malformed.
    """
    return MappingProxyType(
        {entry.key: _reference(entry, file.name) for entry in read_bibtex(file)}
    )


def _reference(entry: Entry, file: str) -> Reference:
    kind, key, fields = entry
    if kind not in _FIELDS:
        raise ValueError(f"{file}: @{kind}{{{key}; expected @{' or @'.join(_FIELDS)}")
    required, optional = _FIELDS[kind]
    required = required | {"author", "title", "year"}
    missing = sorted(required - set(fields))
    unknown = sorted(set(fields) - required - optional - {"doi", "url"})
    if missing or unknown:
        raise ValueError(
            f"{file}: {key}: missing {missing}, unknown {unknown}; a @{kind} has "
            f"{', '.join(sorted(required))}, perhaps {', '.join(sorted(optional)) or 'no more'}, "
            "and doi or url"
        )
    if not fields["year"].isdigit():
        raise ValueError(f"{file}: {key}: year={fields['year']!r}; expected a number")
    venue = fields.get("howpublished", "")
    if kind == "article":
        number, pages = (fields.get(name) for name in ("number", "pages"))
        venue = f"{fields['journal']} {fields['volume']}"
        venue += (f"({number})" if number else "") + (f":{pages}" if pages else "")
    authors = split_names(fields["author"])
    try:
        return Reference(
            key, authors, int(fields["year"]), fields["title"], venue,
            doi=fields.get("doi"), web=fields.get("url"),
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


REFERENCES = read_references(Path(__file__).with_name("references.bib"))
