"""The loop: what it learns, writes, selects and refuses, and how a run that died goes on."""

import functools
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

from neuroconv.training import CheckpointError, TrainConfig, TrainResult, evaluate_model
from neuroconv.training.checkpoint import (
    load_tensors,
    load_weights,
    read_record,
    save_weights,
    write_record,
)
from neuroconv.training.loop import train
from neuroconv.training.optimizer import learning_rate_at, make_optimizer
from tests.training.small_runs import EpochData


@functools.cache
def digits() -> TensorDataset:
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return TensorDataset(images[order], torch.from_numpy(bunch.target)[order])


def part(start: int, stop: int) -> Subset[Any]:
    return Subset(digits(), range(start, stop))


def small_cnn(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(24 * 16, 10),
    )  # fmt: skip


def perceptron(classes: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


class Noisy(EpochData):
    """Fresh noise for each (epoch, index); counts the items that are read."""

    reads = 0

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.reads += 1
        image, label = self.data[index]
        generator = torch.Generator().manual_seed(self.epoch * 10_000 + index)
        return image + 0.1 * torch.randn(image.shape, generator=generator), label


def fit(model: nn.Module, data: Any = None, validation: Any = None, **keywords: Any) -> TrainResult:
    """Trains on 200 digits, with 100 for validation, unless other data are given."""
    data = part(0, 200) if data is None else data
    validation = part(200, 300) if validation is None else validation
    quick = {"learning_rate": 1e-2, "batch_size": 64, "progress": False}
    return train(model, data, validation, **{**quick, **keywords})


def same(first: nn.Module, second: nn.Module) -> bool:
    values = second.state_dict()
    return all(torch.equal(value, values[name]) for name, value in first.state_dict().items())


def test_a_small_network_learns_the_digits(tmp_path: Path) -> None:
    model, test_data = small_cnn(), part(1400, 1797)
    result = fit(
        model, part(0, 1200), part(1200, 1400), test_data=test_data, epochs=4, run_dir=tmp_path
    )
    assert result.test.accuracy > 0.9
    assert result.test.images == 397
    assert result.steps == 4 * (1200 // 64)
    assert not model.training
    assert result.test == evaluate_model(model, test_data, batch_size=64)

    *epochs, last = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    test = {"test_loss": result.test.loss, "test_accuracy": result.test.accuracy}
    assert last == {"best_epoch": result.best_epoch, **test, "test_images": 397}
    assert epochs == result.history
    assert [line["epoch"] for line in epochs] == [1, 2, 3, 4]
    keys = "epoch train_loss train_accuracy learning_rate images_per_second seconds val_loss"
    for line in epochs:
        assert list(line) == [*keys.split(), "val_accuracy"]
        assert all(math.isfinite(value) for value in line.values())
    again = small_cnn(seed=1)
    load_weights(again, tmp_path / "best.safetensors")
    assert same(model, again)


def test_the_seed_decides_the_weights_and_leaves_the_callers_generator_alone() -> None:
    trained = []
    for seed in (3, 3, 4):
        trained.append(small_cnn())
        before = torch.get_rng_state()
        fit(trained[-1], Noisy(part(0, 200)), epochs=2, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])


def test_a_checkpoint_is_neither_overwritten_nor_mixed_up(tmp_path: Path) -> None:
    fit(perceptron(), epochs=1, run_dir=tmp_path)
    with pytest.raises(ValueError, match="pass resume=True"):
        fit(perceptron(), epochs=1, run_dir=tmp_path)
    keywords: dict[str, Any] = {"epochs": 1, "run_dir": tmp_path, "resume": True}
    with pytest.raises(CheckpointError, match=r"learning_rate = 0.01, now 0.005"):
        fit(perceptron(), **keywords, learning_rate=5e-3)
    with pytest.raises(CheckpointError, match="another model"):
        fit(small_cnn(), **keywords)


# --- files


def test_files_that_are_missing_and_numbers_that_json_lacks(tmp_path: Path) -> None:
    record = tmp_path / "a.json"
    with pytest.raises(CheckpointError, match=r"a\.json: no such file"):
        read_record(record)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: missing"):
        load_tensors(tmp_path / "a.safetensors", "0" * 64)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(record, {"loss": math.nan})


def test_weights_keep_shared_tensors_layout_and_the_umask(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    path, plain = tmp_path / "w.safetensors", tmp_path / "plain"
    model, other = Tied(), Tied()
    save_weights(model, path)
    load_weights(other, path)
    assert same(model, other)
    assert other.second.weight is other.first.weight
    plain.touch()
    assert os.stat(path).st_mode == os.stat(plain).st_mode
    with pytest.raises(CheckpointError, match="does not fit Sequential"):
        load_weights(perceptron(), path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(other, tmp_path / "none")


# --- the selected epoch


def test_the_best_epoch_is_selected_by_validation_and_the_test_set_met_once() -> None:
    """Validation labels that contradict the training labels: the less is learned, the better."""
    images, labels = digits().tensors
    contrary = TensorDataset(images[600:800], (labels[600:800] + 1) % 10)
    model, test_data = small_cnn(), Noisy(part(800, 900))
    keywords: dict[str, Any] = {"test_data": test_data, "epochs": 8, "learning_rate": 4e-3}
    result = fit(model, part(0, 128), contrary, **keywords)
    best = max(result.history, key=lambda record: (record["val_accuracy"], -record["val_loss"]))
    assert result.best_epoch == best["epoch"] < 8
    assert result.val.accuracy == best["val_accuracy"] > result.history[-1]["val_accuracy"]
    assert evaluate_model(model, contrary, batch_size=64) == result.val
    assert test_data.reads == 100


def test_of_equal_accuracies_the_lower_loss_is_the_best() -> None:
    images, labels = digits().tensors
    data = TensorDataset(images[labels < 2], labels[labels < 2])
    validation = Subset(data, range(4))
    result = fit(perceptron(2), data, validation, epochs=5, learning_rate=0.1, batch_size=32)
    highest = [record for record in result.history if record["val_accuracy"] == 1]
    assert len(highest) > 1  # otherwise there is nothing to choose from
    lowest = min(highest, key=lambda record: record["val_loss"])
    assert result.best_epoch == lowest["epoch"] != highest[0]["epoch"]


# --- steps


def test_the_schedule_and_the_loop_that_follows_it() -> None:
    rates = [learning_rate_at(step, 100, 2.0, 0.2) for step in range(101)]
    assert rates[:20] == pytest.approx([2.0 * (step + 1) / 20 for step in range(20)])
    assert rates[20] == 2.0
    assert rates[40] == pytest.approx(2.0 * math.cos(math.pi / 8) ** 2)
    assert rates[60] == pytest.approx(1.0)
    assert rates[100] == 0
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert learning_rate_at(0, 1, 2.0, 0.0) == 2.0
    result = fit(perceptron(), part(0, 128), epochs=5)
    expected = [learning_rate_at(2 * epoch + 1, 10, 1e-2, 0.15) for epoch in range(5)]
    assert [record["learning_rate"] for record in result.history] == expected


@pytest.mark.parametrize("clip", [1e-3, math.inf])
def test_clipping_bounds_the_step(clip: float) -> None:
    model = perceptron()
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    images, labels = (tensor[:64] for tensor in digits().tensors)
    loss = nn.functional.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = float(nn.utils.parameters_to_vector(gradients).norm())
    assert norm > 1e-2
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup": 0.0}
    fit(model, part(0, 64), epochs=1, clip=clip, learning_rate=1.0, **plain)
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert float((after - before).norm()) == pytest.approx(min(clip, norm), rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_parameters_of_one_axis_do_not_decay(optimizer: Any) -> None:
    model = small_cnn()
    model[0].weight.requires_grad_(False)
    settings = TrainConfig(epochs=1, learning_rate=0.1, optimizer=optimizer, weight_decay=0.3)
    decayed, others = make_optimizer(model, settings).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0)
    assert [p.ndim for p in decayed["params"]] == [4, 2]  # the frozen one is in no group
    assert all(p.ndim == 1 for p in others["params"])
    assert optimizer == "sgd" or (decayed["fused"] and others["fused"])  # one kernel for a step


@pytest.mark.parametrize(
    ("images", "keywords", "steps"),
    [(10, {"epochs": 3}, 3), (129, {"epochs": 1}, 2), (129, {"epochs": 9, "max_steps": 3}, 3)],
)
def test_steps_of_small_data_and_incomplete_batches(
    images: int, keywords: dict[str, int], steps: int
) -> None:
    assert fit(small_cnn(), part(0, images), part(10, 20), **keywords).steps == steps


def test_bfloat16_trains_near_float32() -> None:
    precisions = ("float32", "bfloat16")
    results = [fit(small_cnn(), part(0, 400), epochs=2, precision=name) for name in precisions]
    losses = [result.history[-1]["train_loss"] for result in results]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


# --- what is refused


IMAGES, LABELS = torch.zeros(8, 1, 8, 8), torch.zeros(8).long()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (TensorDataset(IMAGES[:0], LABELS[:0]), ValueError, "train_data is empty"),
        (iter([]), TypeError, "train_data is a list_iterator: expected a map-style data set"),
        (TensorDataset(IMAGES, LABELS + 10), ValueError, "label 10: the model has 10 logits"),
        (TensorDataset(IMAGES, LABELS - 1), ValueError, "label -1"),
        (TensorDataset(IMAGES, LABELS.float()), ValueError, "expected one integer per input"),
        (TensorDataset(IMAGES, LABELS[:, None]), ValueError, "one integer per input"),
        (TensorDataset(IMAGES), TypeError, "must be .input, target., or a dictionary"),
    ],
)
def test_wrong_data(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fit(perceptron(), data)


def test_a_model_without_logits() -> None:
    with pytest.raises(ValueError, match=r"to \(64, 1, 8, 10\): expected logits \(64, classes\)"):
        fit(nn.Linear(8, 10))


@pytest.mark.parametrize(
    ("model", "keywords", "message"),
    [
        (perceptron(), {"validation": part(0, 0)}, "val_data is empty"),
        (perceptron(), {"test_data": part(0, 0)}, "test_data is empty"),
        (nn.Flatten(), {}, "Flatten has no parameter"),
        (perceptron(), {"epochs": 0}, "epochs = 0"),
        (perceptron(), {"device": "abacus"}, "device = 'abacus'"),
        (perceptron(), {"device": "cuda:99"}, "device = 'cuda:99'"),
    ],
)
def test_mistakes_are_noticed_before_training(
    model: nn.Module, keywords: dict[str, Any], message: str
) -> None:
    data = Noisy(part(0, 100))
    with pytest.raises(ValueError, match=message):
        fit(model, data, **keywords)
    assert data.reads == 0
