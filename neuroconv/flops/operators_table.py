"""The operators that each counter knows, and how it counts them, as a table."""

import fnmatch

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from neuroconv.flops.rulebook import DATA

_COUNTERS = ("exact", "fvcore", "closed_form")


def operator_rules() -> list[dict[str, str | None]]:
    """Returns one record for each operator, or module: its name, and what each counter does.

    None: the counter never meets it, or lists it as uncounted. fvcore sees what a trace records,
    the exact counter what the dispatcher runs: one call can be two operators, or another. The exact
    counter also counts what torch itself tags as pointwise, one FLOP an element.
    """
    rules: dict[str, dict[str, str | None]] = {}

    def add(counter: str, names: str, rule: str) -> None:
        for name in names.split():
            empty: dict[str, str | None] = {"operator": name, **dict.fromkeys(_COUNTERS)}
            rules.setdefault(name, empty)[counter] = rule

    for counter in _COUNTERS:
        for entry in DATA[counter]:
            add(counter, entry["operators"], entry["rule"])
    for reason, names in DATA["zero"].items():
        add("exact", names, f"zero: {reason}")
    return sorted(rules.values(), key=lambda row: str(row["operator"]).strip("_").lower())


def operators_table(pattern: str = "*") -> Table:
    """Returns `operator_rules` of the names that match a wildcard.

    Raises:
        ValueError: none does.
    """
    rows = [row for row in operator_rules() if fnmatch.fnmatch(str(row["operator"]), pattern)]
    if not rows:
        raise ValueError(f"no operator matches {pattern!r}; try '*conv*'")
    table = Table(
        box=SIMPLE_HEAD,
        caption="-: never met by this counter, or listed as uncounted. The closed form counts "
        "modules; neuroconv's own state theirs in a method `closed_form`.",
    )
    for column in ("operator", "exact", "fvcore", "closed form"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[key] or "-") for key in ("operator", *_COUNTERS)))
    return table
