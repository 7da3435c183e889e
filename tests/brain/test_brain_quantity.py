"""A number of the brain report is never without its unit and its source."""

from typing import Any

import pytest

from neuroconv.brain import Quantity, bare_numbers
from neuroconv.brain.quantity import scientific
from neuroconv.references import Source

ESSAY = Source("dettmers2015", "'Putting it all together'", "about 100 million")
CELLS = Quantity(name="purkinje.cells", value=10**8, unit="cells", source=ESSAY)


def test_plain_data_keep_everything() -> None:
    row = CELLS.to_dict()
    assert row["value"] == 100_000_000
    assert row["unit"] == "cells"
    assert row["source"] == str(ESSAY)
    assert row["urls"] == list(ESSAY.urls)
    assert all(url.startswith("http") for url in row["urls"])


def test_an_integer_beyond_64_bits_stays_exact() -> None:
    big = Quantity(name="brain", value=10**21 + 1, unit="FLOP/s", source=ESSAY)
    assert big.to_dict()["value"] == 1_000_000_000_000_000_000_001


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": " "}, "expected both"),
        ({"unit": ""}, "expected both"),
        ({"value": float("nan")}, "finite"),
        ({"value": float("inf")}, "finite"),
        ({"value": True}, "expected a number"),
        ({"value": "1e8"}, "expected a number"),
    ],
)
def test_what_is_no_quantity_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Quantity(**{"name": "a", "value": 1, "unit": "1", "source": ESSAY, **change})


def test_dressed_numbers_pass() -> None:
    assert bare_numbers({"rows": [CELLS.to_dict(), {"x": None, "y": True, "z": "3"}]}) == []
    assert bare_numbers({"year": 2015, "latency_s": 0.1, "source": "measured here"}) == []


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"a": {"b": [1.5]}}, "a.b[0]"),
        ({"year": 2015}, "year"),
        ({"year": 2015, "source": " "}, "year"),
        ({"count": 3, "source": "here"}, "count"),
        ([{**CELLS.to_dict(), "unit": ""}], "[0].value"),
        ([{**CELLS.to_dict(), "source": None}], "[0].value"),
        ({**CELLS.to_dict(), "other": 1}, "other"),
    ],
)
def test_a_number_without_unit_or_source_is_found(data: Any, place: str) -> None:
    (found,) = bare_numbers(data)
    assert found.startswith(f"{place} = ")


@pytest.mark.parametrize(
    ("value", "shown", "trimmed"),
    [
        (1_075 * 10**18, "1.075e21", "1.075e21"),
        (10**21, "1.000e21", "1e21"),
        (100_000, "100,000", "100,000"),
        (26_250, "26,250", "26,250"),
        (200, "200", "200"),
        (2.4, "2.4", "2.4"),
        (0.16, "0.16", "0.16"),
        (2e-4, "2.000e-4", "2e-4"),
        (0, "0", "0"),
    ],
)
def test_numbers_are_shown_short(value: float, shown: str, trimmed: str) -> None:
    assert scientific(value) == shown
    assert scientific(value, trim=True) == trimmed
