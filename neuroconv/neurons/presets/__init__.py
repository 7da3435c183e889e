"""Presets: the numbers of a cell type, each with its source.

Two variants: `dettmers2015` holds the essay's numbers (`essay.toml`), `literature` what others have
measured (`literature.toml`).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from neuroconv.core.arguments import checked
from neuroconv.core.checks import expected_one_of
from neuroconv.neurons.presets.physiology import UNITS, VARIANTS, Physiology, Variant
from neuroconv.references import Source

__all__ = [
    "CELLS", "PRESETS", "UNITS", "VARIANTS", "Difference", "Physiology", "Variant", "differences",
    "load_presets", "preset",
]  # fmt: skip

CELLS: tuple[str, ...] = ("granule", "purkinje", "deep_nuclear", "golgi", "pyramidal")
_FILES: Mapping[Variant, str] = {"dettmers2015": "essay.toml", "literature": "literature.toml"}
_ENTRY = {"value", "source"}


def load_presets(file: Path, variant: Variant) -> list[Physiology]:
    """Reads the cells of a variant's TOML file: tables of fields, each with a value and a source.

        [purkinje]
        synapses = { value = 175_000, source = "napper1988: abstract; rat" }

    Raises:
        ValueError: a file that is not TOML; an unknown field, one that lacks its value or source,
            or has an unknown key or a value of the wrong type or out of range; an unknown
            reference. Names file, cell and field.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file.name}: {error}; expected TOML") from None
    return [_physiology(cell, variant, table, file.name) for cell, table in tables.items()]


def _physiology(cell: str, variant: Variant, table: Any, file: str) -> Physiology:
    if not isinstance(table, dict):
        raise ValueError(f"{file}: {cell}={table!r}; expected a table of fields, [{cell}]")
    values: dict[str, Any] = {}
    sources = {}
    for name, entry in table.items():
        position = f"{file}: [{cell}] {name}"
        if name not in UNITS:
            raise ValueError(f"{position} is unknown; {expected_one_of(name, UNITS)}")
        if not isinstance(entry, dict) or set(entry) != _ENTRY:
            raise ValueError(
                f"{position}={entry!r}; expected exactly a value and a source: "
                '{ value = 5, source = "reference: place; note" }'
            )
        values[name] = entry["value"]
        try:
            sources[name] = Source.parse(str(entry["source"]))
        except ValueError as error:
            raise ValueError(f"{position}: {error}") from None
    try:
        return Physiology(cell=cell, variant=variant, sources=sources, **values)
    except (TypeError, ValueError) as error:  # TypeError: a field without default is missing
        raise ValueError(f"{file}: [{cell}]: {error}") from None


_LOADED = {
    (numbers.cell, numbers.variant): numbers
    for variant, file in _FILES.items()
    for numbers in load_presets(Path(__file__).with_name(file), variant)
}
_KEYS = ((cell, variant) for cell in CELLS for variant in _FILES)
PRESETS: Mapping[tuple[str, str], Physiology] = MappingProxyType(
    {key: _LOADED[key] for key in _KEYS if key in _LOADED}
)


@checked
def preset(cell: str, variant: Variant | None = None) -> Physiology:
    """Returns a cell's numbers, by default the essay's if it has the cell."""
    if cell not in CELLS:
        raise ValueError(f"cell={cell!r} is unknown; expected one of {', '.join(CELLS)}")
    variants = [name for name in VARIANTS if (cell, name) in PRESETS]
    name = variants[0] if variant is None else variant
    if name not in variants:
        has = " and ".join(map(repr, variants))
        raise ValueError(f"variant={name!r}: {cell!r} has {has} alone; expected one that it has")
    return PRESETS[cell, name]


@dataclass(frozen=True)
class Difference:
    """A field of `Physiology` in which the variants of a cell differ.

    Values, in a unit of `UNITS`, and sources are by variant, None where one lacks the field.
    """

    cell: str
    field: str
    unit: str
    values: Mapping[str, object]
    sources: Mapping[str, Source | None]


def differences(cell: str | None = None) -> tuple[Difference, ...]:
    """Returns the values in which the variants of a cell, or of all cells, differ."""
    rows = []
    for name in CELLS if cell is None else (preset(cell).cell,):
        presets = {variant: PRESETS.get((name, variant)) for variant in VARIANTS}
        for field, unit in UNITS.items():
            values = {variant: getattr(p, field, None) for variant, p in presets.items()}
            if len({*values.values()}) > 1:
                sources = {v: p.sources.get(field) if p else None for v, p in presets.items()}
                rows.append(Difference(name, field, unit, values, sources))
    return tuple(rows)
