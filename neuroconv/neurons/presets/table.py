"""Differences between the presets' variants, as rich tables and as rows for a JSON file."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from neuroconv.neurons.presets import VARIANTS, Difference, differences
from neuroconv.references import REFERENCES, Source

# Keys of the file that state the unit, where the field's name does not.
_KEYS = {
    "outputs": "output_connections",
    "mean_wait": "mean_wait_steps",
    "sheet_shape": "sheet_sites_dendrites",
    "filter_shape": "filter_branches_dendrites_steps",
}


def cells_table(cell: str | None = None) -> Group:
    """Returns a table with a row for each value in which the variants differ.

    Numbers in brackets lead to the sources below, which are in full for one cell and brief for all.

    Args:
        cell: name of a cell type; None for all of them.

    Raises:
        ValueError: an unknown cell.
    """
    table = Table(
        box=SIMPLE_HEAD, caption="-: no number, or none with a source", caption_justify="left"
    )
    table.add_column("cell and value", no_wrap=True)
    for variant in VARIANTS:
        table.add_column(variant, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
    notes: dict[str, int] = {}
    for name, rows in groupby(differences(cell), lambda row: row.cell):
        table.add_section()
        table.add_row(Text(name.replace("_", " "), style="bold"))
        for row in rows:
            values: list[Text] = []
            for variant, value in row.values.items():
                note = _note(row.sources[variant], notes, full=cell is not None)
                values += [Text(_shown(value)), Text(note)]
            table.add_row(Text(f"  {_label(row)}"), *values)
    return Group(table, _notes_table(notes))


def references_table(cell: str | None = None) -> Table:
    """Returns the publications that `cells_table` cites, with their addresses.

    Args:
        cell: name of a cell type; None for all of them.

    Raises:
        ValueError: an unknown cell.
    """
    cited = {
        key
        for row in differences(cell)
        for source in row.sources.values()
        if source is not None
        for key in source.cites
    }
    table = Table("reference", "where", title="references")
    table.columns[1].overflow = "fold"
    for key in sorted(cited):
        reference = REFERENCES[key]
        description = f"{reference.title}. {reference.venue}. {reference.url}"
        table.add_row(Text(reference.short), Text(description))
    return table


def cells_rows(cell: str | None = None) -> list[dict[str, Any]]:
    """Returns the table's content as plain data, with sources in full; the keys state the units.

    Args:
        cell: name of a cell type; None for all of them.

    Returns:
        For each cell {"cell": name, "differences": {field with its unit: {variant: value,
        variant_source: text or None, variant_urls: addresses}}}

    Raises:
        ValueError: an unknown cell.
    """
    rows: dict[str, dict[str, Any]] = {}
    for row in differences(cell):
        entry = rows.setdefault(row.cell, {"cell": row.cell, "differences": {}})
        plain: dict[str, Any] = {}
        for variant, value in row.values.items():
            source = row.sources[variant]
            plain[variant] = list(value) if isinstance(value, tuple) else value
            plain[f"{variant}_source"] = str(source) if source else None
            plain[f"{variant}_urls"] = list(source.urls) if source else []
        entry["differences"][_KEYS.get(row.field, row.field)] = plain
    return list(rows.values())


def _note(source: Source | None, notes: dict[str, int], full: bool) -> str:
    """Returns the number of a source's note; equal sources share one."""
    if source is None:
        return ""
    return f"[{notes.setdefault(str(source) if full else source.brief, len(notes) + 1)}]"


def _notes_table(notes: Mapping[str, int]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for text, number in notes.items():
        table.add_row(Text(f"[{number}]"), Text(text))
    return table


def _label(row: Difference) -> str:
    name = row.field
    for unit in ("_um", "_ms", "_hz"):
        name = name.removesuffix(unit)
    name = name.replace("_", " ")
    has_unit = not row.unit or row.unit in (row.field, "connections", "cells") or "steps" in name
    return name if has_unit or " x " in row.unit else f"{name}, {row.unit}"


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " x ".join(map(str, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
