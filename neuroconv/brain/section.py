"""A section of the report: rows that a table shows and a JSON file holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from neuroconv.brain.quantity import Quantity, plain
from neuroconv.references import Source

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a section's table.

    Attributes:
        title: its heading.
        cell: the key of a row whose value is shown, or a function from a row to what is shown.
        justify: "left", or "right" for numbers.
        wrap: whether long text is broken into lines.
        ratio: share of the width beside other columns with one; None for the width of its text.
    """

    title: str
    cell: str | Callable[[Row], Any]
    justify: Literal["left", "right"] = "left"
    wrap: bool = True
    ratio: int | None = None

    def of(self, row: Row) -> RenderableType:
        value = row[self.cell] if isinstance(self.cell, str) else self.cell(row)
        return value if isinstance(value, Text) else Text(shown(value))


def number(title: str, cell: str | Callable[[Row], Any]) -> Column:
    """Returns a column of numbers, which are right-justified and never broken."""
    return Column(title, cell, "right", wrap=False)


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
            table.add_row(Text(f"[{index}]"), Text(source))
        return table


@dataclass(frozen=True)
class Section:
    """Rows of the report, as a table and as plain data.

    Attributes:
        title: of the table.
        rows: data by key; quantities and sources stay such until they are shown or written.
        columns: of the table.
        caption: text below the table.
        notes: sources below the table, which its cells refer to.
        spaced: whether an empty line separates the rows.
    """

    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    caption: str | None = None
    notes: Notes | None = None
    spaced: bool = False

    def __rich__(self) -> RenderableType:
        table = Table(
            title=self.title,
            caption=self.caption,
            box=SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
            caption_justify="left",
            title_justify="left",
            leading=int(self.spaced),
        )
        for column in self.columns:
            table.add_column(
                column.title, justify=column.justify, no_wrap=not column.wrap, ratio=column.ratio
            )
        for row in self.rows:
            table.add_row(*(column.of(row) for column in self.columns))
        return table if self.notes is None else Group(table, self.notes, Text())

    def to_list(self) -> list[dict[str, Any]]:
        """Returns the rows as plain data, in which every number has a unit and a source."""
        return [plain(row) for row in self.rows]


def shown(value: Any) -> str:
    """Formats a value for a cell: quantities without their unit, sources in brief, None as "-"."""
    if isinstance(value, Quantity):
        return value.shown
    if isinstance(value, Source):
        return value.brief
    return "-" if value is None else str(value)
