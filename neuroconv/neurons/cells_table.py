"""Where the presets' variants differ, as rich tables and as rows for a JSON file."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from neuroconv.neurons.cell_numbers import VARIANTS
from neuroconv.neurons.physiology import Difference, differences
from neuroconv.references import REFERENCES, Source

# Names for the file: what a number counts or its unit, where the field's name does not say it.
_KEYS = {
    "outputs": "output_connections",
    "mean_wait": "mean_wait_steps",
    "sheet_shape": "sheet_sites_dendrites",
    "filter_shape": "filter_branches_dendrites_steps",
}


def cells_table(cell: str | None = None) -> Group:
    """One row for each value that the variants of a cell, or of all cells, do not share.

    Numbers in brackets lead to the sources below. Of one cell they are whole, of all they are
    short.

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
    before = ""
    for row in differences(cell):
        if row.cell != before:
            table.add_section()
            table.add_row(Text(row.cell.replace("_", " "), style="bold"))
            before = row.cell
        values: list[Text] = []
        for value, source in (
            (row.dettmers2015, row.dettmers2015_source),
            (row.literature, row.literature_source),
        ):
            values += [Text(_shown(value)), Text(_note(source, notes, whole=cell is not None))]
        table.add_row(Text(f"  {_label(row)}"), *values)
    return Group(table, _notes_table(notes))


def references_table(cell: str | None = None) -> Table:
    """The publications that `cells_table` cites, with their addresses.

    Raises:
        ValueError: an unknown cell.
    """
    sources = [source for row in differences(cell) for source in _sources(row)]
    cited = {key for source in sources for key in source.cites}
    table = Table("reference", "where", title="references")
    table.columns[1].overflow = "fold"
    for key in sorted(cited):
        each = REFERENCES[key]
        table.add_row(Text(each.short), Text(f"{each.title}. {each.venue}. {each.url}"))
    return table


def cells_rows(cell: str | None = None) -> list[dict[str, Any]]:
    """What the table shows, whole sources and addresses included; units stand in the keys.

    One row for each cell: {"cell": name, "differences": {value with its unit: {variant: value,
    variant_source: text or None, variant_urls: addresses}}}.

    Raises:
        ValueError: an unknown cell.
    """
    rows: dict[str, dict[str, Any]] = {}
    for row in differences(cell):
        entry = rows.setdefault(row.cell, {"cell": row.cell, "differences": {}})
        essay, others = row.dettmers2015_source, row.literature_source
        entry["differences"][_KEYS.get(row.field, row.field)] = {
            "dettmers2015": _plain(row.dettmers2015),
            "literature": _plain(row.literature),
            "dettmers2015_source": str(essay) if essay else None,
            "literature_source": str(others) if others else None,
            "dettmers2015_urls": list(essay.urls) if essay else [],
            "literature_urls": list(others.urls) if others else [],
        }
    return list(rows.values())


def _sources(row: Difference) -> tuple[Source, ...]:
    both = (row.dettmers2015_source, row.literature_source)
    return tuple(source for source in both if source is not None)


def _note(source: Source | None, notes: dict[str, int], whole: bool) -> str:
    """The number of a source's note; equal sources share one."""
    if source is None:
        return ""
    return f"[{notes.setdefault(str(source) if whole else source.brief, len(notes) + 1)}]"


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
    named = not row.unit or row.unit in (row.field, "connections", "cells") or "steps" in name
    return name if named or " x " in row.unit else f"{name}, {row.unit}"


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


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
