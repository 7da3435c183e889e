"""The bibliography and the sources that cite it; a malformed entry or source is refused."""

import http.client
from pathlib import Path
from typing import Any

import pytest

from neuroconv.references import REFERENCES, Reference, Source, read_references

ARTICLE = """\
% a comment

@article{one2000,
  author = {One and {de Two} and others},
  title = {A {T}itle},
  journal = {J},
  volume = {1},
  pages = {2-3},
  year = {2000},
  doi = {10.1002/x},
}
"""


def _read(folder: Path, text: str) -> Any:
    file = folder / "some.bib"
    file.write_text(text, encoding="utf-8")
    return read_references(file)


def test_an_entry_becomes_a_reference(tmp_path: Path) -> None:
    reference = _read(tmp_path, ARTICLE)["one2000"]
    assert reference.authors == ("One", "de Two", "others")
    assert (reference.title, reference.venue) == ("A {T}itle", "J 1:2-3")
    assert (reference.url, reference.short) == ("https://doi.org/10.1002/x", "One et al. 2000")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@article{one2000,", "@article(one2000,", "line 3: .*expected an entry such as @article"),
        ("@article", "@book", "some.bib: @book{one2000; expected @article or @misc"),
        ("  volume = {1},\n", "", r"one2000: missing \['volume'\], unknown \[\]"),
        ("volume", "volumne", r"missing \['volume'\], unknown \['volumne'\]; a @article has"),
        ("{2000}", "{MM}", "one2000: year='MM'; expected a number"),
        ("{2000}", "2000", "line 9: .*expected a field such as year"),
        ("{J}", "{}", "line 6: .*expected a field"),
        ("pages", "volume", "line 8: .*second 'volume' of 'one2000'"),
        (",\n}\n", "\n", "entry 'one2000' is not closed"),
        ("  doi = {10.1002/x},\n", "", "give one of the two"),
        ("doi = {10.1002/x}", "url = {x.org}", "web='x.org'; expected http"),
        *(
            ("10.1002/x", doi, "some.bib: one2000: doi=")
            for doi in ("10.1/x", "10.1002/", "doi:10.1002/x", "10.1002/a b", "11.1002/x")
        ),
    ],
)
def test_a_malformed_entry_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in ARTICLE
    with pytest.raises(ValueError, match=message):
        _read(tmp_path, ARTICLE.replace(old, new))


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="second entry 'one2000'"):
        _read(tmp_path, ARTICLE + ARTICLE)


def test_bibliography() -> None:
    references = REFERENCES.values()
    assert len({reference.url for reference in references}) == len(REFERENCES)
    assert len({reference.title for reference in references}) == len(REFERENCES)
    for key, reference in REFERENCES.items():
        assert key == reference.key
        assert reference.authors
        assert 1900 < reference.year < 2100
        assert str(reference.year) in key
    with pytest.raises(TypeError):
        REFERENCES["one"] = Reference("one", ("One",), 2000, "T", "V", "10.1002/x")  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ito1984", "p. 86"), "reference 'ito1984' is unknown; expected a key of REFERENCES"),
        (("napper1988", ""), "reference='napper1988': no place"),
        (("napper1988", "abstract", "see [ito1984]"), "reference 'ito1984' is unknown"),
        (("chosen", "it looked right"), "chosen 'it looked right' names nothing that it rests on"),
        (("derived", "from [ito1984]"), "reference 'ito1984' is unknown"),
    ],
)
def test_a_source_that_does_not_resolve_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source(*arguments)


def test_how_a_source_reads() -> None:
    source = Source.parse("rapp1994: p. 107; see [roth2001] and `synapses`; twice")
    assert source == Source("rapp1994", "p. 107", "see [roth2001] and `synapses`; twice")
    assert str(source) == "Rapp et al. 1994, p. 107; see Roth and Häusser 2001 and synapses; twice"
    assert source.brief == "Rapp et al. 1994, p. 107"
    assert (source.cites, source.names) == (("rapp1994", "roth2001"), ("synapses",))
    assert source.urls == tuple(REFERENCES[key].url for key in ("rapp1994", "roth2001"))
    derived = Source.parse("derived: from [lennie2003] and `synapses`")
    assert str(derived) == "derived: from Lennie 2003 and synapses"
    assert derived.brief == "derived, from Lennie 2003 and synapses"
    with pytest.raises(ValueError, match="source='rapp1994'; expected 'reference: place'"):
        Source.parse("rapp1994")


@pytest.mark.slow
def test_every_doi_resolves() -> None:
    """doi.org answers a redirection for a DOI that exists, 404 for one that does not."""
    connection = http.client.HTTPSConnection("doi.org", timeout=10)
    try:
        connection.request("HEAD", "/10.1000/182")  # the DOI handbook
        connection.getresponse().read()
    except OSError as error:
        pytest.skip(f"doi.org cannot be reached: {error}")
    unresolved = []
    for reference in REFERENCES.values():
        if reference.doi is not None:
            connection.request("HEAD", f"/{reference.doi}")
            answer = connection.getresponse()
            answer.read()
            if answer.status not in (301, 302, 303, 307, 308):
                unresolved.append((reference.key, answer.status))
    connection.close()
    assert not unresolved
