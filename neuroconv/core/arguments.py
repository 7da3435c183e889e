"""Arguments held to their annotations: the signature of a constructor is its specification."""

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from inspect import Parameter, signature
from itertools import chain, repeat
from numbers import Integral, Real
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import numpy as np

from neuroconv.core.checks import did_you_mean, expected_one_of

_Target = TypeVar("_Target", bound=Callable[..., Any])
_Fitter = Callable[[Any], Any]


class Rule(NamedTuple):
    """What a type leaves open, as metadata: `Annotated[int, Rule("above 4", lambda n: n > 4)]`.

    Attributes:
        words: follow the type in messages, as in "expected an integer above 4".
        holds: whether a value of the type obeys.
    """

    words: str
    holds: Callable[[Any], object] = lambda _: True

    def __repr__(self) -> str:  # which help() shows
        return self.words


_INT64 = Rule("and below 2**63", lambda value: value < 2**63)
Size = Annotated[int, Rule("of at least 1", lambda value: value >= 1), _INT64]
Count = Annotated[int, Rule("of at least 0", lambda value: value >= 0), _INT64]
Depth = Annotated[int, Rule("from 1 to 10,000", lambda value: 1 <= value <= 10_000)]
Seed = Annotated[int, Rule("from 0 to 2**64 - 1", lambda value: 0 <= value < 2**64)]
Positive = Annotated[float, Rule("above 0", lambda value: value > 0)]
NonNegative = Annotated[float, Rule("of at least 0", lambda value: value >= 0)]
Share = Annotated[float, Rule("from 0 to 1", lambda value: 0 <= value <= 1)]
Sizes = Annotated[Sequence[Size], Rule("(not empty)", lambda values: len(values) > 0)]
ImageShape = Annotated[tuple[Size, Size, Size], Rule("for (channels, height, width)")]

_LARGEST = (2 - 2**-23) * 2.0**127  # of float32
_MISFIT = object()
_UNIONS = (Union, types.UnionType)
_WORDS: Mapping[Any, str] = {
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
    str: "a string",
    Mapping: "a table",
    types.NoneType: "None",
    Any: "",  # rules say it all
    Callable: "a function",
}
_DATA = {*_WORDS, *_UNIONS, Annotated, Literal, tuple, Sequence} - {Callable, Mapping}


def checked(target: _Target) -> _Target:
    """Holds the arguments of a function, or of a class's constructor, to their annotations.

    An `int` is no bool; a `float` is finite, in float32 too, and may be an int. Numbers of NumPy
    become Python's, and sequences become tuples.

    Raises:
        ValueError: at a call, an argument that does not fit an annotation of numbers, texts and
            sequences of them.
        TypeError: at a call, one that does not fit an annotation of other objects or of tables, or
            an unknown keyword.
    """
    if isinstance(target, type):
        target.__init__ = checked(target.__init__)  # type: ignore[misc]
        return target
    parameters = signature(target).parameters
    kinds = {parameter.kind: name for name, parameter in parameters.items()}
    names = [name for name, p in parameters.items() if p.kind <= p.POSITIONAL_OR_KEYWORD]
    others = kinds.get(Parameter.VAR_POSITIONAL, "")
    fitters: dict[str, _Fitter] = {}

    @wraps(target)
    def call(*args: Any, **keywords: Any) -> Any:
        if not fitters:  # at the first call, when all classes exist
            try:
                hints = typing.get_type_hints(target, include_extras=True)
            except NameError:  # a builder of the caller's, with imports for type checkers
                hints = {}
            fitters.update({name: _raising(name, hint) for name, hint in hints.items()})
        if Parameter.VAR_KEYWORD not in kinds:
            for name in keywords.keys() - parameters:
                nearest = expected_one_of(name, [key for key in parameters if key != "self"])
                title = target.__qualname__.removesuffix(".__init__")
                raise TypeError(f"{title} has no keyword {name!r}; {nearest}")
        positional = zip(chain(names, repeat(others)), args, strict=False)
        return target(
            *(fitters.get(name, _anything)(value) for name, value in positional),
            **{name: fitters.get(name, _anything)(value) for name, value in keywords.items()},
        )

    return call  # type: ignore[return-value]


@contextmanager
def argument(name: str) -> Iterator[None]:
    """Puts the name of an argument before the messages of errors that its value raises."""
    try:
        yield
    except (TypeError, ValueError) as error:
        error.args = (f"{name}: {error}",)
        raise


@contextmanager
def buildable(name: str, keywords: Mapping[str, Any]) -> Iterator[None]:
    """Raises a ValueError with the keywords of many digits where torch has no memory for them."""
    try:
        yield
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        if not re.search("[Oo]verflow|allocate|[Oo]ut ?[Oo]f ?[Mm]emory|MemoryError", repr(error)):
            raise
        large = [f"{key}={v!r}" for key, v in keywords.items() if re.search(r"\d{7}", repr(v))]
        reason = f"{', '.join(large)} ({str(error).partition(chr(10))[0]})"
        raise ValueError(
            f"{name} is too large; expected sizes that fit into memory: {reason}"
        ) from error


def as_argument(name: str, value: Any, hint: Any) -> Any:
    """Returns an argument as its annotation has it; raises as `checked` does."""
    return _raising(name, hint)(value)


def _raising(name: str, hint: Any) -> _Fitter:
    """Returns what `_fitter` does, with an error for an argument that does not fit."""
    fitter = _fitter(hint)

    def fitted(value: Any) -> Any:
        if (result := fitter(value)) is not _MISFIT:
            return result
        text = repr(value)
        text = text if len(text) <= 200 else f"{text[:200]}..."
        kind = ValueError if _is_data(hint) else TypeError
        raise kind(f"{name}={text}; {expected(hint, value)}")

    return fitted


def fits(value: Any, hint: Any) -> bool:
    """Returns whether a value is what an annotation, its rules included, says."""
    return _fitter(hint)(value) is not _MISFIT


def _fitter(hint: Any) -> _Fitter:
    """Returns a function that returns a value as an annotation has it, or `_MISFIT`."""
    kind, options = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        types_of = [(type(option), option) for option in options]
        return lambda value: value if (type(value), value) in types_of else _MISFIT
    if kind is Annotated:
        fitter, rules = _fitter(options[0]), [r for r in options[1:] if isinstance(r, Rule)]
        return lambda value: (
            fit
            if (fit := fitter(value)) is not _MISFIT and all(rule.holds(fit) for rule in rules)
            else _MISFIT
        )
    if kind in _FITTERS:
        return _FITTERS[kind]
    if kind not in (*_UNIONS, tuple, Sequence, Mapping):
        if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
            return _anything  # what is no class, as a TypeVar
        return lambda value: value if isinstance(value, kind) else _MISFIT
    fitters = [_fitter(option) for option in options if option is not ...]
    if kind in _UNIONS:
        return lambda value: next(
            (fit for fitter in fitters if (fit := fitter(value)) is not _MISFIT), _MISFIT
        )
    if kind in (tuple, Sequence):
        return lambda value: _items(fitters, value, _is_endless(options))
    keys, values = fitters  # of a Mapping
    return lambda value: (
        value
        if isinstance(value, Mapping)
        and all(keys(k) is not _MISFIT is not values(v) for k, v in value.items())
        else _MISFIT
    )


def _items(fitters: list[_Fitter], value: Any, endless: bool) -> Any:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return _MISFIT
    fitters = fitters * len(value) if endless else fitters
    items = tuple(fitter(item) for fitter, item in zip(fitters, value, strict=False))
    misfit = len(value) != len(fitters) or any(item is _MISFIT for item in items)
    return _MISFIT if misfit else items


def _anything(value: Any) -> Any:
    return value


def _number(value: Any) -> Any:
    if not isinstance(value, Real) or type(value) is bool:
        return _MISFIT
    number: Any = int(value) if isinstance(value, Integral) else value
    if not -_LARGEST <= number <= _LARGEST:
        return _MISFIT
    return number if type(number) is int and -(2**63) <= number < 2**63 else float(number)


_FITTERS: Mapping[Any, _Fitter] = {
    bool: lambda value: bool(value) if isinstance(value, bool | np.bool_) else _MISFIT,
    int: lambda value: (
        int(value) if isinstance(value, Integral) and type(value) is not bool else _MISFIT
    ),
    float: _number,
    Any: _anything,
    Callable: lambda value: value if callable(value) else _MISFIT,
}


def _is_endless(options: tuple[Any, ...]) -> bool:
    """Returns whether a tuple[X, ...] or Sequence[X] has these options."""
    return len(options) == 1 or options[-1] is ...


def expected(hint: Any, value: Any = None) -> str:
    """Returns the end of a message: the nearest choice, if one is near, and what would fit."""
    near = did_you_mean(value, choices(hint)) if isinstance(value, str) else ""
    return f"{near}expected {_words(hint)}"


def choices(hint: Any) -> list[str]:
    """Returns the texts that an annotation offers, of all its Literals."""
    if get_origin(hint) is Literal:
        return [option for option in get_args(hint) if isinstance(option, str)]
    return [text for option in get_args(hint) for text in choices(option)]


def _words(hint: Any) -> str:
    kind, options = get_origin(hint) or hint, get_args(hint)
    if kind in _UNIONS:
        *words, last = map(_words, options)
        return f"{', '.join(words)} or {last}"
    if kind is Annotated:
        rules = [rule.words for rule in options[1:] if isinstance(rule, Rule)]
        return " ".join([_words(options[0]), *rules]).strip()
    if kind is Literal:
        return f"one of {', '.join(map(str, options))}"
    if kind in (tuple, Sequence):
        length = "values" if _is_endless(options) else f"{len(options)} values"
        return f"{length}, each {_words(options[0])}"
    if kind in _WORDS:
        return _WORDS[kind]
    name = getattr(kind, "__name__", str(kind))
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _is_data(hint: Any) -> bool:
    kind = get_origin(hint) or hint
    return (kind in _DATA or not isinstance(kind, type)) and all(map(_is_data, get_args(hint)))
