"""What a console shows of a section, and which numbers of a report lack their source."""

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console


def printed(renderable: Any, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# Units in which a key may end instead of standing beside it: "measured_s", "year".
_KEY_UNITS = (
    *("year", "hz", "s", "ms", "j", "pj", "w", "flop", "mac", "bytes", "share"),
    *("flop_per_s", "mac_per_s"),
)


def bare_numbers(data: Any, position: str = "") -> list[str]:
    """Finds the numbers in plain data that lack a unit or a source; a good report has none.

    A number has both as the `value` of a record with a name, a unit and a source, or under a key
    that is or ends in a unit ("latency_s", "year") beside a key "source".
    """
    if isinstance(data, Mapping):
        record = all(_is_text(data.get(key)) for key in ("name", "unit", "source"))
        bare = []
        for key, value in data.items():
            unit = any(key == unit or str(key).endswith(f"_{unit}") for unit in _KEY_UNITS)
            sourced = (record and key == "value") or (_is_text(data.get("source")) and unit)
            if not (sourced and _is_number(value)):
                bare += bare_numbers(value, f"{position}.{key}" if position else str(key))
        return bare
    if isinstance(data, list | tuple):
        rows = (bare_numbers(row, f"{position}[{i}]") for i, row in enumerate(data))
        return [bare for row in rows for bare in row]
    return [f"{position} = {data!r}"] if _is_number(data) else []


def _is_number(data: Any) -> bool:
    return isinstance(data, int | float) and not isinstance(data, bool)


def _is_text(data: Any) -> bool:
    return isinstance(data, str) and bool(data.strip())
