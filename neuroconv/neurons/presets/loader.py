"""Presets read from TOML and checked."""

import inspect
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

from typeguard import TypeCheckError, check_type

from neuroconv.core.checks import did_you_mean
from neuroconv.neurons.presets.physiology import UNITS, Physiology, Variant
from neuroconv.references import Source

_KEYS = {"value", "source"}
_TYPES = get_type_hints(Physiology)


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
            hint = did_you_mean(name, UNITS)
            raise ValueError(f"{position} is unknown; {hint}expected one of {', '.join(UNITS)}")
        if not isinstance(entry, dict) or set(entry) != _KEYS:
            raise ValueError(
                f"{position}={entry!r}; expected exactly a value and a source: "
                '{ value = 5, source = "reference: place; note" }'
            )
        value = entry["value"]
        values[name] = tuple(value) if isinstance(value, list) else value
        try:
            check_type(values[name], _TYPES[name])
            sources[name] = Source.parse(str(entry["source"]))
        except TypeCheckError:
            expected = inspect.formatannotation(_TYPES[name])
            raise ValueError(f"{position}={value!r}; expected {expected}") from None
        except ValueError as error:
            raise ValueError(f"{position}: {error}") from None
    try:
        return Physiology(cell=cell, variant=variant, sources=sources, **values)
    except (TypeError, ValueError) as error:  # TypeError: a field without default is missing
        raise ValueError(f"{file}: [{cell}]: {error}") from None
