"""Choices and checks of constructor arguments that layers share."""

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, Literal, get_args

Norm = Literal["none", "dendrites", "soma", "both"]
NORMS: tuple[str, ...] = get_args(Norm)


def check_positive(**sizes: Any) -> None:
    """Raises ValueError for the first size, or sequence of sizes, that is not positive integers."""
    for name, size in sizes.items():
        values = size if isinstance(size, Sequence) and not isinstance(size, str) else (size,)
        if not values or any(type(v) is not int or v < 1 for v in values):  # True is no size
            raise ValueError(f"{name}={size!r}; expected positive integers")


def check_number(name: str, value: Any, low: float = 0, *, inclusive: bool = False) -> None:
    """Raises ValueError unless the value is a finite number above `low`, or `low` if inclusive."""
    number = isinstance(value, Real) and type(value) is not bool and value < math.inf
    if not number or value < low or (value == low and not inclusive):
        expected = f"of at least {low}" if inclusive else f"above {low}"
        raise ValueError(f"{name}={value!r}; expected a finite number {expected}")


def check_sizes(name: str, sizes: Any, axes: Sequence[str]) -> tuple[int, ...]:
    """The sizes as a tuple, one positive integer for each axis; else a ValueError."""
    if not isinstance(sizes, Sequence) or len(sizes) != len(axes):
        raise ValueError(f"{name}={sizes!r}; expected ({', '.join(axes)})")
    check_positive(**{name: sizes})
    return tuple(sizes)


def check_room(synapses: int, sheet_shape: tuple[int, int]) -> None:
    """Raises ValueError unless so many synapses find a place on a sheet of (sites, dendrites)."""
    places = sheet_shape[0] * sheet_shape[1]
    if type(synapses) is not int or not 1 <= synapses <= places:
        raise ValueError(
            f"synapses={synapses}; expected 1 to {places}, the places of a sheet of "
            f"{sheet_shape[0]} sites x {sheet_shape[1]} dendrites"
        )


def check_task(image_shape: Any, num_classes: int, time_steps: int) -> tuple[int, int, int]:
    """Checks what every network is built for, and returns (channels, height, width)."""
    channels, height, width = check_sizes(
        "image_shape", image_shape, ("channels", "height", "width")
    )
    check_positive(num_classes=num_classes, time_steps=time_steps)
    return channels, height, width


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError for a value that is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; expected one of {', '.join(choices)}")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns "did you mean 'NEAREST'? ", or nothing where no choice is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def pair(name: str, value: Any) -> tuple[int, int]:
    """An int for both axes, or two ints.

    Raises:
        ValueError: neither of the two.
    """
    values = (value, value) if type(value) is int else value
    if (
        not isinstance(values, Sequence)
        or len(values) != 2
        or any(type(each) is not int for each in values)
    ):
        raise ValueError(f"{name}={value!r}; expected an int or a pair of ints")
    return values[0], values[1]
