"""Which operators each counter knows, and how it counts them, as a table."""

import fnmatch

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from neuroconv.flops.closed_forms import CLOSED_FORM_RULES
from neuroconv.flops.fvcore_handles import HANDLES
from neuroconv.flops.operators import RULES, ZERO


def operator_rules() -> list[dict[str, str | None]]:
    """One record an operator, or module: its name, and what each counter does with it.

    None: the counter never meets it, or lists it as uncounted. fvcore sees what a trace records,
    the exact counter what the dispatcher runs: one call can be two operators, or another. The exact
    counter also counts what torch itself tags as pointwise, one FLOP an element.
    """
    exact = {name: str(rule) for name, rule in RULES.items()}
    exact |= {name: f"zero: {reason}" for name, reason in ZERO.items()}
    fvcore = {name.removeprefix("aten::"): str(rule) for name, rule in HANDLES.items()}
    rows = [
        {
            "operator": name,
            "exact": exact.get(name),
            "fvcore": fvcore.get(name),
            "closed_form": CLOSED_FORM_RULES.get(name),
        }
        for name in {*exact, *fvcore, *CLOSED_FORM_RULES}
    ]
    return sorted(rows, key=lambda row: str(row["operator"]).strip("_").lower())


def operators_table(pattern: str = "*") -> Table:
    """`operator_rules` of the names that match a wildcard.

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
        table.add_row(
            *(Text(row[key] or "-") for key in ("operator", "exact", "fvcore", "closed_form"))
        )
    return table
