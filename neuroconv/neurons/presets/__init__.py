"""Presets: the numbers of a cell type, each with the place that it was read from.

Two variants: `dettmers2015` holds the essay's numbers (`essay.toml`), `literature` what others have
measured (`literature.toml`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from neuroconv.neurons.presets.loader import load_presets
from neuroconv.neurons.presets.physiology import UNITS, VARIANTS, Physiology, Variant
from neuroconv.references import Source

__all__ = [
    "CELLS",
    "PRESETS",
    "UNITS",
    "VARIANTS",
    "Difference",
    "Physiology",
    "Variant",
    "differences",
    "load_presets",
    "preset",
]

CELLS: tuple[str, ...] = ("granule", "purkinje", "deep_nuclear", "golgi", "pyramidal")
_FILES: Mapping[Variant, str] = {"dettmers2015": "essay.toml", "literature": "literature.toml"}
_LOADED = {
    (numbers.cell, numbers.variant): numbers
    for variant, file in _FILES.items()
    for numbers in load_presets(Path(__file__).with_name(file), variant)
}
_KEYS = ((cell, variant) for cell in CELLS for variant in _FILES)
PRESETS: Mapping[tuple[str, str], Physiology] = MappingProxyType(
    {key: _LOADED[key] for key in _KEYS if key in _LOADED}
)


def preset(cell: str, variant: Variant | None = None) -> Physiology:
    """Returns the numbers of a cell, by default the essay's where the essay has the cell.

    Raises:
        ValueError: an unknown cell, or a variant that the cell does not have.
    """
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
