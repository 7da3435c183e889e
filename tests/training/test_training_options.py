"""Every option of [data] and [train], with every network of the zoo, and the memory format."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from neuroconv.training import Config, DataConfig, TrainConfig, evaluate_model, load_weights, train
from neuroconv.training.runs import build, resolve
from neuroconv.zoo import create_model, list_models
from tests.data.photographs import write_photographs

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
QUICK: dict[str, Any] = {"device": "cpu", "progress": False}


# --- memory format


class Halting(TensorDataset):
    """Images (48, 3, ..., 6, 6), and an exception in an epoch (from 0)."""

    def __init__(self, *steps: int, fail_in: int = -1) -> None:
        images = torch.rand(48, 3, *steps, 6, 6, generator=torch.Generator().manual_seed(0))
        super().__init__(images.double(), torch.arange(48) % 2)
        self.fail_in = fail_in

    def set_epoch(self, epoch: int) -> None:
        if epoch == self.fail_in:
            raise RuntimeError("power cut")


def two_convolutions(axes: int) -> nn.Sequential:
    """Convolutions, and a table of as many axes as their weights, which is none."""
    torch.manual_seed(0)
    conv = {4: nn.Conv2d, 5: nn.Conv3d}[axes]
    norm = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[axes](8)
    layers = conv(3, 8, 3, padding=1, bias=False), norm, nn.ReLU(), conv(8, 4, 3, padding=1)
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2)).double()
    model(Halting(*[2] * (axes - 4)).tensors[0][:2])
    model.register_parameter("table", nn.Parameter(torch.rand(3, 2, *[2] * (axes - 2)).double()))
    return model


@pytest.mark.parametrize("axes", [4, 5])
def test_channels_last_changes_the_layout_and_nothing_else(axes: int, tmp_path: Path) -> None:
    def is_last(x: Tensor) -> bool:
        return not x.is_contiguous() and x.is_contiguous(memory_format=FORMATS[axes])

    steps = [2] * (axes - 4)
    data = Halting(*steps)
    layouts: dict[bool, set[bool]] = {False: set(), True: set()}
    models = {channels_last: two_convolutions(axes) for channels_last in layouts}
    for channels_last, model in models.items():
        model.register_forward_pre_hook(
            lambda _, inputs, seen=layouts[channels_last]: seen.add(is_last(inputs[0]))
        )
        keywords = {"epochs": 3, "batch_size": 16, "channels_last": channels_last, **QUICK}
        result = train(
            model, data, data, test_data=data, run_dir=tmp_path / str(channels_last), **keywords
        )
    first, last = models[False], models[True]
    assert layouts == {False: {False}, True: {True}}
    assert [is_last(first[0].weight), is_last(last[0].weight), is_last(last[3].weight)] == [0, 1, 1]
    assert last.table.is_contiguous()
    for value, other in zip(first.state_dict().values(), last.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-9)

    cut = two_convolutions(axes)
    with pytest.raises(RuntimeError, match="power cut"):
        train(cut, Halting(*steps, fail_in=2), data, run_dir=tmp_path / "cut", **keywords)
    resumed = two_convolutions(axes)
    train(resumed, data, data, run_dir=tmp_path / "cut", resume=True, **keywords)
    for file in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "True" / file).read_bytes()

    load_weights(first, tmp_path / "True/best.safetensors")
    assert first[0].weight.is_contiguous()
    assert torch.equal(first[0].weight, last[0].weight)
    score = evaluate_model(first, data, batch_size=16, channels_last=True, device="cpu")
    assert score == result.test
    assert is_last(first[0].weight)


def test_a_score_is_that_of_training_to_the_bit() -> None:
    """Where somebody watches the rates, other kernels run, whose sums differ in the last bits."""
    model = create_model("granule_convnet", image_shape=(1, 8, 8), time_steps=1)
    data = TensorDataset(torch.rand(96, 1, 8, 8), torch.arange(96) % 10)
    result = train(model, data, data, test_data=data, epochs=1, batch_size=8, **QUICK)
    assert evaluate_model(model, data, batch_size=8, device="cpu") == result.test


# --- every option with every network

SAME, OTHER, ANY = "the same weights", "other weights", "weights of any kind"
CASES: dict[str, dict[Any, str]] = {
    "data.name": {"digits": ANY},
    "data.root": {"others": OTHER},
    "data.classes": {("b", "a"): OTHER},
    "data.image_size": {(32, 34): ANY},
    "data.encoding": {
        "repeat": ANY,
        "poisson": ANY,
        "none": ANY,
        "moving_events": ANY,
        "columns": ANY,
    },
    "data.time_steps": {1: ANY, 3: ANY},
    "data.augment": {"flip": OTHER, "crop_flip": OTHER, "resized_crop_flip": OTHER},
    "data.permute": {True: OTHER},
    "data.held_out": {"seed": "error"},
    "data.train_limit": {6: OTHER},
    "data.cache": {True: SAME, False: SAME},
    "data.workers": {2: SAME},
    "train.epochs": {3: OTHER},
    "train.learning_rate": {0.05: OTHER},
    "train.batch_size": {2: OTHER, 100: OTHER},
    "train.accumulate": {2: ANY, "auto": SAME},
    "train.rule": {"delta": OTHER},
    "train.optimizer": {"adamw": OTHER},
    "train.weight_decay": {0.0: OTHER},
    "train.momentum": {0.0: OTHER},
    "train.warmup": {0.0: OTHER},
    "train.clip": {1e-3: OTHER, math.inf: ANY},
    "train.label_smoothing": {0.1: OTHER},
    "train.precision": {"float32": SAME, "bfloat16": OTHER, "tf32": "error"},
    "train.compile": {True: SAME, "reduce-overhead": SAME},
    "train.cuda_graph": {True: SAME},
    "train.channels_last": {True: SAME},
    "train.shard": {True: SAME},  # of one process
    "train.split": {"neurons": SAME},
    "train.device": {"cpu:0": SAME},
    "train.seeds": {(1,): OTHER},
    "train.output": {"elsewhere": SAME},
    "train.max_steps": {2: OTHER},
    "train.save_steps": {1: SAME},
    "train.save_minutes": {1e-9: SAME, math.inf: SAME},
    "train.keep": {1: SAME},
    "train.tensorboard": {True: SAME},
    "train.test": {False: SAME},
}
DATA = {"name": "folder", "root": "photographs", "time_steps": 2}
TRAIN = {
    "epochs": 10, "learning_rate": 0.1, "batch_size": 4, "max_steps": 1, "optimizer": "sgd",
    "device": "cpu",
}  # fmt: skip
CELLS = {"granule": {"cells": 20}, "purkinje": {"cells": 4}}
SIZES: dict[str, Any] = {
    "cerebellum_base": CELLS, "cerebellum_small": CELLS, "resnet18_granule": {"width": 4},
    "alexnet": {"width": 64}, "mobilenet_v3_small": {"width": 64}, "vit": {"width": 8, "depth": 2},
}  # fmt: skip
HEAVY = {
    "resnet18": ("train.channels_last", True), "cerebellum_base": ("data.workers", 2),
    "mobilenet_v3_small": ("train.weight_decay", 0.0), "lstm": ("data.workers", 2),
    "gru": ("data.workers", 2),
}  # fmt: skip
# It refuses to smooth its own loss, and begins at zero, where nothing decays.
LEFT_OUT = {("perceptron", "train.label_smoothing"), ("perceptron", "train.weight_decay")}
# Without a linear layer at the end, or with a loss of its own.
LEFT_OUT |= {(name, "train.rule") for name in ("k_tree", "purkinje_classifier", "perceptron")}


def every_case() -> Iterator[Any]:
    """Yields (network, key, value); the quick ones have every network and every value."""
    light = [name for name in list_models() if name not in HEAVY]
    cases = [(key, value) for key in CASES for value in CASES[key]]
    for number, (key, value) in enumerate(cases):
        for name in list_models():
            if (name, key) in LEFT_OUT:
                continue
            quick = name == light[number % len(light)] or HEAVY.get(name) == (key, value)
            marks = () if quick else pytest.mark.slow
            yield pytest.param(name, key, value, marks=marks, id=f"{name}-{key}-{value}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name, count in (("photographs", 6), ("others", 7)):
        write_photographs(root / name, train=count, val=2)
    return root


@pytest.fixture(scope="module")
def usual() -> dict[str, dict[str, Tensor]]:
    """Weights of networks after a step without further options, by name."""
    return {}


def step(name: str, folder: Path, key: str = "", value: Any = None, **keywords: Any) -> Any:
    """Returns a network's weights after a step, or the few that an option asks for."""
    side = 32 if "resnet" in name else 8
    table, _, option = key.partition(".")
    data = {"image_size": side, **DATA, **({option: value} if table == "data" else {})}
    data["root"] = str(folder / data["root"])
    settings = {**TRAIN, **({option: value} if table == "train" else {})}
    model = {"name": name, **SIZES.get(name, {})}
    seed = settings.get("seeds", (0,))[0]
    config, splits = resolve(Config(model, DataConfig(**data), TrainConfig(**settings)), seed)
    network = build(config)
    result = train(
        network, splits.train, splits.val, seed=seed, workers=config.data.workers, progress=False,
        **keywords, **asdict(config.train),
    )  # fmt: skip
    assert result.steps == settings["max_steps"]
    return network.state_dict()


@pytest.mark.parametrize(("name", "key", "value"), [*every_case()])
def test_every_option_trains_every_network(
    name: str, key: str, value: Any, folder: Path, usual: dict[str, dict[str, Tensor]],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    if key == "train.tensorboard":
        pytest.importorskip("tensorboard")
    expected = CASES[key][value]
    writes = any(word in key for word in ("save", "keep", "tensorboard"))
    keywords = {"run_dir": tmp_path} if writes else {}
    if expected == "error":
        with pytest.raises(ValueError, match=f"""{key.partition(".")[2]} ?= ?["']{value}"""):
            step(name, folder, key, value, **keywords)
        return
    graph = key == "train.cuda_graph"
    with pytest.warns(UserWarning, match="no CUDA graphs") if graph else nullcontext():
        weights = step(name, folder, key, value, **keywords)
    if expected == ANY:
        return
    if name not in usual:
        usual[name] = step(name, folder)
    before = usual[name]
    apart = [
        float((x - weights[k]).abs().max() / x.abs().max().clamp(min=1e-3))
        for k, x in before.items() if x.is_floating_point()
    ]  # fmt: skip
    assert max(apart) < 1e-4 if expected == SAME else max(apart) > 1e-6


def test_every_option_has_its_cases() -> None:
    """A new key, or a new choice of one, wants its line in CASES."""

    def choices(hint: Any) -> set[Any]:
        if get_origin(hint) in (Union, UnionType):
            return set().union(*map(choices, get_args(hint)))
        literal = get_origin(hint) is Literal
        return {True, False} if hint is bool else {*get_args(hint)} if literal else set()

    tables: dict[str, tuple[Any, dict[str, Any]]] = {
        "data": (DataConfig, DATA), "train": (TrainConfig, TRAIN),
    }  # fmt: skip
    keys = {
        f"{name}.{entry.name}" for name, (table, _) in tables.items() for entry in fields(table)
    }
    assert {*CASES} == keys
    for name, (table, base) in tables.items():
        hints = get_type_hints(table)
        for entry in fields(table):
            wanted = choices(hints[entry.name]) - {base.get(entry.name, entry.default)}
            assert wanted <= {*CASES[f"{name}.{entry.name}"]}, entry.name
