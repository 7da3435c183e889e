"""Differences between the presets' variants, as rich tables and as rows for a JSON file.

Each function takes the name of a cell type, or None for all of them, and raises ValueError for an
unknown one.
"""

from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from neuroconv.neurons.presets import VARIANTS, Difference, differences
from neuroconv.references import REFERENCES

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
    """
    table = Table(
        box=SIMPLE_HEAD, caption="-: no number, or none with a source", caption_justify="left"
    )
    table.add_column("cell and value", no_wrap=True)
    for variant in VARIANTS:
        table.add_column(variant, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
    notes: dict[str, int] = {}  # numbers by text: equal sources share one
    for name, rows in groupby(differences(cell), lambda row: row.cell):
        table.add_section()
        table.add_row(Text(name.replace("_", " "), style="bold"))
        for row in rows:
            cells = [Text(f"  {_label(row)}")]
            for variant, value in row.values.items():
                cells += [Text(_shown(value)), Text("")]
                if (source := row.sources[variant]) is not None:
                    text = source.brief if cell is None else str(source)
                    cells[-1] = Text(f"[{notes.setdefault(text, len(notes) + 1)}]")
            table.add_row(*cells)
    sources = Table.grid(padding=(0, 1))
    sources.add_column(justify="right", no_wrap=True)
    sources.add_column(overflow="fold")
    for text, number in notes.items():
        sources.add_row(Text(f"[{number}]"), Text(text))
    return Group(table, sources)


def references_table(cell: str | None = None) -> Table:
    """Returns the publications that `cells_table` cites, with their addresses."""
    sources = [source for row in differences(cell) for source in row.sources.values()]
    cited = {key for source in sources if source is not None for key in source.cites}
    table = Table("reference", "where", title="references")
    table.columns[1].overflow = "fold"
    for reference in (REFERENCES[key] for key in sorted(cited)):
        description = f"{reference.title}. {reference.venue}. {reference.url}"
        table.add_row(Text(reference.short), Text(description))
    return table


def cells_rows(cell: str | None = None) -> list[dict[str, Any]]:
    """Returns the table's content as plain data, with sources in full; the keys state the units.

    Returns:
        For each cell {"cell": name, "differences": {field with its unit: {variant: value,
        variant_source: text or None, variant_urls: addresses}}}
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


def _label(row: Difference) -> str:
    stated = row.unit in ("um", "ms", "Hz", "steps") and "steps" not in row.field
    unit = row.unit if stated else ""  # the others are in the name
    name = row.field.removesuffix(f"_{unit.lower()}").replace("_", " ")
    return f"{name}, {unit}" if unit else name


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, tuple):
        return " x ".join(map(str, value))
    return format(value, {int: ",", float: "g"}.get(type(value), ""))
