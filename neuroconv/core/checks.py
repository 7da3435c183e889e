"""Choices and checks of constructor arguments that layers share."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

Norm = Literal["none", "dendrites", "soma", "both"]
NormOver = Literal["window", "step"]


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError for a value that is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; {expected_one_of(value, choices)}")


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """Returns "did you mean 'NEAREST'? ", or nothing where no choice is near."""
    begun = [choice for choice in choices if choice.startswith(word)] if len(word) > 3 else []
    near = begun or difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def expected_one_of(word: object, choices: Iterable[str]) -> str:
    """Returns the end of a message: the nearest choice, if one is near, and all of them."""
    choices = list(choices)
    return f"{did_you_mean(str(word), choices)}expected one of {', '.join(choices) or 'none'}"


def out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that there is no memory left, on a GPU or on the CPU."""
    words = "out of memory", "not enough memory", "can't allocate memory"
    return isinstance(error, MemoryError) or any(text in str(error) for text in words)


def check_floats(name: str, tensor: Any) -> None:
    if not tensor.is_floating_point():
        raise ValueError(f"{name} is {tensor.dtype}; expected floating point: {name}.float()")


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Returns two ints, given them or one for both axes."""
    return (value, value) if isinstance(value, int) else value
