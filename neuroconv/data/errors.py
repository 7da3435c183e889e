"""Errors of data: an unknown name, or data that cannot be used."""

import difflib
from collections.abc import Sequence


class DataError(ValueError):
    """Data that is missing, unreadable or inconsistent. The message names the path and the fix."""


def check_choice(kind: str, value: str, choices: Sequence[str]) -> None:
    """Raises a ValueError with the nearest names and all of them if `value` is not one of them."""
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(f"unknown {kind} {value!r}: {hint}expected one of: {', '.join(choices)}")
