"""Presets: the numbers of a cell type, each with the place that it was read from.

Two variants: `dettmers2015` holds the essay's numbers, `literature` what others have measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from neuroconv.neurons.cell_numbers import UNITS, VARIANTS, Physiology, Variant
from neuroconv.neurons.essay_cells import (
    DEEP_NUCLEAR_DETTMERS2015,
    GRANULE_DETTMERS2015,
    PURKINJE_DETTMERS2015,
    PYRAMIDAL_DETTMERS2015,
)
from neuroconv.neurons.literature_cells import (
    DEEP_NUCLEAR_LITERATURE,
    GOLGI_LITERATURE,
    GRANULE_LITERATURE,
    PURKINJE_LITERATURE,
    PYRAMIDAL_LITERATURE,
)
from neuroconv.references import Source

__all__ = [
    "CELLS",
    "DEEP_NUCLEAR_DETTMERS2015",
    "DEEP_NUCLEAR_LITERATURE",
    "GOLGI_LITERATURE",
    "GRANULE_DETTMERS2015",
    "GRANULE_LITERATURE",
    "PRESETS",
    "PURKINJE_DETTMERS2015",
    "PURKINJE_LITERATURE",
    "PYRAMIDAL_DETTMERS2015",
    "PYRAMIDAL_LITERATURE",
    "Difference",
    "Physiology",
    "Variant",
    "differences",
    "preset",
]

_ALL = (
    GRANULE_DETTMERS2015,
    GRANULE_LITERATURE,
    PURKINJE_DETTMERS2015,
    PURKINJE_LITERATURE,
    DEEP_NUCLEAR_DETTMERS2015,
    DEEP_NUCLEAR_LITERATURE,
    GOLGI_LITERATURE,
    PYRAMIDAL_DETTMERS2015,
    PYRAMIDAL_LITERATURE,
)
PRESETS: Mapping[tuple[str, str], Physiology] = MappingProxyType(
    {(each.cell, each.variant): each for each in _ALL}
)
CELLS: tuple[str, ...] = tuple(dict.fromkeys(each.cell for each in _ALL))


def preset(cell: str, variant: Variant | None = None) -> Physiology:
    """The numbers of a cell: by default the essay's where the essay speaks of the cell.

    Raises:
        ValueError: an unknown cell, or a variant that the cell does not have.
    """
    if cell not in CELLS:
        raise ValueError(f"cell={cell!r} is unknown; expected one of {', '.join(CELLS)}")
    has = [name for name in VARIANTS if (cell, name) in PRESETS]
    name = has[0] if variant is None else variant
    if name not in has:
        raise ValueError(f"variant={name!r}: {cell!r} has {' and '.join(map(repr, has))} alone")
    return PRESETS[cell, name]


@dataclass(frozen=True)
class Difference:
    """A value that the two variants do not share. None: the variant does not have it.

    Attributes:
        cell: name of the cell type.
        field: of `Physiology`.
        unit: of the values; "" for a yes or no, or a name.
        dettmers2015, literature: the values.
        dettmers2015_source, literature_source: their sources.
    """

    cell: str
    field: str
    unit: str
    dettmers2015: object
    literature: object
    dettmers2015_source: Source | None
    literature_source: Source | None


def differences(cell: str | None = None) -> tuple[Difference, ...]:
    """Where the variants of a cell, or of all cells, differ.

    Raises:
        ValueError: an unknown cell.
    """
    chosen = CELLS if cell is None else (preset(cell).cell,)
    return tuple(
        row
        for name in chosen
        for field in UNITS
        if (row := _compare(name, field)).dettmers2015 != row.literature
    )


def _compare(cell: str, field: str) -> Difference:
    essay, others = (PRESETS.get((cell, variant)) for variant in VARIANTS)
    return Difference(
        cell,
        field,
        UNITS[field],
        getattr(essay, field, None),
        getattr(others, field, None),
        essay.sources.get(field) if essay else None,
        others.sources.get(field) if others else None,
    )
