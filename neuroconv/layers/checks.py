"""Choices and checks of constructor arguments that layers share."""

from collections.abc import Sequence
from typing import Literal, get_args

Norm = Literal["none", "dendrites", "soma", "both"]
NORMS: tuple[str, ...] = get_args(Norm)


def check_positive(**sizes: int | Sequence[int]) -> None:
    """Raises ValueError for the first size that is not a positive integer, quoting its name."""
    for name, size in sizes.items():
        values = (size,) if isinstance(size, int) else tuple(size)
        if not values or any(
            not isinstance(v, int) or isinstance(v, bool) or v < 1 for v in values
        ):
            raise ValueError(f"{name}={size!r}; expected positive integers")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError for a value that is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; expected one of {', '.join(choices)}")


def pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """An int for both axes, or two ints.

    Raises:
        ValueError: neither of the two.
    """
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2:
        raise ValueError(f"{name}={value!r}; expected an int or a pair of ints")
    return values[0], values[1]
