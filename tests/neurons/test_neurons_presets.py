"""Every number of a preset has a source that resolves, and a preset without one is refused."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from neuroconv.neurons import presets
from neuroconv.neurons.presets import (
    CELLS,
    PRESETS,
    UNITS,
    VARIANTS,
    differences,
    load_presets,
    preset,
)
from neuroconv.neurons.presets.table import cells_table, references_table
from neuroconv.references import UNPUBLISHED

EVERY_PRESET = pytest.mark.parametrize("key", PRESETS, ids="-".join)
FILES = sorted(Path(presets.__file__).parent.glob("*.toml"))
GRANULE, GRANULE_ESSAY = PRESETS["granule", "literature"], PRESETS["granule", "dettmers2015"]
PURKINJE, PURKINJE_ESSAY = PRESETS["purkinje", "literature"], PRESETS["purkinje", "dettmers2015"]
PYRAMIDAL, GOLGI = PRESETS["pyramidal", "literature"], PRESETS["golgi", "literature"]


@EVERY_PRESET
def test_every_value_has_a_source_that_resolves(key: tuple[str, str]) -> None:
    cell = PRESETS[key]
    values = {name: getattr(cell, name) for name in UNITS}
    assert (cell.cell, cell.variant) == key
    assert {name for name, value in values.items() if value is not None} == set(cell.sources)
    for source in cell.sources.values():
        assert source.cites or source.names
        assert all(values[name] is not None for name in source.names)
        assert not {"[", "`"} & set(str(source))  # every key is written out
        # Each variant keeps to its literature.
        assert source.reference in UNPUBLISHED or (
            (source.reference == "dettmers2015") == (cell.variant == "dettmers2015")
        )


@EVERY_PRESET
def test_numbers_fit_together(key: tuple[str, str]) -> None:
    cell = PRESETS[key]
    sites, dendrites = cell.sheet_shape
    assert dendrites == cell.dendrites == cell.filter_shape[1]
    assert (sites - 1) * dendrites < cell.synapses <= sites * dendrites  # no row to spare
    assert cell.filter_shape[2] == cell.soma_time_steps == 5


def test_cells_and_variants() -> None:
    expected = {(cell, variant) for cell in CELLS for variant in VARIANTS}
    assert set(PRESETS) == expected - {("golgi", "dettmers2015")}  # the essay is silent on it
    assert sorted(path.name for path in FILES) == ["essay.toml", "literature.toml"]


def test_the_essays_numbers() -> None:
    granule, purkinje = GRANULE_ESSAY, PURKINJE_ESSAY
    pyramidal = preset("pyramidal", "dettmers2015")
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
    ("value", "expected", "within"),
    [
        (GRANULE.synapses, 4 * 10.2, 0.5),
        # Spines of 10 um2 on the 3.14 um2 of each um of shaft share its axial current.
        (PURKINJE.length_constant_um, _length_constant_um(100e3 * 3.1416 / 13.1416, 250, 1), 0.5),
        (PURKINJE.time_constant_ms, 100e3 * (1.5e-6 + 2e-6) / 2 * 1e3, 0),
        (PURKINJE.site_um, 1 / 2, 0),
        (GOLGI.synapses, 40 + 400 + 400 + 1200, 0),
        (PYRAMIDAL.cells_in_brain, 86.1e9 * 0.19 * (0.70 + 0.85) / 2, 0.05e9),
        (PYRAMIDAL.synapses, (15_000 + 30_000) / 2, 0),
        (PYRAMIDAL.dendrites, 5.55 + 1, 0.5),
        (PYRAMIDAL.length_constant_um, _length_constant_um(38.907e3 / 1.9, 203.23, 0.76), 0.5),
        (PYRAMIDAL.time_constant_ms, 38.907e3 * 0.45234e-6 * 1e3, 0.05),
    ],
)
def test_derived_numbers_follow_from_what_they_name(
    value: float, expected: float, within: float
) -> None:
    assert value == pytest.approx(expected, rel=0, abs=within + 1e-9)


def test_numbers_in_notes_follow_from_the_presets() -> None:
    granule, purkinje = GRANULE.cells_in_brain, PURKINJE.cells_in_brain
    inputs = PURKINJE.synapses * purkinje / granule
    assert f"follow {inputs:.0f}" in GRANULE.sources["outputs"].note
    assert f"gives {122 * 0.77:.0f} ms" in PURKINJE.sources["time_constant_ms"].note
    nucleus = PURKINJE_ESSAY.cells_in_brain * PURKINJE_ESSAY.outputs / 12
    assert f"{nucleus / 1e9:.1f}e9 each" in preset("deep_nuclear").sources["synapses"].note
    by_cat, by_rat = purkinje / 3, granule / 430
    assert f"{by_cat / 1e6:.0f} or {by_rat / 1e6:.0f} million" in FILES[1].read_text()


def test_cut_off() -> None:
    assert PURKINJE.cut_off() == pytest.approx(math.exp(-5 / 30 / 0.175))
    assert PURKINJE.cut_off(step_ms=1000 / 150) == pytest.approx(0.827, abs=1e-3)
    assert GRANULE.cut_off() is None


def test_dale_and_summation() -> None:
    assert (preset("granule"), preset("golgi")) == (GRANULE_ESSAY, GOLGI)  # the essay's if it can
    assert [preset(cell).excites for cell in CELLS] == [True, False, True, False, True]
    within = [preset(cell, "literature").site_summation for cell in CELLS]
    assert within == ["linear", "linear", "linear", "sublinear", "sigmoidal"]
    essay = [p.site_summation for (_, variant), p in PRESETS.items() if variant == VARIANTS[0]]
    assert {*essay, *(numbers.summation for numbers in PRESETS.values())} == {"linear"}


@pytest.mark.parametrize(
    ("cell", "variant", "message"),
    [
        ("basket", None, "cell='basket' is unknown; expected one of granule, purkinje"),
        ("golgi", "dettmers2015", "'dettmers2015': 'golgi' has 'literature' alone"),
        ("granule", "ito", "variant='ito'; expected one of dettmers2015, literature"),
    ],
)
def test_preset_refuses(cell: str, variant: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preset(cell, variant)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[purkinje]", "[[purkinje]]", r"purkinje=\[.*expected a table of fields, \[purkinje\]"),
        ("[purkinje]", "[purkinje", "cells.toml: .*; expected TOML"),
        ("rate_hz =", "rate_khz =", r"\[purkinje\] rate_khz is unknown; did you mean 'rate_hz'"),
        ("{ value = 50.0, source", "{ source", "rate_hz=.*expected exactly a value and a source"),
        ('source = "person2012: abstract; GABAergic"', 'source = "it is"', "excites: source='it"),
        ("person2012: abstract; GABA", "ito1984: p. 1; GABA", "excites: reference 'ito1984' is un"),
        ("value = 50.0", 'value = "fast"', r"\[purkinje\]: rate_hz='fast'; expected a fin"),
        ("value = 175_000", "value = 1.5", r"\[purkinje\]: synapses=1.5; expected an integer"),
        ("value = [10, 400, 5]", "value = [10, 400]", "filter_shape=.10, 400.; expected 3 values"),
        ("value = 175_000", "value = 200_000", r"\[purkinje\]: synapses=200000; expected 1 to 1"),
        ("value = 400", "value = 401", r"sheet_shape=\(438, 400\) with dendrites=401; expected"),
        ("value = 400", "value = 0", "dendrites=0; expected an integer"),
        ("[10, 400, 5]", "[439, 400, 5]", r"filter_shape=\(439, 400, 5\) does not fit sheet_shape"),
        ("value = 175.0", "value = nan", "time_constant_ms=nan; expected a finite number above 0"),
        ('value = "linear"', 'value = "cubic"', "site_summation='cubic'; expected"),
        ("dendrites` that", "spines` that", "of sheet_shape names 'spines', which has no value"),
        ("synapses = {", "#", r"\[purkinje\]: .*missing .*'synapses'"),
    ],
)
def test_a_file_that_does_not_hold_together_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = FILES[1].read_text()
    text = text[text.index("[purkinje]") : text.index("[deep_nuclear]")]
    assert old in text
    file = tmp_path / "cells.toml"
    file.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        load_presets(file, "literature")
    assert str(caught.value).startswith("cells.toml")


def test_a_value_and_its_source_come_together() -> None:
    sources = {name: source for name, source in PURKINJE.sources.items() if name != "rate_hz"}
    with pytest.raises(ValueError, match=r"purkinje literature: no source for \['rate_hz'\]"):
        dataclasses.replace(PURKINJE, sources=sources)
    with pytest.raises(ValueError, match=r"no value for \['rate_hz'\]; give both or neither"):
        dataclasses.replace(PURKINJE, rate_hz=None)


def test_differences() -> None:
    rows = differences()
    assert [(row.cell, row.field) for row in rows] == [
        (cell, field)
        for cell in CELLS
        for field in UNITS
        if len({getattr(PRESETS.get((cell, variant)), field, None) for variant in VARIANTS}) > 1
    ]
    for row in rows:
        assert row.unit == UNITS[row.field]
        for variant, value in row.values.items():
            assert value == getattr(PRESETS.get((row.cell, variant)), row.field, None)
            assert (value is None) == (row.sources[variant] is None)
    assert differences("golgi") == tuple(row for row in rows if row.cell == "golgi")
    with pytest.raises(ValueError, match="cell='basket' is unknown"):
        differences("basket")


def _printed(table: Any) -> list[str]:
    console = Console(width=100, color_system=None)
    with console.capture() as text:
        console.print(table)
    return text.get().splitlines()


def test_table_at_a_hundred_columns() -> None:
    lines = _printed(cells_table())
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 100
    assert "…" not in text
    assert all(cell.replace("_", " ") in text for cell in CELLS)
    line = next(line for line in lines if "length constant, um" in line)
    assert line.count(" - ") == 1  # the essay gives none
    assert "489" in line
    assert any("100,000 " in line and " 175,000 " in line for line in lines)
    assert "Napper and Harvey 1988, abstract" in text
    purkinje = "\n".join(_printed(cells_table("purkinje")))
    assert "deep nuclear" not in purkinje
    assert "guinea pig" in purkinje  # notes too
    assert "guinea pig" not in text
    assert "10.1002/cne.902740204" in "\n".join(_printed(references_table("purkinje")))
