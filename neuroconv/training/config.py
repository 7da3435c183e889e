"""Configuration files: TOML tables, checked against dataclasses, with overrides.

[model] has the keywords of `create_model`, those of version 0.4.0 too, and a name; [data] is a
`DataConfig`, [train] a `TrainConfig`; each of the [[opponents]] is a table like [model]. [tune], a
`TuneConfig`, and [compare], a `CompareConfig`, are for comparisons, and may be left out. Every
mistake is a ConfigError that names the file, the key, its value and the expected form.
"""

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from neuroconv.core.arguments import NonNegative, Positive, Rule, Size, expected, fits
from neuroconv.core.checks import expected_one_of
from neuroconv.core.files import write_text
from neuroconv.data.augment import Augment
from neuroconv.data.encoding import Encoding
from neuroconv.training.config_names import find_config
from neuroconv.training.rules import check_rule
from neuroconv.training.tables import (
    CompareConfig,
    ConfigError,
    Seeds,
    Table,
    Text,
    TuneConfig,
    as_tuples,
    hints,
)
from neuroconv.zoo.legacy import translate

_TABLES = ("model", "data", "train")  # which every file has
_CHANGEABLE = (*_TABLES, "tune", "compare")  # by overrides
_SECTIONS = (*_CHANGEABLE, "opponents")


Part = Annotated[float, Rule("in [0, 1)", lambda value: 0 <= value < 1)]
Workers = Annotated[int, Rule("from 0 to 1,024", lambda value: 0 <= value <= 1024)]
Unlimited = Annotated[Any, Rule("inf", lambda value: value == math.inf)]
Classes = Annotated[tuple[Text, ...], Rule("(two or more)", lambda names: len(names) > 1)]

# Keys of a model's table that are no keywords of its builder.
_MODEL_KEYS: dict[str, Any] = {
    "name": Text,
    "label": Annotated[
        Text, Rule("(1 to 80, on a line)", re.compile(r"(?=.*\S).{1,80}").fullmatch)
    ],
    "match": Literal["parameters", "flops", "axons"],
    "match_rule": Literal["nearest", "at_most"],
    "primary": bool,
    "train": Mapping[str, Any],
}
# In an opponent's train.
_OWN_SETTINGS = ("rule", "optimizer", "learning_rate", "weight_decay", "momentum")


@dataclass(frozen=True)
class DataConfig(Table):
    """The [data] table: the keywords of `load_data`, and the number of loading processes."""

    header = "[data]"
    name: Text
    root: Text | None = None
    classes: Classes | None = None
    image_size: Size | tuple[Size, Size] | None = None
    encoding: Encoding = "saccade"
    time_steps: Size = 5
    augment: Augment = "none"
    permute: bool = False
    held_out: Text | None = None
    train_limit: Size | None = None
    cache: bool | Literal["auto"] = "auto"
    workers: Workers = 0


@dataclass(frozen=True)
class TrainConfig(Table):
    """The [train] table.

    Attributes:
        learning_rate: the peak, reached after the warm-up.
        batch_size: images in a step, of all processes together.
        accumulate: parts in which a step's images are run; batch norms see one part at a time.
            "auto": one, or the smallest number that fits into the memory; the result records it.
        rule: what the optimiser takes as the gradient: "backprop", or a rule of
            `neuroconv.learning.RULES` by its name, or a table of its options with the name under
            "kind": {kind = "climbing_fibre", signal = "spikes"}. All run in float32.
        optimizer: "adamw", or "sgd" with Nesterov momentum.
        weight_decay: for parameters of two or more axes, a table of biases included.
        warmup: share of all steps over which the learning rate rises.
        clip: largest norm of the gradient; `inf` for no clipping.
        label_smoothing: of the training loss only.
        precision: of the forward pass: "float32", full float32 on CUDA too; "tf32", CUDA's 10-bit
            products; "bfloat16"; or "auto", which is bfloat16 on CUDA and float32 elsewhere.
        compile: use torch.compile; weights and checkpoints are those of the plain model.
            "reduce-overhead" is its mode that keeps CUDA graphs of the forward and backward pass.
        cuda_graph: record the whole training step as one CUDA graph, for models whose kernels take
            longer to launch than to run; see training/README.md.
        channels_last: keep images, frames and the weights of convolutions with channels last in
            memory: `torch.channels_last` if they have 4 axes, `channels_last_3d` if they have 5.
        device: "auto" (CUDA, XPU or MPS if there is one, else the CPU) or the name of a torch
            device. Runs on XPU and MPS are not tested.
        seeds: one run for each.
        output: parent of the run folders.
        max_steps: stop there; the learning rate still follows the schedule of all epochs.
        save_steps, save_minutes: how often a checkpoint is written within an epoch; one is written
            after each epoch, and when a signal ends the run.
        keep: the number of checkpoints that stay.
        shard: under torchrun, leave each process a part of all parameters, gradients and optimiser
            state, by torch's `fully_shard`.
        split: "neurons": under torchrun, leave each process some of a population's neurons; all
            take the whole batch. See `neuroconv.shard`.
        tensorboard: write curves for TensorBoard into the run folder.
        test: score the best epoch on the test set; false for trials that choose settings.
    """

    header = "[train]"
    epochs: Size
    learning_rate: Positive
    batch_size: Size = 128
    accumulate: Size | Literal["auto"] = 1
    rule: Text | Mapping[str, Any] = "backprop"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: NonNegative = 1e-2
    momentum: Part = 0.9
    warmup: Part = 0.15
    clip: Positive | Unlimited = 1.0
    label_smoothing: Part = 0.0
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    compile: bool | Literal["reduce-overhead"] = False
    cuda_graph: bool = False
    channels_last: bool = False
    device: Text = "auto"
    seeds: Seeds = (0,)
    output: Text = "runs"
    max_steps: Size | None = None
    save_steps: Size | None = None
    save_minutes: Positive | Unlimited = 10.0
    keep: Size = 2
    tensorboard: bool = False
    shard: bool = False
    split: Literal["none", "neurons"] = "none"
    test: bool = True

    def decisive(self) -> dict[str, Any]:
        """Returns the settings that decide the weights, by their names in a file."""
        others = {"output", "device", "save_steps", "save_minutes", "keep", "tensorboard"}
        others |= {"rule"} if self.rule == "backprop" else set()  # older runs do not name it
        return {f"[train] {k}": v for k, v in asdict(self).items() if k not in others}

    @property
    def parts(self) -> int:
        """The number of parts of a step, as far as it is known: see `fit_memory`."""
        return 1 if self.accumulate == "auto" else self.accumulate

    @property
    def spread(self) -> bool:
        """Whether no process holds the whole model, and checkpoints are distributed."""
        return self.shard or self.split != "none"

    def evaluation(self) -> dict[str, Any]:
        """Returns the keywords with which `evaluate_model` scores a model as training does."""
        keys = ("device", "precision", "channels_last")
        batch_size = self.batch_size // self.parts
        return {"batch_size": batch_size, **{key: getattr(self, key) for key in keys}}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulate != "auto" and self.batch_size % self.accumulate:
            raise ConfigError(
                f"{self.header} accumulate = {self.accumulate}: expected a divisor of "
                f"batch_size = {self.batch_size}"
            )
        if isinstance(self.compile, str) and (self.cuda_graph or self.accumulate != 1):
            raise ConfigError(
                f'{self.header} compile = "{self.compile}": expected accumulate = 1 and cuda_graph '
                "= false, since it has graphs of its own, which overwrite what they returned"
            )
        check_rule(self.header, self.rule, {
            "compile": self.compile, "cuda_graph": self.cuda_graph, "shard": self.shard,
            'split = "neurons"': self.split != "none", "label_smoothing": self.label_smoothing,
            'precision = "bfloat16"': self.precision == "bfloat16",
        })  # fmt: skip
        refused = {
            'split = "neurons"': self.shard and self.split != "none",
            "compile": self.compile, "cuda_graph": self.cuda_graph,
            'accumulate = "auto"': self.accumulate == "auto",
            "channels_last": self.shard and self.channels_last,
        }  # fmt: skip
        for setting, present in refused.items():
            if self.spread and present:
                spread = "shard = true" if self.shard else 'split = "neurons"'
                raise ConfigError(f"{self.header} {spread} with {setting}: expected one of the two")


@dataclass(frozen=True)
class Config:
    """A configuration file. Arrays of the file are tuples here."""

    model: dict[str, Any]
    data: DataConfig
    train: TrainConfig
    opponents: tuple[dict[str, Any], ...] = ()
    tune: TuneConfig | None = None
    compare: CompareConfig = field(default_factory=CompareConfig)

    def described(self) -> dict[str, Any]:
        """Returns what decides a run's weights, by its name in the file."""
        data = {k: v for k, v in asdict(self.data).items() if k not in ("root", "cache", "workers")}
        return {**_flat("[model]", self.model), **_flat("[data]", data), **self.train.decisive()}

    def evaluation(self) -> dict[str, Any]:
        """Returns the keywords with which `evaluate_model` scores the model as training does."""
        return {**self.train.evaluation(), "workers": self.data.workers}

    def __post_init__(self) -> None:
        for number, model in enumerate((self.model, *self.opponents)):
            header = f"[[opponents]] number {number}" if number else "[model]"
            for key, hint in _MODEL_KEYS.items():
                value = model.get(key)
                if (key in model or key == "name") and not fits(value, hint):
                    raise ConfigError(f"{header} {key} = {value!r}: {expected(hint, value)}")
            for key in model.get("train", {}):
                if key not in _OWN_SETTINGS:
                    raise ConfigError(
                        f"{header} train.{key}: {expected_one_of(key, _OWN_SETTINGS)}; all "
                        "other settings are those of [train]"
                    )
        if sum(model.get("primary", False) for model in self.opponents) > 1:
            raise ConfigError("[[opponents]] primary = true, twice: expected one at most")
        if self.tune and (seeds := {*self.tune.seeds} & {*self.train.seeds}):
            raise ConfigError(
                f"[tune] seeds = {list(self.tune.seeds)}: [train] reports on {sorted(seeds)} too; "
                "expected others"
            )


def _flat(name: str, table: Any) -> dict[str, Any]:
    """Returns the values of nested tables by their dotted names; an empty table is a value."""
    if not isinstance(table, dict) or not table:
        return {name: table}
    separator = " " if name.endswith("]") else "."
    return {k: v for key in table for k, v in _flat(f"{name}{separator}{key}", table[key]).items()}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a TOML file, or the configuration that the package has by this name.

    `overrides` are words `--section.key=value`, for all but opponents, and for tables within as in
    `--model.granule.cells=9`. A value is read as TOML, or else as a string.
    """
    try:
        path = find_config(path)
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}): expected a TOML file"
        ) from None
    except (ValueError, RecursionError) as error:
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
            model=as_tuples(translate(document["model"])),
            data=DataConfig.read(document["data"]),
            train=TrainConfig.read(document["train"]),
            opponents=as_tuples(list(map(translate, document.get("opponents", [])))),
            tune=TuneConfig.read(document["tune"]) if "tune" in document else None,
            compare=CompareConfig.read(document.get("compare", {})),
        )
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None


def save_config(config: Config, path: str | Path) -> None:
    """Writes a configuration that `load_config` reads back as it is; a None is left out."""
    import tomli_w  # here, so that what trains without a folder does not need it

    document = _without_none(asdict(config))
    document = {name: value for name, value in document.items() if value}
    write_text(Path(path), tomli_w.dumps(document))


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
    if section not in _CHANGEABLE:
        raise ConfigError(
            f"{option}: unknown table {section!r}; {expected_one_of(section, _CHANGEABLE)}"
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
    except (ValueError, RecursionError):  # no TOML
        return text
    tables: dict[str, type[Table]] = {"data": DataConfig, "train": TrainConfig}
    table = {**tables, "tune": TuneConfig, "compare": CompareConfig}.get(section)
    hint = hints(table).get(key, Any) if table else Any
    # A folder named 2024 is a string, though it reads as a number.
    return text if not fits(value, hint) and fits(text, hint) else value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return value
