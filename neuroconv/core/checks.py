"""Choices and checks of constructor arguments that layers share."""

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, Literal, get_args

Norm = Literal["none", "dendrites", "soma", "both"]
NORMS: tuple[str, ...] = get_args(Norm)
NormOver = Literal["window", "step"]
NORM_OVER: tuple[str, ...] = get_args(NormOver)


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
    """Returns the sizes as a tuple: one positive integer for each axis, else a ValueError."""
    if not isinstance(sizes, Sequence) or len(sizes) != len(axes):
        raise ValueError(f"{name}={sizes!r}; expected ({', '.join(axes)})")
    check_positive(**{name: sizes})
    return tuple(sizes)


def check_room(synapses: int, sheet_shape: tuple[int, int]) -> None:
    """Raises ValueError unless the synapses fit on a sheet of (sites, dendrites)."""
    sites, dendrites = sheet_shape
    if type(synapses) is not int or not 1 <= synapses <= sites * dendrites:
        sheet = f"{sites * dendrites}, the positions of {sites} sites x {dendrites} dendrites"
        raise ValueError(f"synapses={synapses}; expected 1 to {sheet}")


def check_task(image_shape: Any, num_classes: int, time_steps: int) -> tuple[int, int, int]:
    """Checks the arguments that every network has, and returns (channels, height, width)."""
    axes = ("channels", "height", "width")
    channels, height, width = check_sizes("image_shape", image_shape, axes)
    check_positive(num_classes=num_classes, time_steps=time_steps)
    return channels, height, width


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError for a value that is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; {expected_one_of(value, choices)}")


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """Returns "did you mean 'NEAREST'? ", or nothing where no choice is near."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def expected_one_of(word: object, choices: Iterable[str]) -> str:
    """Returns the end of a message: the nearest choice, if one is near, and all of them."""
    choices = list(choices)
    return f"{did_you_mean(str(word), choices)}expected one of {', '.join(choices) or 'none'}"


def pair(name: str, value: Any) -> tuple[int, int]:
    """Returns two ints, given them or one for both axes; else raises a ValueError."""
    values = (value, value) if type(value) is int else value
    if not isinstance(values, Sequence) or [type(size) for size in values] != [int, int]:
        raise ValueError(f"{name}={value!r}; expected an int or a pair of ints")
    return values[0], values[1]
