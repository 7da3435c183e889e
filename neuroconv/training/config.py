"""Configuration files: TOML tables, checked against dataclasses, with overrides.

[model] has the keywords of `create_model`, those of version 0.4.0 too, and a name; [data] is a
`DataConfig`, [train] a `TrainConfig`; each of the [[opponents]] is a table like [model]. Every
mistake is a ConfigError that names the file, the key, its value and the expected form.
"""

import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_type_hints

import tomli_w
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from neuroconv.core.checks import did_you_mean, expected_one_of
from neuroconv.training.checkpoint import write_text
from neuroconv.zoo.legacy import translate

_TABLES = ("model", "data", "train")  # which overrides may change
_SECTIONS = (*_TABLES, "opponents")


class ConfigError(ValueError):
    """A mistake in a configuration file, an override or a setting."""


def _setting(form: str, valid: Callable[[Any], bool], default: Any = MISSING) -> Any:
    """Returns a field whose value, if not None, must be `valid`, which `form` puts in words."""
    return field(default=default, metadata={"form": form, "valid": valid})


def _count(least: int, default: Any = MISSING) -> Any:
    return _setting(f"an integer, at least {least}", lambda value: value >= least, default)


@dataclass(frozen=True)
class _Table:
    """A table whose fields are held to their annotations and ranges."""

    header: ClassVar[str]

    @classmethod
    def read(cls, table: dict[str, Any]) -> Self:
        settings, hints = {entry.name: entry for entry in fields(cls)}, get_type_hints(cls)
        for key, value in table.items():
            if key not in settings:
                raise ConfigError(
                    f"{cls.header} {key} = {value!r}: unknown key; {expected_one_of(key, settings)}"
                )
        for key, entry in settings.items():
            if entry.default is MISSING and key not in table:
                raise ConfigError(f"{cls.header} has no {key}: expected {_form(entry, hints[key])}")
        return cls(**table)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for entry in fields(self):
            setting, hint = getattr(self, entry.name), hints[entry.name]
            value = _as_tuples(setting)
            valid = entry.metadata.get("valid", lambda _: True)
            if not _fits(value, hint) or not (value is None or valid(value)):
                expected = (
                    f"{did_you_mean(str(setting), _options(hint))}expected {_form(entry, hint)}"
                )
                raise ConfigError(f"{self.header} {entry.name} = {setting!r}: {expected}")
            value = float(value) if hint is float else value
            object.__setattr__(self, entry.name, value)  # the way into a frozen dataclass


@dataclass(frozen=True)
class DataConfig(_Table):
    """The [data] table: the keywords of `load_data`, and the number of loading processes."""

    header = "[data]"
    name: str
    root: str | None = None
    classes: tuple[str, ...] | None = _setting(
        "an array of strings, two or more", lambda names: len(names) > 1, None
    )
    image_size: int | tuple[int, int] | None = _setting(
        "an integer or an array of 2 integers, at least 1",
        lambda size: min(size if isinstance(size, tuple) else (size,)) > 0,
        None,
    )
    encoding: str = "saccade"
    time_steps: int = _count(1, 5)
    augment: str = "none"
    train_limit: int | None = _count(1, None)
    cache: bool | Literal["auto"] = _setting('true or false or "auto"', lambda _: True, "auto")
    workers: int = _count(0, 0)


@dataclass(frozen=True)
class TrainConfig(_Table):
    """The [train] table.

    Attributes:
        learning_rate: the peak, reached after the warm-up.
        batch_size: images in a step, of all processes together.
        accumulate: parts in which a step's images are run; batch norms see one part at a time.
        optimizer: "adamw", or "sgd" with Nesterov momentum.
        weight_decay: for parameters of two or more axes, a table of biases included.
        warmup: share of all steps over which the learning rate rises.
        clip: largest norm of the gradient; `inf` for no clipping.
        label_smoothing: of the training loss only.
        precision: of the forward pass: "float32", full float32 on CUDA too; "tf32", CUDA's 10-bit
            products; "bfloat16"; or "auto", which is bfloat16 on CUDA and float32 elsewhere.
        compile: use torch.compile; weights and checkpoints are those of the plain model.
        channels_last: keep images and 4-D weights with their channels last in memory.
        device: "auto" (CUDA if there is one, else the CPU) or the name of a torch device.
        seeds: one run for each.
        output: parent of the run folders.
        max_steps: stop there; the learning rate still follows the schedule of all epochs.
    """

    header = "[train]"
    epochs: int = _count(1)
    learning_rate: float = _setting("a number, above 0", lambda rate: 0 < rate < math.inf)
    batch_size: int = _count(1, 128)
    accumulate: int = _count(1, 1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = _setting("a number, at least 0", lambda rate: 0 <= rate < math.inf, 1e-2)
    momentum: float = _setting("a number, in [0, 1)", lambda share: 0 <= share < 1, 0.9)
    warmup: float = _setting("a number, in [0, 1)", lambda share: 0 <= share < 1, 0.15)
    clip: float = _setting("a number, above 0 (inf: no clipping)", lambda norm: norm > 0, 1.0)
    label_smoothing: float = _setting("a number, in [0, 1)", lambda share: 0 <= share < 1, 0.0)
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    compile: bool = False
    channels_last: bool = False
    device: str = "auto"
    seeds: tuple[int, ...] = _setting(
        "an array of integers, one or more, all different and at least 0",
        lambda seeds: len(set(seeds)) == len(seeds) > 0 and min(seeds) >= 0,
        (0,),
    )
    output: str = "runs"
    max_steps: int | None = _count(1, None)

    def evaluation(self) -> dict[str, Any]:
        """Returns the keywords with which `evaluate_model` scores a model as training does."""
        keys = ("device", "precision", "channels_last")
        batch_size = self.batch_size // self.accumulate
        return {"batch_size": batch_size, **{key: getattr(self, key) for key in keys}}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"{self.header} accumulate = {self.accumulate}: expected a divisor of "
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
        for number, model in enumerate((self.model, *self.opponents)):
            header = f"[[opponents]] number {number}" if number else "[model]"
            name, match = model.get("name"), model.get("match", "parameters")
            if not isinstance(name, str):
                raise ConfigError(
                    f"{header} name = {name!r}: expected the name of a model, as a string"
                )
            if match not in ("parameters", "flops"):
                raise ConfigError(f'{header} match = {match!r}: expected "parameters" or "flops"')
            if (rule := model.get("match_rule", "nearest")) not in ("nearest", "at_most"):
                raise ConfigError(
                    f'{header} match_rule = {rule!r}: expected "nearest" or "at_most"'
                )


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a TOML file.

    `overrides` are words `--section.key=value`, for model, data and train, and for tables within as
    in `--model.granule.cells=9`. A value is read as TOML, or else as a string.
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
    source = f"{path} with {' '.join(overrides)}" if overrides else str(path)
    try:
        for name, table in document.items():
            _check_section(name, table)
        for word in overrides:
            _override(document, word)
        for name in _TABLES:
            if name not in document:
                raise ConfigError(f"no [{name}] table: expected one")
        return Config(
            model=_as_tuples(translate(document["model"])),
            data=DataConfig.read(document["data"]),
            train=TrainConfig.read(document["train"]),
            opponents=_as_tuples(list(map(translate, document.get("opponents", [])))),
        )
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def save_config(config: Config, path: str | Path) -> None:
    """Writes a configuration that `load_config` reads back as it is; a None is left out."""
    document = {name: value for name, value in asdict(config).items() if value}
    write_text(Path(path), tomli_w.dumps(_without_none(document)))


def _check_section(name: str, table: object) -> None:
    if name not in _SECTIONS:
        raise ConfigError(f"unknown table [{name}]; {expected_one_of(name, _SECTIONS)}")
    if name == "opponents":
        if not (isinstance(table, list) and all(isinstance(entry, dict) for entry in table)):
            raise ConfigError(f"opponents = {table!r}: expected tables, each headed [[opponents]]")
    elif not isinstance(table, dict):
        raise ConfigError(f"{name} = {table!r}: expected a table, headed [{name}]")


def _override(document: dict[str, Any], word: str) -> None:
    """Sets a key of a table, or of tables within it."""
    option, equals, text = word.partition("=")
    section, _, key = option.removeprefix("--").partition(".")
    if not (option.startswith("--") and key):
        raise ConfigError(f"{word!r}: expected --section.key=value, as in --train.epochs=3")
    if section not in _TABLES:
        raise ConfigError(
            f"{option}: unknown table {section!r}; {expected_one_of(section, _TABLES)}"
        )
    if not equals:
        raise ConfigError(f"{option} has no value: expected {option} VALUE")
    *path, last = (section, *key.split("."))
    for name in path:
        if not isinstance(document.get(name), dict):
            document[name] = {}
        document = document[name]
    document[last] = _read_value(section, key, text)


def _read_value(section: str, key: str, text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
        value = parsed["value"] if len(parsed) == 1 else text
    except tomllib.TOMLDecodeError:
        return text
    table = {"data": DataConfig, "train": TrainConfig}.get(section)
    hint = get_type_hints(table).get(key) if table else None
    # A folder named 2024 is a string, though it reads as a number.
    return text if not _fits(_as_tuples(value), hint) and _fits(text, hint) else value


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether a value is of a type. To Python, True is an integer; here it is not."""
    entries = value if isinstance(value, tuple) else (value,)
    if any(isinstance(entry, bool) for entry in entries) and bool not in (hint, *get_args(hint)):
        return False
    try:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        return False
    return True


def _form(entry: Field[Any], hint: Any) -> str:
    """Returns in words what a field takes."""
    options = " or ".join(f'"{option}"' for option in _options(hint))
    default = options or ("true or false" if hint is bool else "a string")
    return str(entry.metadata.get("form", default))


def _options(hint: Any) -> list[str]:
    return [option for option in get_args(hint) if isinstance(option, str)]


def _as_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_tuples(entry) for key, entry in value.items()}
    return tuple(_as_tuples(entry) for entry in value) if isinstance(value, list) else value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return value
