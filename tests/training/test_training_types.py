"""Values of wrong types and sizes, for every key of a configuration: refused by file and key."""

import re
from collections.abc import Iterator
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroconv.training import Config, ConfigError, DataConfig, TrainConfig
from neuroconv.training.runs import build
from neuroconv.zoo import default_keywords, list_models
from tests.commands import Call

DATA, TRAIN = DataConfig(name="digits"), TrainConfig(epochs=1, learning_rate=1.0)
FILE = """
data.name = "digits"
model.name = "linear"
train = { epochs = 1, learning_rate = 1 }
[[opponents]]
name = "lenet5"
[[opponents]]
name = "mlp"
"""
Keys = tuple[str, ...]


def refusal(name: str, path: Keys, value: Any) -> str:
    """Returns the message about a value in [model], or an empty text if it is taken."""
    table = reduce(lambda inner, key: {key: inner}, reversed(path), value)
    try:
        with torch.device("meta"):
            build(Config({"name": name, **table}, DATA, TRAIN))
    except ConfigError as error:
        return str(error)
    return ""


def messages(name: str, path: Keys, defaults: Any) -> Iterator[tuple[Keys, str]]:
    """Yields the keys of a table, and of tables within, with the message about a wrong value."""
    message = refusal(name, path, {"zz": []})
    yield path, message
    listed = re.search(r"'zz'; (?:did you mean '\w+'\? )?expected one of ([\w, ]+)", message)
    defaults = defaults if isinstance(defaults, dict) else {}
    for key in {*defaults, *(listed[1].split(", ") if listed else ())}:
        yield from messages(name, (*path, key), defaults.get(key))


def cases() -> Iterator[Any]:
    for name in list_models():
        for key in default_keywords(name):  # the cells of a cerebellum have the same keys
            slow = "cerebellum" in name and (name, key) != ("cerebellum_tiny", "granule")
            yield pytest.param(name, key, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(("name", "key"), list(cases()))
def test_every_key_of_a_model_refuses_a_wrong_type_by_its_name(name: str, key: str) -> None:
    for path, message in messages(name, (key,), default_keywords(name)[key]):
        assert message.startswith(f"[model] name = {name!r}: ")
        assert path[-2 if path[-1] == "kind" else -1] in message


@pytest.mark.parametrize("config", [DATA, TRAIN], ids=["data", "train"])
def test_every_setting_refuses_a_wrong_type_and_a_large_integer_by_its_name(config: Any) -> None:
    for entry in fields(config):
        for value in ([{"a": []}], 10**400):
            with pytest.raises(ConfigError, match=rf"^\[\w+\] {entry.name} = .*: expected "):
                type(config)(**{**vars(config), entry.name: value})
        if entry.type in ("Size", "Size | None"):
            with pytest.raises(ConfigError, match=r"integer of at least 1 and below 2\*\*63"):
                type(config)(**{**vars(config), entry.name: 2**63})


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train a.toml --model.image_shape x", r"a.toml: \[model\] image_shape = 'x'"),
        ("train a.toml --model.num_clases 3", "a.toml: .*'num_clases'; did you mean 'num_classes'"),
        (f"train a.toml --data.workers {10**6}", "a.toml .*workers = 1000000: .* from 0 to 1,024"),
        (f"train a.toml --train.epochs {'1' * 5000}", "a.toml .*epochs = .*: expected an integer"),
        (f"train a.toml --model.time_steps {2**64}", r"time_steps = 18446744073709551616"),
        (f"train a.toml --data.time_steps {2**62}", f"a.toml: .*too large; .* time_steps={2**62}"),
        (f"train a.toml --model.name mlp --model.width {2**62}", f"too large; .* width={2**62}"),
        (f"train a.toml --model.name mlp --model.depth {2**31}", "depth=.* from 1 to 10,000"),
        ("compare a.toml LINE encoding = 3", r"a.toml: .*number 2: \[data\] encoding = 3"),
        ("compare a.toml LINE width = 2.5", r"a.toml: .*number 2: \[model\] .*: width=2.5; expect"),
        (f"compare a.toml LINE a = {'1' * 5000}", "a.toml: not valid TOML"),
        (f"compare a.toml LINE a = {'[' * 3000}", "a.toml: not valid TOML"),
        (f"profile linear --batch {2**63}", f"--batch={2**63}; .* below"),
        (f"profile linear --image-shape 3x{2**58}x9", "linear is too large; .*image_shape="),
        (f"profile granule --axons {2**62}", f"granule is too large; .*axons={2**62}"),
        (f"match linear --image-shape 3x2x{10**30}", "3x2x1000.*: expected channels x height"),
    ],
)
def test_commands_name_the_file_and_key(
    call: Call, tmp_path: Path, command: str, message: str
) -> None:
    command, _, line = command.partition("LINE")
    (tmp_path / "a.toml").write_text(FILE + line)
    status, _, err = call(*command.split())
    assert (status, re.search(message, err) is not None) == (2, True), err
