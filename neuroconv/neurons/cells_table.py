"""Where the presets' variants differ, as a rich table and as rows for a JSON file."""

from typing import Any

from rich.table import Table
from rich.text import Text

from neuroconv.neurons.physiology import Difference, differences
from neuroconv.neurons.references import REFERENCES, Source

_ESSAY = f"{REFERENCES['dettmers2015'].short}, "
# Names for the file: what a number counts or its unit, where the field's name does not say it.
_KEYS = {
    "outputs": "output_connections",
    "mean_wait": "mean_wait_steps",
    "sheet_shape": "sheet_sites_dendrites",
    "filter_shape": "filter_branches_dendrites_steps",
}


def cells_table(cell: str | None = None) -> Table:
    """One row for each value that the variants of a cell, or of all cells, do not share.

    Of one cell the sources are whole, of all they are short.

    Raises:
        ValueError: an unknown cell.
    """
    table = Table(caption="E the essay, L the literature; -: no number, or none with a source")
    table.add_column("cell and value")
    table.add_column("dettmers2015", justify="right")
    table.add_column("literature", justify="right")
    table.add_column("sources", ratio=1, overflow="fold")
    before = ""
    for row in differences(cell):
        if row.cell != before:
            table.add_section()
            table.add_row(Text(row.cell.replace("_", " "), style="bold"))
            before = row.cell
        table.add_row(
            Text(f"  {_label(row)}"),
            Text(_shown(row.dettmers2015)),
            Text(_shown(row.literature)),
            Text(_cited(row, whole=cell is not None)),
        )
    return table


def references_table(cell: str | None = None) -> Table:
    """The publications that `cells_table` cites, with their addresses.

    Raises:
        ValueError: an unknown cell.
    """
    sources = [source for row in differences(cell) for source in _sources(row)]
    cited = {key for source in sources for key in source.cites}
    table = Table("reference", "where", title="references")
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


def _cited(row: Difference, whole: bool) -> str:
    """The sources, each on a line behind its variant's letter."""
    both = {"E": row.dettmers2015_source, "L": row.literature_source}
    return "\n".join(
        f"{letter} {source if whole else source.brief.removeprefix(_ESSAY)}"
        for letter, source in both.items()
        if source is not None
    )


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
