"""A section of the report: rows that a table shows and a JSON file holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from neuroconv.brain.quantity import Quantity, plain
from neuroconv.core.text import printable
from neuroconv.references import Source

Cell = str | int | Callable[[Any], Any]


@dataclass(frozen=True)
class Column:
    """A column of a section's table."""

    title: str
    cell: Cell  # name or index of a row's value, or a function from a row to what is shown
    justify: Literal["left", "right"] = "left"
    wrap: bool = True  # whether long text is broken into lines
    ratio: int | None = None  # share of the width beside other columns; None for that of its text

    def text(self, row: Any) -> Text:
        """Returns a row's cell: quantities without unit, sources in brief, None as "-"."""
        value = self.cell(row) if callable(self.cell) else _value_of(row, self.cell)
        match value:
            case Text():
                return value
            case Quantity():
                return Text(value.shown)
            case Source():
                return Text(value.brief)
        return Text("-" if value is None else str(value))


def number(title: str, cell: Cell) -> Column:
    """Returns a column of numbers, which are right-justified and never broken."""
    return Column(title, cell, "right", wrap=False)


def numbers(*titles: str) -> tuple[Column, ...]:
    """Returns columns of numbers for rows that are sequences, from their second value on."""
    return tuple(number(title, index) for index, title in enumerate(titles, 1))


class Notes:
    """Numbered sources of a table: its cells have [1], [2], ..., and the list stands below it."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, source: str) -> str:
        """Returns the number of a source in brackets; equal sources share one."""
        return f"[{self._numbers.setdefault(source, len(self._numbers) + 1)}]"

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="fold")
        for source, index in self._numbers.items():
            table.add_row(Text(f"[{index}]"), Text(printable(source)))
        return table


@dataclass(frozen=True)
class Section:
    """Rows of the report, as a table and as plain data."""

    title: str
    rows: Sequence[Any]  # mappings or objects with attributes; for a table alone, also sequences
    columns: Sequence[Column]
    caption: str | None = None
    keys: tuple[str, ...] = ()  # of a row's values in plain data; () for all keys of a mapping
    notes: Notes | None = None
    spaced: bool = False  # whether an empty line separates the rows

    def __rich__(self) -> RenderableType:
        table = Table(
            title=self.title, title_justify="left", caption=self.caption, caption_justify="left",
            box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, leading=int(self.spaced),
        )  # fmt: skip
        for column in self.columns:
            table.add_column(
                column.title, justify=column.justify, no_wrap=not column.wrap, ratio=column.ratio
            )
        for row in self.rows:
            table.add_row(*(column.text(row) for column in self.columns))
        return table if self.notes is None else Group(table, self.notes, Text())

    def to_list(self) -> list[dict[str, Any]]:
        """Returns the rows as plain data, in which every number has a unit and a source."""
        return [
            {key: plain(_value_of(row, key)) for key in self.keys or tuple(row)}
            for row in self.rows
        ]


def _value_of(row: Any, key: Any) -> Any:
    return row[key] if isinstance(row, Mapping | Sequence) else getattr(row, key)
