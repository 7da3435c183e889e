"""The error of unusable data, and the check of a name among its choices."""

from collections.abc import Sequence

from neuroconv.core.checks import did_you_mean


class DataError(ValueError):
    """Data that is missing, unreadable or inconsistent; the message names the path and the fix."""


def check_choice(kind: str, value: str, choices: Sequence[str]) -> None:
    """Raises a ValueError that names the nearest choice and lists all of them."""
    if value not in choices:
        hint = did_you_mean(str(value), choices)
        raise ValueError(f"unknown {kind} {value!r}: {hint}expected one of: {', '.join(choices)}")
