"""Inputs set by the user: from a TOML file, by NAME=VALUE, or from Python."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from neuroconv.brain.correlation import Correlation
from neuroconv.brain.defaults import default_inputs
from neuroconv.brain.inputs import Input, Inputs, UnknownInput
from neuroconv.references import Source

_KEYS = ("value", "low", "high", "distribution", "source")


def read_inputs(file: Path | None = None, assignments: Sequence[str] = ()) -> Inputs:
    """The default inputs, changed by a file, then by assignments, the last one last.

    Args:
        file: TOML with tables [inputs."purkinje.cells"] of `value`, or `low` and `high` (with or
            without `value` and `distribution`), and `source`, a text in which [key] cites a
            reference; and [[correlations]] of `between = ["rate_hz", "purkinje.cells"]`,
            `rank = -0.5` and `source`.
        assignments: "NAME=VALUE" fixes an input, "NAME=LOW..HIGH" gives it a range.

    Raises:
        ValueError: what cannot be read, with its place; see `Input` for what numbers must keep.
        OSError: a file that cannot be opened.
    """
    inputs = default_inputs() if file is None else _from_file(file)
    for text in assignments:
        place = f"--set {text}"
        name, given, number = text.partition("=")
        if not given or not name.strip():
            raise ValueError(f"{place}: expected NAME=VALUE or NAME=LOW..HIGH")
        low, between, high = number.partition("..")
        try:
            if between:
                numbers = {"low": _number(low), "high": _number(high)}
            else:
                numbers = {"value": _number(number)}
        except ValueError:
            raise ValueError(
                f"{place}: expected a number or LOW..HIGH, such as 1e8 or 15e6..30e6"
            ) from None
        inputs = _change(inputs, name.strip(), numbers, place, "")
    return inputs


def as_inputs(given: Inputs | Mapping[str, Any] | None) -> Inputs:
    """Inputs as Python gives them: None for the defaults, or {name: value or (low, high)}.

    Raises:
        ValueError: an unknown name, or numbers that `Input` refuses.
    """
    if isinstance(given, Inputs):
        return given
    inputs = default_inputs()
    for name, entry in (given or {}).items():
        if isinstance(entry, Input):
            if entry.name != name:
                raise ValueError(f"input {entry.name!r} is given as {name!r}; expected one name")
            inputs = inputs.with_input(entry)
            continue
        pair = isinstance(entry, tuple | list) and len(entry) == 2
        numbers = {"low": entry[0], "high": entry[1]} if pair else {"value": entry}
        inputs = _change(inputs, name, numbers, f"inputs[{name!r}]", "")
    return inputs


def _from_file(file: Path) -> Inputs:
    with file.open("rb") as stream:
        try:
            data = tomllib.load(stream)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file}: {error}") from None
    _check_keys(data, ("inputs", "correlations"), str(file))
    inputs = default_inputs()
    tables = data.get("inputs", {})
    if not isinstance(tables, dict):
        raise ValueError(f"{file}: inputs={tables!r}; expected tables such as [inputs.rate_hz]")
    for name, table in _flat(tables, inputs).items():
        place = f'{file}: [inputs."{name}"]'
        if not isinstance(table, dict):
            table = {"value": table}
        _known(inputs, name, place)  # an unknown name is told before its keys are looked at
        _check_keys(table, _KEYS, place)
        given = {key: table[key] for key in _KEYS[:4] if key in table}
        inputs = _change(inputs, name, given, place, table.get("source", ""))
    correlations = data.get("correlations", [])
    if not isinstance(correlations, list):
        raise ValueError(f"{file}: expected [[correlations]], in two pairs of brackets")
    return inputs.with_correlations(
        _correlation(each, f"{file}: [[correlations]] {i}")
        for i, each in enumerate(correlations, 1)
    )


def _flat(tables: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """[inputs.purkinje.cells] without its quotes is a table in a table, and means the same."""
    flat: dict[str, Any] = {}
    for name, table in tables.items():
        cell = name not in inputs and any(each.startswith(f"{name}.") for each in inputs)
        if cell and isinstance(table, dict):
            flat.update({f"{name}.{what}": each for what, each in table.items()})
        else:
            flat[name] = table
    return flat


def _correlation(table: Any, place: str) -> Correlation:
    if not isinstance(table, dict):
        raise ValueError(f"{place}: expected a table with between, rank and source")
    _check_keys(table, ("between", "rank", "source"), place)
    between, rank = table.get("between"), table.get("rank")
    named = isinstance(between, list) and all(isinstance(name, str) for name in between)
    if not named or isinstance(rank, bool) or not isinstance(rank, int | float):
        raise ValueError(
            f"{place}: between={between!r}, rank={rank!r}; "
            'expected between = ["rate_hz", "purkinje.cells"] and a number such as rank = -0.5'
        )
    assert between is not None
    names = " and ".join(f"`{name}`" for name in sorted(between))
    source = _user(f"the correlation of {names}", table.get("source", ""), place)
    return Correlation(tuple(between), rank, source)


def _change(inputs: Inputs, name: str, given: Any, place: str, words: Any) -> Inputs:
    present = _known(inputs, name, place)
    for key in ("value", "low", "high"):
        number = given.get(key)
        if key in given and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise ValueError(f"{place}: {key}={number!r}; expected a number")
    if ("low" in given) != ("high" in given):
        raise ValueError(f"{place}: one bound alone; expected low and high")
    source = _user(f"`{name}`", words, place)
    try:
        return inputs.with_input(present.changed(source, **given))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _known(inputs: Inputs, name: str, place: str) -> Input:
    try:
        return inputs[name]
    except UnknownInput as error:
        raise UnknownInput(f"{place}: {error}") from None


def _user(what: str, words: Any, place: str) -> Source:
    if not isinstance(words, str):
        raise ValueError(f"{place}: source={words!r}; expected a text")
    try:
        return Source("user", f"set for {what}", words)
    except ValueError as error:
        raise ValueError(f"{place}: source: {error}; or write it without brackets") from None


def _check_keys(table: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"{place}: unknown key {key!r}; {hint}expected one of {', '.join(known)}"
            )


def _number(text: str) -> float:
    """1e8 and 100_000_000 as the integer that they are."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(text) from None
    if not number.is_finite() or abs(number.adjusted()) > 300:
        raise ValueError(text)
    return int(number) if number == number.to_integral_value() else float(number)
