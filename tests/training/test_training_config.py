import math
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from neuroconv.training import (
    Config,
    ConfigError,
    DataConfig,
    TrainConfig,
    load_config,
    save_config,
    train,
)

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


def test_overrides(file: Path) -> None:
    words = [
        *("--train.epochs", "3"),
        "--train.learning_rate=1",
        *("--model.widths", "[4]"),
        *("--model.kind", "plain"),
        *("--model.purkinje.tree.filter", "[10, 100, 5]"),
        *("--data.root", "2024"),
        *("--data.image_size", "[24, 32]"),
        "--data.classes=['a','b']",
        *("--train.seeds", "[5]"),
        *("--train.epochs", "4"),
    ]
    config = load_config(file, words)
    assert config.train.epochs == 4  # the last word counts
    assert config.train.learning_rate == 1.0
    assert isinstance(config.train.learning_rate, float)
    assert config.train.seeds == (5,)
    assert config.model == {
        "name": "mlp", "widths": (4,), "kind": "plain",
        "purkinje": {"tree": {"filter": (10, 100, 5)}},
    }  # fmt: skip
    assert config.data.root == "2024"
    assert config.data.image_size == (24, 32)
    assert config.data.classes == ("a", "b")


def test_a_saved_config_reads_back_as_it_is(file: Path, tmp_path: Path) -> None:
    config = load_config(file, ["--train.clip", "inf", "--train.learning_rate", "1e-5"])
    assert config.train.clip == math.inf
    config = replace(config, data=replace(config.data, image_size=(8, 8), root="/x y"))
    save_config(config, tmp_path / "b.toml")
    assert load_config(tmp_path / "b.toml") == config
    assert "max_steps" not in (tmp_path / "b.toml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train.epochs", "0"], r"\[train\] epochs = 0: expected an integer, at least 1"),
        (["--train.epochs", "-3"], "epochs = -3"),
        (["--train.epochs", "2.5"], "epochs = 2.5: expected an integer"),
        (["--train.epochs", "true"], "epochs = True: expected an integer"),
        (["--train.epochs", "many"], "epochs = 'many': expected an integer"),
        (["--train.learning_rate", "0"], "learning_rate = 0.*expected a number, above 0"),
        (["--train.learning_rate", "nan"], "learning_rate = nan"),
        (["--train.learning_rate", "inf"], "learning_rate = inf"),
        (["--train.warmup", "1.0"], r"warmup = 1.0: expected a number, in \[0, 1\)"),
        (["--train.weight_decay", "-1"], "weight_decay = -1"),
        (["--train.clip", "0"], "clip = 0"),
        (["--train.batch_size", "0"], "batch_size = 0"),
        (["--train.max_steps", "0"], "max_steps = 0"),
        (["--train.optimizer", "adam"], "optimizer = 'adam': expected .*did you mean 'adamw'"),
        (["--train.precision", "fp16"], 'expected "auto" or "float32" or "tf32" or "bfloat16"'),
        (["--train.seeds", "[]"], r"seeds = \[\]: expected an array of integers, one or more"),
        (["--train.seeds", "[1, 1]"], "all different"),
        (["--train.seeds", "[-1]"], "at least 0"),
        (["--train.seeds", "3"], "seeds = 3: expected an array of integers"),
        (["--train.epoch", "3"], r"\[train\] epoch = 3: unknown key; did you mean 'epochs'"),
        (["--data.image_size", "[1,2,3]"], "an integer or an array of 2 integers"),
        (["--data.image_size", "[0, 8]"], r"image_size = \[0, 8\]: .*at least 1"),
        (["--data.classes", "['a']"], "two or more"),
        (["--data.classes", "[1, 2]"], "an array of strings"),
        (["--data.train_limit", "0"], "train_limit = 0"),
        (["--data.workers", "-1"], "workers = -1"),
        (["--data.time_steps", "0"], "time_steps = 0"),
        (["--model.name", "3"], r"\[model\] name = 3: expected the name of a model"),
        (["--trian.epochs", "3"], "unknown table 'trian'; did you mean 'train'"),
        (["--opponents.name", "x"], "unknown table 'opponents'"),
        (["--train.epochs"], "--train.epochs has no value: expected --train.epochs VALUE"),
        (["--train.epochs", "--data.root", "x"], "--train.epochs has no value"),
        (["--epochs", "3"], "'--epochs': expected --section.key value"),
        (["train.epochs", "3"], "'train.epochs': expected --section.key value"),
        (["3"], "'3': expected --section.key value"),
    ],
)
def test_wrong_overrides(file: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config(file, words)
    assert str(error.value).startswith(f"{file} with {' '.join(words)}: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[train]", "[train", "not valid TOML"),
        ("epochs = 2", "epochs = 2\nepochs = 3", "not valid TOML"),
        ("epochs = 2", "", r"\[train\] has no epochs: expected an integer, at least 1"),
        ("learning_rate = 1e-2", "", r"\[train\] has no learning_rate: expected a number, above 0"),
        ('name = "digits"', "", r"\[data\] has no name: expected a string"),
        ('name = "mlp"', "", r"\[model\] name = None: expected the name of a model"),
        ('name = "linear"', "", r"\[\[opponents\]\] number 1 name = None"),
        (
            'label = "baseline"',
            'match = "flop"',
            'match = \'flop\': expected "parameters" or "flops"',
        ),
        ("[[opponents]]", "[opponents]", r"expected tables, each headed \[\[opponents\]\]"),
        ("[train]", "[training]", r"unknown table \[training\]; did you mean 'train'"),
        ("[data]", "[[data]]", r"expected a table, headed \[data\]"),
        (FILE[FILE.index("[data]") : FILE.index("[train]")], "", r"no \[data\] table"),
        ("epochs = 2", 'epochs = "2"', "epochs = '2': expected an integer"),
    ],
)
def test_wrong_files(file: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    file.write_text(FILE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as error:
        load_config(file)
    assert str(error.value).startswith(f"{file}: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: cannot be read"):
        load_config(tmp_path / "no.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "binary.toml")


def test_settings_are_checked_in_python_too() -> None:
    with pytest.raises(ConfigError, match="epochs = 0"):
        TrainConfig(epochs=0, learning_rate=1e-3)
    with pytest.raises(ConfigError, match="name = None"):
        Config({}, DataConfig(name="digits"), TrainConfig(epochs=1, learning_rate=1e-3))


def test_train_takes_the_keywords_of_the_file() -> None:
    with pytest.raises(TypeError, match="epoch"):
        train(nn.Linear(2, 2), [], [], epoch=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size = 0"):
        train(nn.Linear(2, 2), [], [], batch_size=0)  # type: ignore[arg-type]
