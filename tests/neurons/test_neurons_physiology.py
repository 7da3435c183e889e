"""Every number of a preset has a source that resolves, and a preset without one is refused."""

import dataclasses
import http.client
import json
import math
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from neuroconv.neurons import literature_cells
from neuroconv.neurons import physiology as presets
from neuroconv.neurons.cell_numbers import UNITS, VARIANTS, Physiology
from neuroconv.neurons.cells_table import cells_rows, cells_table, references_table
from neuroconv.neurons.physiology import (
    CELLS,
    GOLGI_LITERATURE,
    GRANULE_DETTMERS2015,
    GRANULE_LITERATURE,
    PRESETS,
    PURKINJE_DETTMERS2015,
    PURKINJE_LITERATURE,
    PYRAMIDAL_DETTMERS2015,
    PYRAMIDAL_LITERATURE,
    differences,
    preset,
)
from neuroconv.references import OWN, REFERENCES, Reference, Source
from neuroconv.references.cells import CELLS as CELL_REFERENCES

EVERY_NAMED = pytest.mark.parametrize("key", PRESETS, ids="-".join)


@EVERY_NAMED
def test_every_value_has_a_source_that_resolves(key: tuple[str, str]) -> None:
    cell = PRESETS[key]
    values = {
        field.name: getattr(cell, field.name)
        for field in dataclasses.fields(cell)
        if field.name not in ("cell", "variant", "sources")
    }
    assert (cell.cell, cell.variant) == key
    assert {name for name, value in values.items() if value is not None} == set(cell.sources)
    for source in cell.sources.values():
        assert isinstance(source, Source)
        assert source.place.strip()
        assert source.reference in REFERENCES or source.reference in OWN
        assert all(key in REFERENCES for key in source.cites)
        if source.reference in OWN:  # it names what it rests on
            assert source.cites or source.names
        assert all(values[name] is not None for name in source.names)
        assert "[" not in str(source)  # every key is written out
        assert "`" not in str(source)


@EVERY_NAMED
def test_numbers_fit_together(key: tuple[str, str]) -> None:
    cell = PRESETS[key]
    sites, dendrites = cell.sheet_shape
    assert dendrites == cell.dendrites
    assert (sites - 1) * dendrites < cell.synapses <= sites * dendrites  # no row to spare
    branches, across, steps = cell.filter_shape
    assert branches <= sites
    assert across == dendrites
    assert steps == cell.soma_time_steps == 5
    assert cell.mean_wait >= 0


@EVERY_NAMED
def test_a_preset_carries_its_name_and_is_frozen(key: tuple[str, str]) -> None:
    cell = PRESETS[key]
    assert getattr(presets, "_".join(key).upper()) is cell
    with pytest.raises(AttributeError):
        cell.synapses = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        cell.sources["synapses"] = Source("chosen", "`dendrites`")  # type: ignore[index]


def test_cells_and_variants() -> None:
    assert CELLS == ("granule", "purkinje", "deep_nuclear", "golgi", "pyramidal")
    expected = {(cell, variant) for cell in CELLS for variant in VARIANTS}
    assert set(PRESETS) == expected - {("golgi", "dettmers2015")}  # the essay is silent on it
    with pytest.raises(TypeError):
        PRESETS["golgi", "dettmers2015"] = GOLGI_LITERATURE  # type: ignore[index]


def test_the_essays_numbers() -> None:
    granule, purkinje, pyramidal = (
        GRANULE_DETTMERS2015,
        PURKINJE_DETTMERS2015,
        PYRAMIDAL_DETTMERS2015,
    )
    assert (granule.cells_in_brain, purkinje.cells_in_brain) == (50 * 10**9, 10**8)
    assert (granule.synapses, granule.sheet_shape, granule.filter_shape) == (15, (4, 4), (3, 4, 5))
    assert (purkinje.synapses, purkinje.sheet_shape) == (100_000, (100, 1000))
    assert purkinje.filter_shape == (10, 1000, 5)
    assert (granule.outputs, purkinje.outputs) == (100, 1000)
    assert preset("deep_nuclear", "dettmers2015").cells_in_brain == 12
    assert pyramidal.synapses == (5_000 + 15_000) / 2
    assert pyramidal.cells_in_brain == 86 * 10**9 / 4


def _length_constant_um(membrane_ohm_cm2: float, axial_ohm_cm: float, thick_um: float) -> float:
    return 1e4 * math.sqrt(membrane_ohm_cm2 / axial_ohm_cm * thick_um * 1e-4 / 4)


@pytest.mark.parametrize(
    ("value", "wanted", "within"),
    [
        (GRANULE_LITERATURE.synapses, 4 * 10.2, 0.5),
        (PURKINJE_LITERATURE.length_constant_um, _length_constant_um(122e3, 115, 1), 5),
        (PURKINJE_LITERATURE.site_um, 1 / 2, 0),
        (GOLGI_LITERATURE.synapses, 40 + 400 + 400 + 1200, 0),
        (PYRAMIDAL_LITERATURE.cells_in_brain, 86.1e9 * 0.19 * (0.70 + 0.85) / 2, 0.05e9),
        (PYRAMIDAL_LITERATURE.synapses, (15_000 + 30_000) / 2, 0),
        (PYRAMIDAL_LITERATURE.dendrites, 5.55 + 1, 0.5),
        (
            PYRAMIDAL_LITERATURE.length_constant_um,
            _length_constant_um(38.907e3 / 1.9, 203.23, 0.76),
            0.5,
        ),
    ],
)
def test_derived_numbers_follow_from_what_they_name(
    value: float, wanted: float, within: float
) -> None:
    assert value == pytest.approx(wanted, rel=0, abs=within + 1e-9)


def test_what_the_notes_compute() -> None:
    cells = GRANULE_LITERATURE.cells_in_brain, PURKINJE_LITERATURE.cells_in_brain
    assert None not in cells
    inputs = PURKINJE_LITERATURE.synapses * cells[1] / cells[0]  # type: ignore[operator]
    assert f"follow {inputs:.0f}" in GRANULE_LITERATURE.sources["outputs"].note
    assert f"gives {122 * 0.77:.0f} ms" in PURKINJE_LITERATURE.sources["time_constant_ms"].note
    nucleus = PURKINJE_DETTMERS2015.cells_in_brain * PURKINJE_DETTMERS2015.outputs / 12  # type: ignore[operator]
    assert f"{nucleus / 1e9:.1f}e9 each" in preset("deep_nuclear").sources["synapses"].note
    by_cat, by_rat = cells[1] / 3, cells[0] / 430  # type: ignore[operator]
    told = f"{by_cat / 1e6:.0f} or {by_rat / 1e6:.0f} million"
    assert told in str(literature_cells.__doc__)


def test_what_the_filter_cuts_off() -> None:
    assert PURKINJE_LITERATURE.cut_off() == pytest.approx(math.exp(-5 / 30 / 0.082))
    assert PURKINJE_LITERATURE.cut_off(step_ms=1000 / 150) == pytest.approx(0.666, abs=1e-3)
    assert GRANULE_LITERATURE.cut_off() is None


def test_dale_and_summation() -> None:
    assert [preset(cell).excites for cell in CELLS] == [True, False, True, False, True]
    laws = {cell: preset(cell, "literature").summation for cell in CELLS}
    assert laws == {
        "granule": "linear",
        "purkinje": "linear",
        "deep_nuclear": "linear",
        "golgi": "sublinear",
        "pyramidal": "supralinear",
    }


def test_preset_prefers_the_essay() -> None:
    assert preset("granule") is GRANULE_DETTMERS2015
    assert preset("golgi") is GOLGI_LITERATURE
    assert preset("granule", "literature") is GRANULE_LITERATURE


@pytest.mark.parametrize(
    ("cell", "variant", "message"),
    [
        ("basket", None, "cell='basket' is unknown; expected one of granule, purkinje"),
        ("golgi", "dettmers2015", "variant='dettmers2015': 'golgi' has 'literature' alone"),
        ("granule", "ito", "variant='ito': 'granule' has 'dettmers2015' and 'literature' alone"),
    ],
)
def test_preset_refuses(cell: str, variant: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preset(cell, variant)


def _without(name: str) -> dict[str, Source]:
    return {key: source for key, source in PURKINJE_LITERATURE.sources.items() if key != name}


@pytest.mark.parametrize("name", sorted(PURKINJE_LITERATURE.sources))
def test_a_value_without_a_source_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"purkinje literature: no source for \['{name}'\]"):
        dataclasses.replace(PURKINJE_LITERATURE, sources=_without(name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate_hz": None}, r"no value for \['rate_hz'\]"),
        ({"variant": "eccles1967"}, "variant='eccles1967' is unknown"),
        ({"summation": "cubic"}, "summation='cubic' is unknown"),
        ({"synapses": 200_000}, "synapses=200000; expected 1 to 175200"),
        ({"dendrites": 401}, r"sheet_shape=\(438, 400\) with dendrites=401"),
        ({"dendrites": 0}, "dendrites=0; expected positive integers"),
        ({"sheet_shape": (438,)}, r"sheet_shape=\(438,\); expected \(sites, dendrites\)"),
        ({"filter_shape": (439, 400, 5)}, r"filter_shape=\(439, 400, 5\) does not fit sheet_shape"),
        ({"filter_shape": (10, 401, 5)}, r"filter_shape=\(10, 401, 5\) does not fit sheet_shape"),
        ({"filter_shape": (10, 400, 0)}, "filter_shape"),
        ({"soma_time_steps": 0}, "soma_time_steps=0"),
        ({"outputs": -1}, "outputs=-1"),
        ({"cells_in_brain": 30.5e6}, "cells_in_brain=30500000.0"),
        ({"mean_wait": -0.5}, "mean_wait=-0.5; expected 0 or more"),
        ({"rate_hz": 0.0}, "rate_hz=0.0; expected a positive number of Hz"),
        ({"time_constant_ms": math.nan}, "time_constant_ms=nan; expected a positive number of ms"),
        (
            {"sources": {**_without("site_um"), "site_um": Source("chosen", "by `spines`")}},
            "the source of site_um names 'spines', not a value here",
        ),
    ],
)
def test_a_preset_that_does_not_hold_together_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PURKINJE_LITERATURE, **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ito1984", "p. 86"), "reference 'ito1984' is unknown; expected a key of REFERENCES"),
        (("napper1988", ""), "reference='napper1988': no place"),
        (("napper1988", "  "), "no place"),
        (("napper1988", "abstract", "see [ito1984]"), "reference 'ito1984' is unknown"),
        (("guessed", "`synapses`"), "reference 'guessed' is unknown"),
        (("chosen", "it looked right"), "chosen 'it looked right' names nothing that it rests on"),
        (("derived", "half of it"), "derived 'half of it' names nothing"),
        (("derived", "from [ito1984]"), "reference 'ito1984' is unknown"),
    ],
)
def test_a_source_that_does_not_resolve_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source(*arguments)


def test_how_a_source_reads() -> None:
    source = Source("rapp1994", "p. 107", "see [roth2001] and `synapses`")
    assert str(source) == "Rapp et al. 1994, p. 107; see Roth and Häusser 2001 and synapses"
    assert source.brief == "Rapp et al. 1994, p. 107"
    assert (source.cites, source.names) == (("rapp1994", "roth2001"), ("synapses",))
    assert source.urls == tuple(REFERENCES[key].url for key in ("rapp1994", "roth2001"))
    own = Source("derived", "from [lennie2003] and `synapses`")
    assert str(own) == "derived: from Lennie 2003 and synapses"
    assert own.brief == "derived, from Lennie 2003 and synapses"


def _reference(**changes: Any) -> Reference:
    whole: dict[str, Any] = {
        "key": "one",
        "authors": ("One",),
        "year": 2000,
        "title": "T",
        "venue": "V",
    }
    return Reference(**{**whole, **changes})


@pytest.mark.parametrize(
    "doi",
    [
        "10.1/x",
        "10.1002/",
        "doi:10.1002/x",
        "https://doi.org/10.1002/x",
        "10.1002/a b",
        "11.1002/x",
    ],
)
def test_a_malformed_doi_is_refused(doi: str) -> None:
    with pytest.raises(ValueError, match="one: doi="):
        _reference(doi=doi)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "give one of the two"),
        ({"doi": "10.1002/x", "web": "https://x.org"}, "give one of the two"),
        ({"web": "x.org"}, "web='x.org'; expected http"),
    ],
)
def test_a_reference_needs_one_address(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _reference(**changes)


def test_bibliography() -> None:
    assert all(key == reference.key for key, reference in REFERENCES.items())
    urls = [reference.url for reference in REFERENCES.values()]
    titles = [reference.title for reference in REFERENCES.values()]
    assert len(set(urls)) == len(set(titles)) == len(REFERENCES)
    for reference in REFERENCES.values():
        assert reference.authors
        assert reference.title
        assert reference.venue
        assert 1900 < reference.year < 2100
        assert str(reference.year) in reference.key
        if reference.doi is not None:
            assert reference.url == f"https://doi.org/{reference.doi}"
    with pytest.raises(TypeError):
        REFERENCES["one"] = _reference(doi="10.1002/x")  # type: ignore[index]


def test_no_reference_is_idle() -> None:
    cited = {
        key for cell in PRESETS.values() for source in cell.sources.values() for key in source.cites
    }
    # Those of brains, machines and energy are cited elsewhere.
    assert {reference.key for reference in CELL_REFERENCES} <= cited <= set(REFERENCES)


def test_essay_variants_cite_the_essay_or_own_up() -> None:
    for (_, variant), cell in PRESETS.items():
        for source in cell.sources.values():
            if variant == "dettmers2015":
                assert source.reference in ("dettmers2015", *OWN)
            else:
                assert source.reference != "dettmers2015"


def test_differences_by_hand() -> None:
    wanted = []
    for cell in CELLS:
        essay, others = (PRESETS.get((cell, variant)) for variant in VARIANTS)
        for field in dataclasses.fields(Physiology):
            if field.name in ("cell", "variant", "sources"):
                continue
            both = getattr(essay, field.name, None), getattr(others, field.name, None)
            if both[0] != both[1]:
                wanted.append((cell, field.name, *both))
    rows = differences()
    assert sorted(
        (row.cell, row.field, repr((row.dettmers2015, row.literature))) for row in rows
    ) == (sorted((cell, field, repr((a, b))) for cell, field, a, b in wanted))
    for row in rows:
        assert row.unit == UNITS[row.field]
        assert (row.dettmers2015 is None) == (row.dettmers2015_source is None)
        assert (row.literature is None) == (row.literature_source is None)
    assert differences("golgi") == tuple(row for row in rows if row.cell == "golgi")
    assert all(row.dettmers2015 is None for row in differences("golgi"))
    with pytest.raises(ValueError, match="cell='basket' is unknown"):
        differences("basket")


def _printed(table: Table) -> list[str]:
    console = Console(width=100, color_system=None)
    with console.capture() as text:
        console.print(table)
    return text.get().splitlines()


def test_table_at_a_hundred_columns() -> None:
    lines = _printed(cells_table())
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 100
    assert "…" not in text
    for cell in CELLS:
        assert cell.replace("_", " ") in text
    line = next(line for line in lines if "length constant, um" in line)
    assert line.count(" - ") == 1  # the essay gives none
    assert "1630" in line
    assert any("100,000 " in line and " 175,000 " in line for line in lines)
    assert "Napper and Harvey 1988, abstract" in text
    one = "\n".join(_printed(cells_table("purkinje")))
    assert "deep nuclear" not in one
    assert "guinea pig" in one  # notes too
    assert "guinea pig" not in text
    assert "10.1002/cne.902740204" in "\n".join(_printed(references_table("purkinje")))


def test_rows_for_a_file() -> None:
    rows = json.loads(json.dumps(cells_rows()))
    assert [row["cell"] for row in rows] == list(CELLS)
    assert cells_rows("golgi") == cells_rows()[3:4]
    golgi, purkinje = rows[3]["differences"], rows[1]["differences"]
    assert golgi["mean_wait_steps"]["dettmers2015"] is None
    assert golgi["rate_hz"]["literature"] == 8.4
    assert golgi["sheet_sites_dendrites"]["literature"] == [204, 10]
    entry = purkinje["time_constant_ms"]
    assert (entry["dettmers2015"], entry["literature"]) == (None, 82.0)
    assert entry["literature_source"] == str(PURKINJE_LITERATURE.sources["time_constant_ms"])
    assert entry["literature_urls"][0] == REFERENCES["rapp1994"].url
    assert sum(len(row["differences"]) for row in rows) == len(differences())


@pytest.mark.slow
def test_every_doi_resolves() -> None:
    """doi.org answers a redirection for a DOI that exists, 404 for one that does not."""
    connection = http.client.HTTPSConnection("doi.org", timeout=10)
    try:
        connection.request("HEAD", "/10.1000/182")  # the DOI handbook
        connection.getresponse().read()
    except OSError as error:
        pytest.skip(f"doi.org cannot be reached: {error}")
    lost = []
    for reference in REFERENCES.values():
        if reference.doi is None:
            continue
        connection.request("HEAD", f"/{reference.doi}")
        answer = connection.getresponse()
        answer.read()
        if answer.status not in (301, 302, 303, 307, 308):
            lost.append((reference.key, answer.status))
    connection.close()
    assert not lost
