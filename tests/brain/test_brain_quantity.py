"""Quantities with unit and source, formulas over them, and sections that show and write them."""

import math
from typing import Any

import pytest

from neuroconv.brain import Quantity
from neuroconv.brain.quantity import Worksheet, scientific
from neuroconv.brain.section import Column, Notes, Section, number
from neuroconv.references import Source
from tests.brain.reporting import printed

ESSAY = Source("dettmers2015", "'Putting it all together'", "about 100 million")
CELLS = Quantity("purkinje.cells", 10**8, "cells", ESSAY)


def test_plain_data_keep_everything() -> None:
    row = CELLS.to_dict()
    assert (row["value"], row["unit"], row["source"]) == (100_000_000, "cells", str(ESSAY))
    assert row["urls"] == list(ESSAY.urls)
    assert all(url.startswith("http") for url in row["urls"])
    big = Quantity("brain", 10**21 + 1, "FLOP/s", ESSAY)
    assert big.to_dict()["value"] == 1_000_000_000_000_000_000_001


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": " "}, "expected both"),
        ({"unit": ""}, "expected both"),
        *(({"value": value}, "finite") for value in (math.nan, math.inf, True, "1e8")),
    ],
)
def test_what_is_no_quantity_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Quantity(**{"name": "a", "value": 1, "unit": "1", "source": ESSAY, **change})


@pytest.mark.parametrize(("value", "shown", "trimmed"), [
    (1_075 * 10**18, "1.075e21", "1.075e21"), (10**21, "1.000e21", "1e21"),
    (26_250, "26,250", "26,250"), (2.4, "2.4", "2.4"), (0.16, "0.16", "0.16"),
    (2e-4, "2.000e-4", "2e-4"), (0, "0", "0"),
])  # fmt: skip
def test_numbers_are_shown_short(value: float, shown: str, trimmed: str) -> None:
    assert scientific(value) == shown
    assert scientific(value, trim=True) == trimmed


# --- formulas


@pytest.fixture
def sheet() -> Worksheet:
    numbers = {"a": 6, "b.c": 4, "x": 2.5}
    return Worksheet(Quantity(name, value, "1", ESSAY) for name, value in numbers.items())


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("`a` x `b.c`", 24), ("`a` / `b.c`", 1.5), ("(`a` - `b.c`) x 10^21 + 1", 2 * 10**21 + 1),
        ("2^-10", 2**-10), ("log2(`b.c`) + ln(1)", 2.0), ("-`x` x `x`", -6.25), ("0.5 x 4", 2.0),
    ],
)  # fmt: skip
def test_a_formula_is_evaluated_exactly(sheet: Worksheet, formula: str, value: float) -> None:
    result = sheet.evaluate(formula)
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("`d` + 1", "names 'd', which is not defined above it"),
        *(
            (text, "is not part of a formula")
            for text in ("a + 1", "`a` // 2", "exp(1)", "`a`.real")
        ),
        ("`a` +", "expected `names`, numbers"),
        ("1 / (`b.c` - 4)", "division by zero"),
    ],
)
def test_anything_else_is_no_formula(sheet: Worksheet, formula: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sheet.evaluate(formula)


def test_a_formula_is_the_source_of_its_result(sheet: Worksheet) -> None:
    product = sheet.derive("product", "1", "`a` x `b.c`", note="by hand")
    assert str(product.source) == "derived: a x b.c; by hand"
    assert sheet["product"] is product
    with pytest.raises(ValueError, match="'product' is defined twice"):
        sheet.derive("product", "1", "`a`")
    text = "{`a`} of {`a` / `b.c`:.2f}, {`a` x 10^20:6} and {log2(`b.c`):.0%}"
    assert sheet.fill(text) == "6 of 1.50, 6e20 and 200%"


def test_a_section_shows_and_writes_the_same_rows() -> None:
    notes = Notes()
    columns = (
        Column("who", "name", wrap=False),
        number("cells", "cells"),
        Column("", lambda row: notes.mark(row["cells"].source.brief)),
    )
    rows = [{"name": "Purkinje", "cells": CELLS}, {"name": "again", "cells": CELLS}]
    section = Section("title", rows, columns, "a caption", notes=notes)
    text = printed(section, 60)
    assert text.count("1e8  [1]") == 2
    assert text.count("Dettmers 2015, 'Putting it all together'") == 1
    assert section.to_list() == [row | {"cells": CELLS.to_dict()} for row in rows]
    assert Section("", (CELLS,), (), keys=("unit",)).to_list() == [{"unit": "cells"}]
