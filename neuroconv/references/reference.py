"""A publication, as the bibliography lists it."""

import re
from dataclasses import dataclass

_DOI = re.compile(r"10\.\d{4,9}/\S+")


@dataclass(frozen=True)
class Reference:
    """A publication.

    Attributes:
        key: name under which sources cite it.
        authors: family names, first author first.
        year: of publication.
        title: of the publication.
        venue: journal, volume and pages.
        doi: digital object identifier; None where `web` says where to read.
        web: address, of a publication that has no DOI or whose DOI we could not look up.

    Raises:
        ValueError: not one of DOI and address, or one that is malformed.
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
        """As a text cites it: "Rapp et al. 1994"."""
        others = {1: "", 2: f" and {self.authors[-1]}"}.get(len(self.authors), " et al.")
        return f"{self.authors[0]}{others} {self.year}"
