"""Tables of a configuration file: checked against dataclasses; [tune] and [compare]."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self, get_type_hints

from neuroconv.core.arguments import NonNegative, Positive, Rule, Seed, Size, expected, fits
from neuroconv.core.checks import expected_one_of
from neuroconv.core.text import printable


class ConfigError(ValueError):
    """A mistake in a configuration file, an override or a setting."""


Text = Annotated[str, Rule("without control characters", lambda text: printable(text) == text)]
Seeds = Annotated[
    tuple[Seed, ...],
    Rule("(one or more, all different)", lambda seeds: 0 < len(seeds) == len({*seeds})),
]


def _rises(values: Sequence[float]) -> bool:
    return len(values) > 1 and all(low < high for low, high in pairwise(values))


Rates = Annotated[tuple[Positive, ...], Rule("(two or more, rising)", _rises)]
Decays = Annotated[
    tuple[NonNegative, ...],
    Rule("(one or more, all different)", lambda values: 0 < len(values) == len({*values})),
]
Margin = Annotated[float, Rule("above 0 and below 1", lambda value: 0 < value < 1)]


@dataclass(frozen=True)
class Table:
    """A table whose fields are held to their annotations and ranges."""

    header: ClassVar[str]

    @classmethod
    def read(cls, table: dict[str, Any]) -> Self:
        settings, types = {entry.name: entry for entry in fields(cls)}, hints(cls)
        for key, value in table.items():
            if key not in settings:
                raise ConfigError(
                    f"{cls.header} {key} = {value!r}: unknown key; {expected_one_of(key, settings)}"
                )
        for key, entry in settings.items():
            if entry.default is MISSING and key not in table:
                raise ConfigError(f"{cls.header} has no {key}: {expected(types[key])}")
        return cls(**table)

    def __post_init__(self) -> None:
        plain = get_type_hints(type(self))
        for name, hint in hints(type(self)).items():
            setting = getattr(self, name)
            if not fits(setting, hint):
                raise ConfigError(f"{self.header} {name} = {setting!r}: {expected(hint, setting)}")
            value = float(setting) if plain[name] is float else as_tuples(setting)
            object.__setattr__(self, name, value)  # the way into a frozen dataclass


def hints(table: type[Table]) -> dict[str, Any]:
    """Returns the annotations of a table's settings, rules included."""
    types = get_type_hints(table, include_extras=True)
    return {entry.name: types[entry.name] for entry in fields(table)}


@dataclass(frozen=True)
class TuneConfig(Table):
    """The [tune] table: the trials that choose each model's learning rate and weight decay.

    Attributes:
        learning_rate: all are tried, with the first weight decay.
        weight_decay: the others are tried at the best learning rate.
        seeds: of the trials; those of [train] must be others.
        epochs, train_limit: the length of a trial, and its number of training images.
        shared: search for the first model alone, and give its settings to all, as in an ablation.
    """

    header = "[tune]"
    learning_rate: Rates
    epochs: Size
    weight_decay: Decays = (1e-2,)
    seeds: Seeds = (1000,)
    train_limit: Size | None = None
    shared: bool = False


@dataclass(frozen=True)
class CompareConfig(Table):
    """The [compare] table.

    Attributes:
        margin: share of the test images by which accuracies that count as equal may differ.
        earlier_use: what trials before this comparison have seen of the test set.
    """

    header = "[compare]"
    margin: Margin | None = None
    earlier_use: Text | None = None


def as_tuples(value: Any) -> Any:
    """Returns nested tables and arrays with each array as a tuple."""
    if isinstance(value, dict):
        return {key: as_tuples(entry) for key, entry in value.items()}
    return tuple(as_tuples(entry) for entry in value) if isinstance(value, list) else value
