"""Configuration files: TOML tables, checked against dataclasses, with overrides.

    [model]        the keywords of `create_model`, `name` among them
    [data]         DataConfig
    [train]        TrainConfig
    [[opponents]]  further models to compare with, each a table like [model]

Every mistake is a ConfigError that names the file, the key, its value and the expected form.
"""

import difflib
import math
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from neuroconv.training.checkpoint import write_text

SECTIONS = ("model", "data", "train", "opponents")


class ConfigError(ValueError):
    """A mistake in a configuration file, an override or a setting."""


def _checked(holds: Callable[[Any], bool], form: str, default: Any = MISSING) -> Any:
    """A dataclass field whose value, if given, must satisfy `holds`; `form` says it in words."""
    return field(default=default, metadata={"holds": holds, "form": form})


@dataclass(frozen=True)
class DataConfig:
    """The [data] table: the keywords of `load_data`, and the number of loading processes.

    `workers` decode and augment; images that lie in memory at their final size need none.
    """

    name: str
    root: str | None = None
    classes: tuple[str, ...] | None = _checked(lambda v: len(v) > 1, "two or more", None)
    image_size: int | tuple[int, int] | None = _checked(
        lambda v: min(v if isinstance(v, tuple) else (v,)) > 0, "at least 1", None
    )
    encoding: str = "saccade"
    time_steps: int = _checked(lambda v: v >= 1, "at least 1", 5)
    augment: str = "none"
    train_limit: int | None = _checked(lambda v: v >= 1, "at least 1", None)
    cache: bool | Literal["auto"] = "auto"
    workers: int = _checked(lambda v: v >= 0, "at least 0", 0)

    def __post_init__(self) -> None:
        _check_fields(self, "data")


@dataclass(frozen=True)
class TrainConfig:
    """The [train] table.

    Attributes:
        epochs: passes over the training data.
        learning_rate: its peak, reached after the warm-up.
        batch_size: images in a step, of all processes together.
        accumulate: parts that a step's images are run in, one after the other, to save memory.
            The gradient is that of the whole batch; batch norms see one part at a time.
        optimizer: "adamw", or "sgd" with Nesterov momentum.
        weight_decay: for parameters of two or more axes, a table of biases included.
        momentum: of SGD; AdamW does not read it.
        warmup: share of all steps over which the learning rate rises.
        clip: largest norm of the gradient; `inf` for no clipping.
        label_smoothing: of the training loss; validation and test use the plain cross entropy.
        precision: of the forward pass: "float32", full float32 on CUDA too; "tf32", CUDA's 10-bit
            products in convolutions and matrix products; "bfloat16"; or "auto", which is bfloat16
            on CUDA and float32 elsewhere.
        compile: run the model through torch.compile, which takes minutes to start and a compiler.
            Weights and checkpoints are those of the plain model.
        channels_last: keep images and 4-D weights with their channels last in memory.
        device: "auto" (CUDA if there is one, else the CPU) or a name that torch knows.
        seeds: one run for each.
        output: the folder in which run folders are made.
        max_steps: stop there; the learning rate still follows the schedule of all epochs.
    """

    epochs: int = _checked(lambda v: v >= 1, "at least 1")
    learning_rate: float = _checked(lambda v: 0 < v < math.inf, "above 0")
    batch_size: int = _checked(lambda v: v >= 1, "at least 1", 128)
    accumulate: int = _checked(lambda v: v >= 1, "at least 1", 1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = _checked(lambda v: 0 <= v < math.inf, "at least 0", 1e-2)
    momentum: float = _checked(lambda v: 0 <= v < 1, "in [0, 1)", 0.9)
    warmup: float = _checked(lambda v: 0 <= v < 1, "in [0, 1)", 0.15)
    clip: float = _checked(lambda v: v > 0, "above 0 (inf: no clipping)", 1.0)
    label_smoothing: float = _checked(lambda v: 0 <= v < 1, "in [0, 1)", 0.0)
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    compile: bool = False
    channels_last: bool = False
    device: str = "auto"
    seeds: tuple[int, ...] = _checked(
        lambda v: len(set(v)) == len(v) > 0 and min(v) >= 0,
        "one or more, all different and at least 0",
        (0,),
    )
    output: str = "runs"
    max_steps: int | None = _checked(lambda v: v >= 1, "at least 1", None)

    def __post_init__(self) -> None:
        _check_fields(self, "train")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"[train] accumulate = {self.accumulate}: expected a divisor of "
                f"batch_size = {self.batch_size}"
            )


@dataclass(frozen=True)
class Config:
    """A configuration file. Arrays of the file are tuples here."""

    model: dict[str, Any]
    data: DataConfig
    train: TrainConfig
    opponents: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        _check_model(self.model, "[model]")
        for number, opponent in enumerate(self.opponents, start=1):
            _check_model(opponent, f"[[opponents]] number {number}")
            if opponent.get("match", "parameters") not in ("parameters", "flops"):
                raise ConfigError(
                    f"[[opponents]] number {number}: match = {opponent['match']!r}: "
                    'expected "parameters" or "flops"'
                )


_Section = TypeVar("_Section", DataConfig, TrainConfig)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file.

    Args:
        path: a TOML file.
        overrides: words of the command line, `--section.key value` or `--section.key=value`, for
            the tables model, data and train. A value is read as TOML, or else as a string.

    Raises:
        ConfigError: for every mistake in the file or in the overrides.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}): expected a TOML file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    source = " ".join([str(path), *(["with", *overrides] if overrides else [])])
    try:
        for name, table in document.items():
            _check_section(name, table)
        for section, key, value in _read_overrides(overrides):
            document.setdefault(section, {})[key] = value
        for name in ("model", "data", "train"):
            if name not in document:
                raise ConfigError(f"no [{name}] table: expected one")
        return Config(
            model=_as_tuples(document["model"]),
            data=_build(DataConfig, "data", document["data"]),
            train=_build(TrainConfig, "train", document["train"]),
            opponents=_as_tuples(document.get("opponents", [])),
        )
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def save_config(config: Config, path: str | Path) -> None:
    """Write a configuration that `load_config` reads back as it is. A None is left out."""
    document = {name: value for name, value in asdict(config).items() if name != "opponents"}
    if config.opponents:
        document["opponents"] = list(config.opponents)
    write_text(Path(path), tomli_w.dumps(_without_none(document)))


def nearest(word: str, options: Iterable[str]) -> str:
    """What an error says of an unknown word: the nearest options, and all of them."""
    options = list(options)
    close = difflib.get_close_matches(word, options, n=1)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}known: {', '.join(options)}"


def _check_section(name: str, table: object) -> None:
    if name not in SECTIONS:
        raise ConfigError(f"unknown table [{name}]; {nearest(name, SECTIONS)}")
    if name == "opponents":
        if not (isinstance(table, list) and all(isinstance(entry, dict) for entry in table)):
            raise ConfigError(f"opponents = {table!r}: expected tables, each headed [[opponents]]")
    elif not isinstance(table, dict):
        raise ConfigError(f"{name} = {table!r}: expected a table, headed [{name}]")


def _check_model(model: Mapping[str, Any], where: str) -> None:
    if not isinstance(model.get("name"), str):
        raise ConfigError(
            f"{where} name = {model.get('name')!r}: expected the name of a model, as a string"
        )


def _read_overrides(words: Sequence[str]) -> list[tuple[str, str, Any]]:
    """Words of the command line as (table, key, value)."""
    result = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        option, equals, text = word.partition("=")
        section, dot, key = option.removeprefix("--").partition(".")
        if not (option.startswith("--") and dot and key):
            raise ConfigError(f"{word!r}: expected --section.key value, as in --train.epochs 3")
        overridable = [name for name in SECTIONS if name != "opponents"]
        if section not in overridable:
            raise ConfigError(
                f"{option}: unknown table {section!r}; {nearest(section, overridable)}"
            )
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise ConfigError(f"{option} has no value: expected {option} VALUE")
            text = remaining.pop(0)
        result.append((section, key, _read_value(section, key, text)))
    return result


def _read_value(section: str, key: str, text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
        value = parsed["value"] if len(parsed) == 1 else text
    except tomllib.TOMLDecodeError:
        value = text
    table = {"data": DataConfig, "train": TrainConfig}.get(section)
    annotation = get_type_hints(table).get(key) if table else None
    if annotation is not None and _fit(value, annotation) is MISSING:
        # A folder named 2024 is a string, though it reads as a number.
        return value if _fit(text, annotation) is MISSING else text
    return value


def _build(cls: type[_Section], section: str, table: dict[str, Any]) -> _Section:
    known = {entry.name: entry for entry in fields(cls)}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"[{section}] {key} = {value!r}: unknown key; {nearest(key, known)}")
    hints = get_type_hints(cls)
    for key, entry in known.items():
        if entry.default is MISSING and key not in table:
            raise ConfigError(f"[{section}] has no {key}: expected {_form(entry, hints[key])}")
    return cls(**table)


def _check_fields(config: Any, section: str) -> None:
    """Hold every field to its annotation and its range; arrays become tuples."""
    hints = get_type_hints(type(config))
    for entry in fields(config):
        given = getattr(config, entry.name)
        value = _fit(given, hints[entry.name])
        holds = entry.metadata.get("holds")
        if value is MISSING or (holds and value is not None and not holds(value)):
            form = _form(entry, hints[entry.name])
            options = [option for option in get_args(hints[entry.name]) if isinstance(option, str)]
            guess = f"; {nearest(str(given), options)}" if options else ""
            raise ConfigError(f"[{section}] {entry.name} = {given!r}: expected {form}{guess}")
        object.__setattr__(config, entry.name, value)  # the way into a frozen dataclass


def _fit(value: Any, annotation: Any) -> Any:
    """`value` as annotated (a list as a tuple, 1 as 1.0), or MISSING if it does not fit."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        fitted = (_fit(value, option) for option in arguments)
        return next((option for option in fitted if option is not MISSING), MISSING)
    if origin is Literal:
        return value if value in arguments else MISSING
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return MISSING
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        entries = tuple(_fit(entry, kind) for entry, kind in zip(value, kinds, strict=False))
        return MISSING if MISSING in entries or len(value) != len(kinds) else entries
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is annotation else MISSING


def _form(entry: Field[Any], annotation: Any) -> str:
    words, limit = _describe(annotation), entry.metadata.get("form")
    return f"{words}, {limit}" if limit else words


def _describe(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in arguments if option is not type(None))
    if origin is Literal:
        return " or ".join(f'"{option}"' for option in arguments)
    if origin is tuple:
        number = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"an array of {number}{'strings' if arguments[0] is str else 'integers'}"
    return {bool: "true or false", int: "an integer", float: "a number", str: "a string"}[
        annotation
    ]


def _as_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_tuples(entry) for key, entry in value.items()}
    return tuple(_as_tuples(entry) for entry in value) if isinstance(value, list) else value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return value
