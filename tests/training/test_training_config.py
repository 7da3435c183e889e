import inspect
import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from neuroconv.data import load_data
from neuroconv.training import Config, ConfigError, DataConfig, TrainConfig, load_config, train
from neuroconv.training.config import save_config

FILE = """
[model]
name = "mlp"
widths = [8, 16]

[data]
name = "digits"
encoding = "repeat"

[train]
epochs = 2
learning_rate = 1e-2
seeds = [0, 1]

[[opponents]]
name = "linear"
label = "baseline"
"""


LABEL = 'label = "baseline"'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.toml"
    path.write_text(FILE)
    return path


def test_a_file_becomes_a_config(file: Path) -> None:
    config = load_config(file)
    assert config.model == {"name": "mlp", "widths": (8, 16)}
    assert config.data == DataConfig(name="digits", encoding="repeat")
    assert config.train == TrainConfig(epochs=2, learning_rate=0.01, seeds=(0, 1))
    assert config.opponents == ({"name": "linear", "label": "baseline"},)


def test_overrides_and_a_saved_config_that_reads_back_as_it_is(file: Path, tmp_path: Path) -> None:
    words = [
        "--train.epochs=3", "--train.learning_rate=1", "--model.widths=[4]", "--model.kind=plain",
        "--model.purkinje.tree.filter=[10, 100, 5]", "--data.root=2024", "--data.classes=['a','b']",
        "--data.image_size=[24, 32]", "--train.clip=inf", "--train.seeds=[5]", "--train.epochs=4",
        "--data.cache=false", "--train.output=a=b",
    ]  # fmt: skip
    config = load_config(file, words)
    tree = {"tree": {"filter": (10, 100, 5)}}
    assert config.model == {"name": "mlp", "widths": (4,), "kind": "plain", "purkinje": tree}
    assert isinstance(config.train.learning_rate, float)
    assert config.train == TrainConfig(  # of two words for a key the last counts
        epochs=4, learning_rate=1.0, seeds=(5,), clip=math.inf, output="a=b"
    )
    expected: dict[str, Any] = {"root": "2024", "image_size": (24, 32), "classes": ("a", "b")}
    assert config.data == DataConfig(name="digits", encoding="repeat", cache=False, **expected)
    save_config(config, tmp_path / "b.toml")
    assert load_config(tmp_path / "b.toml") == config
    assert "max_steps" not in (tmp_path / "b.toml").read_text()
    assert load_config(tmp_path / "b.toml", ["--data.cache=auto"]).data.cache == "auto"


def test_an_empty_table_is_another_run(file: Path) -> None:
    """`unit_dropout = {}` builds a stage that is not there without it."""
    with_stage = load_config(file, ["--model.unit_dropout={}"])
    assert with_stage.described() != load_config(file).described()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--train.epochs=0", r"\[train\] epochs = 0: expected an integer of at least 1"),
        ("--train.epochs=true", "epochs = True: expected an integer"),
        ("--train.epochs=many", "epochs = 'many': expected an integer"),
        ("--train.learning_rate=0", "learning_rate = 0.*expected a finite number above 0"),
        ("--train.learning_rate=nan", "learning_rate = nan"),
        ("--train.warmup=1.0", r"warmup = 1.0: expected a finite number in \[0, 1\)"),
        ("--train.clip=0", "clip = 0"),
        ("--train.optimizer=adam", "optimizer = 'adam': did you mean 'adamw'"),
        ("--train.precision=fp16", "expected one of auto, float32, tf32, bfloat16"),
        ("--train.compile=fast", "compile = 'fast': .* one of reduce-overhead"),
        ("--train.seeds=[]", r"seeds = \[\]: expected values, each an integer .* \(one or more"),
        ("--train.seeds=[1, 1]", "all different"),
        ("--train.seeds=[-1]", "from 0 to"),
        ("--train.accumulate=3", "accumulate = 3: expected a divisor of batch_size = 128"),
        ("--train.epoch=3", r"\[train\] epoch = 3: unknown key; did you mean 'epochs'"),
        ("--data.image_size=[1,2,3]", "an integer of at least 1 .*, 2 values, each an integer"),
        ("--data.image_size=[0, 8]", r"image_size = \[0, 8\]: .*at least 1"),
        ("--data.classes=['a']", "two or more"),
        ("--data.classes=[1, 2]", "values, each a string"),
        ("--data.cache=3", "cache = 3: expected true or false or one of auto"),
        ("--model.name=3", r"\[model\] name = 3: expected a string without"),
        ("--trian.epochs=3", "unknown table 'trian'; did you mean 'train'"),
        ("--opponents.name=x", "unknown table 'opponents'"),
        ("--train.epochs", "--train.epochs has no value: expected --train.epochs VALUE"),
        ("--train.output=\udcff", r"\[train\] output = '\\udcff': expected a string without"),
        ("--epochs=3", "'--epochs=3': expected --section.key=value"),
    ],
)
def test_wrong_overrides(file: Path, word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config(file, [word])
    assert str(error.value).startswith(f"{file} with {word}: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[train]", "[train", "not valid TOML"),
        ("epochs = 2", "", r"\[train\] has no epochs: expected an integer of at least 1"),
        ('name = "digits"', "", r"\[data\] has no name: expected a string"),
        ('name = "mlp"', "", r"\[model\] name = None: expected a string without"),
        ('name = "linear"', "", r"\[\[opponents\]\] number 1 name = None"),
        (LABEL, 'match = "flop"', "did you mean 'flops'. expected one of parameters, flops"),
        (LABEL, 'match_rule = "below"', "'below': expected one of nearest, at_most"),
        (LABEL, "label = 3", "number 1 label = 3: expected a string"),
        (LABEL, 'label = " "', r"label = . .: .*string .* \(1 to 80, on a line\)"),
        (LABEL, f'label = "{"x" * 10_000}"', r"string .* \(1 to 80, on a line\)"),
        (LABEL, r'label = "a\nb"', r"label = .a\\nb.: .*string .* \(1 to 80, on a line\)"),
        (LABEL, r'label = "\u001B[31m"', r"1 label = '\\x1b\[31m': expected a string without"),
        ('"repeat"', '"repeat"\nroot = "\\u0000"', r"\[data\] root = '\\x00': expected a string"),
        ("[[opponents]]", "[opponents]", r"expected tables, each headed \[\[opponents\]\]"),
        ("[train]", "[training]", r"unknown table \[training\]; did you mean 'train'"),
        ("[data]", "[[data]]", r"expected a table, headed \[data\]"),
        (FILE[FILE.index("[data]") : FILE.index("[train]")], "", r"no \[data\] table"),
    ],
)
def test_wrong_files(file: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    file.write_text(FILE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as error:
        load_config(file)
    assert str(error.value).startswith(f"{file}: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name, message in (("no.toml", "be read"), (".", "be read"), ("binary.toml", "valid TOML")):
        with pytest.raises(ConfigError, match=message):
            load_config(tmp_path / name)


def test_settings_are_checked_in_python_too() -> None:
    with pytest.raises(ConfigError, match="epochs = 0"):
        TrainConfig(epochs=0, learning_rate=1e-3)
    settings = TrainConfig(epochs=1, learning_rate=1e-3)
    with pytest.raises(ConfigError, match="name = None"):
        Config({}, DataConfig(name="digits"), settings)
    with pytest.raises(TypeError, match="epoch"):
        train(nn.Linear(2, 2), [], [], epoch=3)  # type: ignore[arg-type]
    defaults = inspect.signature(load_data).parameters
    assert DataConfig(name="digits").cache == defaults["cache"].default
