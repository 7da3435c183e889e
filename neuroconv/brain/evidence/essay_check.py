"""The essay's numbers held against each other: what they come to, and whether that fits."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from rich.table import Table
from rich.text import Text

from neuroconv.brain.evidence.check import Check
from neuroconv.brain.evidence.checks_of_cells import whole_checks, wiring_checks
from neuroconv.brain.evidence.checks_of_totals import time_checks, total_checks
from neuroconv.brain.quantity import Quantity, plain_table


@cache
def checks() -> tuple[Check, ...]:
    """All checks, in the order of the report."""
    return (*whole_checks(), *wiring_checks(), *time_checks(), *total_checks())


def check_rows() -> list[dict[str, Any]]:
    """What `check_table` shows, each number with unit and source."""
    return [check.to_dict() for check in checks()]


def _side(quantities: Sequence[Quantity]) -> Text:
    unit = quantities[0].unit
    return Text(
        " to ".join(each.shown for each in quantities) + (f" {unit}" if unit != "1" else "")
    )


def check_table() -> Table:
    """One row for each check: what the essay says, what its other numbers make, what follows."""
    fitting = sum(check.fits for check in checks())
    table = plain_table(
        f"The essay's numbers against each other: {fitting} of {len(checks())} checks fit",
        '"about" is taken to allow a tenth; a whole should leave room for its other parts',
        apart=True,
    )
    table.add_column("the essay says", ratio=3)
    table.add_column("stated", justify="right", ratio=2)
    table.add_column("its other numbers make", justify="right", ratio=2)
    table.add_column("ratio", justify="right")
    table.add_column("fits")
    table.add_column("finding", ratio=4)
    for check in checks():
        table.add_row(
            Text(check.claim),
            _side(check.stated),
            _side((check.implied,)),
            check.ratio.shown,
            Text("yes") if check.fits else Text("NO", style="bold"),
            Text(check.finding),
        )
    return table
