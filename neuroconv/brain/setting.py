"""Inputs of an estimate: the defaults, and changes by a file, NAME=VALUE or Python."""

import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from numbers import Real
from pathlib import Path
from typing import Any

from neuroconv.brain.evidence.facts import facts
from neuroconv.brain.inputs import Correlation, Input, Inputs
from neuroconv.brain.quantity import Quantity, whole
from neuroconv.core.checks import expected_one_of
from neuroconv.references import Source

_DEFAULTS = Path(__file__).with_name("inputs.toml")
_NUMBERS = ("value", "low", "high")


def default_inputs() -> Inputs:
    """Returns the essay's inputs, in ranges that span the literature; a new object each time."""
    tables = tomllib.loads(_DEFAULTS.read_text(encoding="utf-8"))
    return Inputs(_default(name, **table) for name, table in tables.items())


def _default(name: str, unit: str, distribution: Any = "fixed", **numbers: Any) -> Input:
    quantities = {}
    for part, entry in numbers.items():
        if isinstance(entry, str):
            value, source = facts()[entry].value, facts()[entry].source
        else:
            value, source = facts().evaluate(entry["value"]), Source.parse(entry["source"])
        title = name if part == "value" else f"{name}.{part}"
        quantities[part] = Quantity(title, whole(value), unit, source)
    return Input(quantity=quantities.pop("value"), distribution=distribution, **quantities)


def read_inputs(file: Path | None = None, assignments: Sequence[str] = ()) -> Inputs:
    """Returns the default inputs, changed by a file, then by assignments in their order.

    Args:
        file: TOML with tables [inputs."purkinje.cells"] of `value`, or `low` and `high` (with or
            without `value` and `distribution`), and `source`, a text in which [key] cites a
            reference; and [[correlations]] of `between = ["rate_hz", "purkinje.cells"]`,
            `rank = -0.5` and `source`.
        assignments: "NAME=VALUE" fixes an input, "NAME=LOW..HIGH" gives it a range.

    Raises:
        ValueError: a file or an assignment that cannot be read, or numbers that `Input` refuses.
    """
    inputs = default_inputs() if file is None else _from_file(file)
    for text in assignments:
        position = f"--set {text}"
        name, equals, number = text.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{position}: expected NAME=VALUE or NAME=LOW..HIGH")
        low, dots, high = number.partition("..")
        parts = {"low": low, "high": high} if dots else {"value": number}
        try:
            numbers = {key: _number(part) for key, part in parts.items()}
        except ValueError:
            raise ValueError(
                f"{position}: expected a number or LOW..HIGH, such as 1e8 or 15e6..30e6"
            ) from None
        inputs = _change(inputs, name.strip(), numbers, position)
    return inputs


def as_inputs(given: Inputs | Mapping[str, Any] | None) -> Inputs:
    """Returns the inputs of None (the defaults) or of {name: value or (low, high)}."""
    if isinstance(given, Inputs):
        return given
    inputs, entries = default_inputs(), dict[str, Any](given or {})
    for name, entry in entries.items():
        pair = isinstance(entry, tuple | list) and len(entry) == 2
        numbers = {"low": entry[0], "high": entry[1]} if pair else {"value": entry}
        inputs = _change(inputs, name, numbers, f"inputs[{name!r}]")
    return inputs


def _from_file(file: Path) -> Inputs:
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: {error}") from None
    _check_keys(data, ("inputs", "correlations"), str(file))
    tables, correlations = data.get("inputs", {}), data.get("correlations", [])
    if not isinstance(tables, dict):
        raise ValueError(f"{file}: inputs={tables!r}; expected tables such as [inputs.rate_hz]")
    if not isinstance(correlations, list) or not all(isinstance(row, dict) for row in correlations):
        raise ValueError(f"{file}: expected [[correlations]], in two pairs of brackets")
    inputs = default_inputs()
    cells = {name.partition(".")[0] for name in inputs if "." in name}
    for name, table in tables.items():
        # [inputs.purkinje.cells] is [inputs."purkinje.cells"] without its quotes.
        nested = name in cells and isinstance(table, dict)
        entries = {f"{name}.{key}": entry for key, entry in table.items()} if nested else {}
        for title, entry in (entries or {name: table}).items():
            numbers = entry if isinstance(entry, dict) else {"value": entry}
            inputs = _change(inputs, title, numbers, f'{file}: [inputs."{title}"]')
    return inputs.with_correlations(
        _correlation(table, f"{file}: [[correlations]] {number}")
        for number, table in enumerate(correlations, 1)
    )


def _correlation(table: Any, position: str) -> Correlation:
    _check_keys(table, ("between", "rank", "source"), position)
    between: Any = table.get("between")
    rank: Any = table.get("rank")
    is_list = isinstance(between, list) and all(isinstance(name, str) for name in between)
    if not is_list or not _is_number(rank):
        raise ValueError(
            f"{position}: between={between!r}, rank={rank!r}; "
            'expected between = ["rate_hz", "purkinje.cells"] and a number such as rank = -0.5'
        )
    names = " and ".join(f"`{name}`" for name in sorted(between))
    source = _user(f"the correlation of {names}", table, position)
    return Correlation(tuple(between), rank, source)


def _change(inputs: Inputs, name: str, table: Mapping[str, Any], position: str) -> Inputs:
    _check_keys(table, (*_NUMBERS, "distribution", "source"), position)
    for key in _NUMBERS:
        if key in table and not _is_number(table[key]):
            raise ValueError(f"{position}: {key}={table[key]!r}; expected a number")
    if ("low" in table) != ("high" in table):
        raise ValueError(f"{position}: one bound alone; expected low and high")
    source = _user(f"`{name}`", table, position)
    numbers: Any = {key: entry for key, entry in table.items() if key != "source"}
    numbers |= {key: whole(table[key]) for key in _NUMBERS if key in table}
    try:
        return inputs.with_input(inputs[name].changed(source, **numbers))
    except ValueError as error:
        raise type(error)(f"{position}: {error}") from None


def _user(subject: str, table: Mapping[str, Any], position: str) -> Source:
    note = table.get("source", "")
    if not isinstance(note, str):
        raise ValueError(f"{position}: source={note!r}; expected a text")
    try:
        return Source("user", f"set for {subject}", note)
    except ValueError as error:
        raise ValueError(f"{position}: source: {error}; or write it without brackets") from None


def _check_keys(table: Mapping[str, Any], keys: Sequence[str], position: str) -> None:
    for key in table:
        if key not in keys:
            raise ValueError(f"{position}: unknown key {key!r}; {expected_one_of(key, keys)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _number(text: str) -> float:
    """Returns a number; 1e8 and 100_000_000 are the same integer."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(text) from None
    if not number.is_finite() or abs(number.adjusted()) > 300:
        raise ValueError(text)
    return int(number) if number == number.to_integral_value() else float(number)
