"""The ledger of what the estimate leaves out."""

from io import StringIO

from rich.console import Console

from neuroconv.brain.evidence.ledger import (
    NOT_MODELLED,
    ledger_rows,
    ledger_table,
    omissions,
    training_step,
    two_transmitters,
)
from neuroconv.brain.quantity import bare_numbers


def test_fourteen_items() -> None:
    items = omissions()
    assert len(items) == 14 == len({each.item for each in items})
    listed = [each for each in items if "Limitations" in each.source.place]
    assert len(listed) == 12
    assert [each.item for each in items if each not in listed] == ["re-uptake", "learning"]
    assert all(each.source.reference == "dettmers2015" for each in items)


def test_one_multiplier() -> None:
    first, *rest = omissions()
    assert first.multiplier is not None
    assert (first.multiplier.value, first.multiplier.unit) == (2, "1")
    assert "reflected" in first.item
    assert all(each.multiplier is None for each in rest)
    assert [row["multiplier"] == NOT_MODELLED for row in ledger_rows()] == [False] + [True] * 13


def test_costs_are_counted() -> None:
    # Each of the two gradients of a convolution is as large as the convolution.
    step = training_step()
    assert step.value == 3
    assert "takes 2 times the forward" in step.source.note
    # All but the soma doubles, and the dendrites are nearly everything.
    assert 1.9999 < two_transmitters().value < 2
    costs = {each.item: each.cost for each in omissions() if each.cost is not None}
    assert set(costs) == {"vesicles with several neurotransmitters", "learning"}


def test_rows_and_table() -> None:
    rows = ledger_rows()
    assert len(rows) == 14
    assert bare_numbers(rows) == []
    assert all(row["item"] and row["what"] and row["left_out_by"] for row in rows)
    assert sum(row["touched_by"] == "nothing" for row in rows) == 7
    out = StringIO()
    Console(file=out, width=160).print(ledger_table())
    text = out.getvalue()
    assert "14 items" in text
    assert text.count(NOT_MODELLED) == 13
    assert text.count("nearly 2") == 1
    assert "x 3" in text
    assert "`" not in text
