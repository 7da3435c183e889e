import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from neuroconv.training import (
    CheckpointError,
    ConfigError,
    evaluate_model,
    learning_rate_at,
    load_weights,
    save_weights,
    train,
)
from neuroconv.training.checkpoint import load_checkpoint, save_checkpoint, write_atomically
from neuroconv.training.config import TrainConfig
from neuroconv.training.optimizer import make_optimizer


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
        nn.Conv2d(1, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(24 * 16, 10),
    )


def perceptron(classes: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


class Noisy(Dataset[Any]):
    """Fresh noise for each (epoch, index), and an exception at the n-th item asked for."""

    def __init__(self, data: Dataset[Any], fail_at: int = -1, error: type = RuntimeError) -> None:
        self.data, self.fail_at, self.error = data, fail_at, error
        self.epoch, self.reads = 0, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.reads += 1
        if self.reads == self.fail_at:
            raise self.error("power cut")
        image, label = self.data[index]
        generator = torch.Generator().manual_seed(self.epoch * 10_000 + index)
        return image + 0.1 * torch.randn(image.shape, generator=generator), label


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


QUICK: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": 64, "progress": False}


def test_a_small_network_learns_the_digits(tmp_path: Path) -> None:
    model = small_cnn()
    result = train(
        model,
        part(0, 1200),
        part(1200, 1400),
        test_data=part(1400, 1797),
        epochs=4,
        run_dir=tmp_path,
        **QUICK,
    )
    assert result.test is not None
    assert result.test.accuracy > 0.9
    assert result.test.images == 397
    assert result.steps == 4 * (1200 // 64)
    assert not model.training
    assert result.test == evaluate_model(model, part(1400, 1797), batch_size=64)

    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[:-1] == result.history
    assert lines[-1] == {
        "best_epoch": result.best_epoch,
        "test_loss": result.test.loss,
        "test_accuracy": result.test.accuracy,
        "test_images": 397,
    }
    assert [line["epoch"] for line in lines[:-1]] == [1, 2, 3, 4]
    for line in lines[:-1]:
        assert set(line) == {
            "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate",
            "images_per_second", "seconds",
        }  # fmt: skip
        assert all(math.isfinite(value) for value in line.values())
        assert line["images_per_second"] * line["seconds"] == pytest.approx(18 * 64)
    assert lines[0]["train_loss"] > lines[3]["train_loss"]

    again = small_cnn(seed=1)
    load_weights(again, tmp_path / "best.safetensors")
    assert same(weights(model), weights(again))


def test_the_same_seed_gives_the_same_weights() -> None:
    trained = []
    for seed in (3, 3, 4):
        model = small_cnn()
        train(model, Noisy(part(0, 200)), part(200, 300), epochs=2, seed=seed, **QUICK)
        trained.append(weights(model))
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])


def test_the_callers_random_numbers_are_left_alone() -> None:
    model = small_cnn()
    before = torch.get_rng_state()
    train(model, part(0, 100), part(100, 150), epochs=1, **QUICK)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("fail_at", [1, 192 + 1, 2 * 192 + 100])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, fail_at: int) -> None:
    """200 images, so 192 are asked for in each of 3 epochs; the run dies at the n-th of them."""

    def go(folder: Path, data: Dataset[Any], resume: bool) -> Any:
        return train(
            small_cnn(), data, part(200, 300), test_data=part(300, 400), epochs=3, run_dir=folder,
            resume=resume, **QUICK,
        )  # fmt: skip

    whole = go(tmp_path / "whole", Noisy(part(0, 200)), False)
    with pytest.raises(RuntimeError, match="power cut"):
        go(tmp_path / "cut", Noisy(part(0, 200), fail_at), False)
    assert not (tmp_path / "cut/best.safetensors").exists()
    continued = go(tmp_path / "cut", Noisy(part(0, 200)), True)

    for file in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    timing = ("seconds", "images_per_second")
    for one, other in zip(whole.history, continued.history, strict=True):
        assert {k: v for k, v in one.items() if k not in timing} == {
            k: v for k, v in other.items() if k not in timing
        }
    assert continued.test == whole.test
    assert continued.best_epoch == whole.best_epoch


def test_a_run_that_died_after_its_last_epoch_only_writes_its_results(tmp_path: Path) -> None:
    keywords = {"epochs": 2, "run_dir": tmp_path, **QUICK}
    first = train(small_cnn(), part(0, 200), part(200, 300), **keywords)
    for file in ("best.safetensors", "last.safetensors"):
        (tmp_path / file).rename(tmp_path / f"old-{file}")
    again = train(small_cnn(5), part(0, 200), part(200, 300), resume=True, **keywords)
    assert again.history == first.history
    for file in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / file).read_bytes() == (tmp_path / f"old-{file}").read_bytes()


def test_interruption_by_the_keyboard_says_how_to_go_on(tmp_path: Path) -> None:
    data = Noisy(part(0, 200), fail_at=250, error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt, match=f"neuroconv resume {tmp_path}"):
        train(small_cnn(), data, part(200, 300), epochs=3, run_dir=tmp_path, **QUICK)
    assert len(load_checkpoint(tmp_path / "checkpoint.pt")["history"]) == 1


def test_a_checkpoint_is_neither_overwritten_nor_mixed_up(tmp_path: Path) -> None:
    keywords = {"epochs": 2, "run_dir": tmp_path, **QUICK}
    train(small_cnn(), part(0, 200), part(200, 300), **keywords)
    with pytest.raises(ValueError, match="pass resume=True"):
        train(small_cnn(), part(0, 200), part(200, 300), **keywords)
    keywords["learning_rate"] = 5e-3
    with pytest.raises(CheckpointError, match=r"learning_rate = 0.01, not 0.005"):
        train(small_cnn(), part(0, 200), part(200, 300), resume=True, **keywords)
    keywords["learning_rate"] = 1e-2
    with pytest.raises(CheckpointError, match="another model"):
        train(perceptron(), part(0, 200), part(200, 300), resume=True, **keywords)


@pytest.mark.parametrize("position", [0, 40, -1])
def test_a_damaged_checkpoint_is_noticed(tmp_path: Path, position: int) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"weights": torch.arange(100.0), "step": 3})
    assert load_checkpoint(path)["step"] == 3
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: damaged"):
        load_checkpoint(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)
    path.unlink()
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, lambda file: file.write_text("old"))

    def fail(file: Path) -> None:
        file.write_text("half of the new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_weights_keep_shared_tensors_layout_and_the_umask(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    path = tmp_path / "w.safetensors"
    model, other = Tied(), Tied()
    save_weights(model, path)
    load_weights(other, path)
    assert same(weights(model), weights(other))
    assert other.second.weight is other.first.weight
    plain = tmp_path / "plain"
    plain.touch()
    assert os.stat(path).st_mode == os.stat(plain).st_mode

    with pytest.raises(CheckpointError, match="does not fit Sequential"):
        load_weights(perceptron(), path)
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(other, path, sha256="0" * 64)
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(other, tmp_path / "none")


def test_the_best_epoch_is_selected_by_validation_and_the_test_set_met_once() -> None:
    """Validation labels that contradict the training labels: the less is learned, the better."""
    images, labels = digits().tensors
    contrary = TensorDataset(images[600:800], (labels[600:800] + 1) % 10)
    test_data = Noisy(part(800, 900))
    model = small_cnn()
    result = train(
        model, part(0, 128), contrary, test_data=test_data, epochs=8, batch_size=64,
        learning_rate=4e-3, progress=False,
    )  # fmt: skip
    best = max(result.history, key=lambda record: (record["val_accuracy"], -record["val_loss"]))
    assert result.best_epoch == best["epoch"] < 8
    assert result.val.accuracy == best["val_accuracy"] > result.history[-1]["val_accuracy"]
    assert evaluate_model(model, contrary, batch_size=64) == result.val
    assert test_data.reads == 100


def test_of_equal_accuracies_the_lower_loss_is_the_best() -> None:
    images, labels = digits().tensors
    two = labels < 2
    data = TensorDataset(images[two], labels[two])
    result = train(
        perceptron(2), data, Subset(data, range(4)), epochs=5, learning_rate=0.1, batch_size=32,
        progress=False,
    )  # fmt: skip
    highest = [record for record in result.history if record["val_accuracy"] == 1]
    assert len(highest) > 1  # otherwise there is nothing to choose from
    lowest = min(highest, key=lambda record: record["val_loss"])
    assert result.best_epoch == lowest["epoch"] != highest[0]["epoch"]


def test_schedule() -> None:
    rates = [learning_rate_at(step, 100, 2.0, 0.2) for step in range(100)]
    for step in range(20):
        assert rates[step] == pytest.approx(2.0 * (step + 1) / 20)
    assert rates[20] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[40] == pytest.approx(2.0 * math.cos(math.pi / 8) ** 2)
    assert learning_rate_at(100, 100, 2.0, 0.2) == 0
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert learning_rate_at(0, 1, 2.0, 0.0) == 2.0


def test_the_loop_follows_the_schedule() -> None:
    result = train(perceptron(), part(0, 128), part(128, 150), epochs=5, **QUICK)
    expected = [learning_rate_at(2 * epoch + 1, 10, 1e-2, 0.15) for epoch in range(5)]
    assert [record["learning_rate"] for record in result.history] == expected


@pytest.mark.parametrize(("clip", "moved"), [(1e-3, 1e-3), (math.inf, None)])
def test_clipping_bounds_the_step(clip: float, moved: float | None) -> None:
    model = perceptron()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    images, labels = next(iter(torch.utils.data.DataLoader(part(0, 64), batch_size=64)))
    loss = nn.functional.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert norm > 1e-2
    result = train(
        model, part(0, 64), part(64, 80), epochs=1, optimizer="sgd", momentum=0.0,
        weight_decay=0.0, warmup=0.0, clip=clip, learning_rate=1.0, batch_size=64, progress=False,
    )  # fmt: skip
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert result.steps == 1
    assert (after - before).norm().item() == pytest.approx(moved or norm.item(), rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_parameters_of_one_axis_do_not_decay(optimizer: Any) -> None:
    model = small_cnn()
    model[0].weight.requires_grad_(False)
    settings = TrainConfig(epochs=1, learning_rate=0.1, optimizer=optimizer, weight_decay=0.3)
    decayed, kept = make_optimizer(model, settings).param_groups
    assert decayed["weight_decay"] == 0.3
    assert kept["weight_decay"] == 0
    assert [p.ndim for p in decayed["params"]] == [4, 2]  # the frozen one is in no group
    assert all(p.ndim == 1 for p in kept["params"])
    result = train(model, part(0, 128), part(128, 200), epochs=1, optimizer=optimizer, **QUICK)
    assert result.steps == 2


def test_batches_larger_than_the_data_and_incomplete_ones() -> None:
    model = small_cnn()  # batch norm would refuse nothing but a single sample's single value
    assert train(model, part(0, 10), part(10, 20), epochs=3, **QUICK).steps == 3
    assert train(model, part(0, 129), part(10, 20), epochs=1, **QUICK).steps == 2
    assert train(model, part(0, 129), part(10, 20), epochs=9, max_steps=3, **QUICK).steps == 3


@pytest.mark.slow  # test_training_batches.py compares what two workers load
def test_loading_processes_change_nothing() -> None:
    trained = []
    for workers in (0, 2):
        model = perceptron()
        train(model, Noisy(part(0, 200)), part(200, 250), epochs=2, workers=workers, **QUICK)
        trained.append(weights(model))
    assert same(*trained)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


IMAGES = torch.zeros(8, 1, 8, 8)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (TensorDataset(IMAGES[:0], torch.zeros(0).long()), ValueError, "train_data is empty"),
        (Stream(), TypeError, "train_data is a Stream: expected a map-style data set"),
        (
            TensorDataset(IMAGES, torch.full((8,), 10)),
            ValueError,
            "label 10: the model has 10 logits",
        ),
        (TensorDataset(IMAGES, torch.full((8,), -1)), ValueError, "label -1"),
        (TensorDataset(IMAGES, torch.zeros(8)), ValueError, "expected one integer per input"),
        (TensorDataset(IMAGES, torch.zeros(8, 1).long()), ValueError, "one integer per input"),
        (TensorDataset(IMAGES), TypeError, "must be .input tensor, integer label."),
    ],
)
def test_wrong_data(data: Dataset[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train(perceptron(), data, part(0, 9), epochs=1, **QUICK)


def test_wrong_validation_data_is_noticed_before_training() -> None:
    data = Noisy(part(0, 100))
    with pytest.raises(ValueError, match="val_data is empty"):
        train(perceptron(), data, part(0, 0), epochs=1, **QUICK)
    with pytest.raises(ValueError, match="test_data is empty"):
        train(perceptron(), data, part(0, 9), test_data=part(0, 0), epochs=1, **QUICK)
    assert data.reads == 0


def test_wrong_models_and_settings() -> None:
    with pytest.raises(ValueError, match=r"to \(64, 1, 8, 10\): expected logits \(64, classes\)"):
        train(nn.Linear(8, 10), part(0, 100), part(0, 9), **QUICK)
    with pytest.raises(ValueError, match="Flatten has no parameter"):
        train(nn.Flatten(), part(0, 100), part(0, 9), **QUICK)
    with pytest.raises(ConfigError, match="epochs = 0"):
        train(perceptron(), part(0, 100), part(0, 9), epochs=0, **QUICK)
    with pytest.raises(ConfigError, match="device = 'abacus'"):
        train(perceptron(), part(0, 100), part(0, 9), device="abacus", **QUICK)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_cuda_that_is_absent() -> None:
    with pytest.raises(ConfigError, match="device = 'cuda'"):
        train(perceptron(), part(0, 100), part(0, 9), device="cuda", **QUICK)


def test_progress_off_the_terminal_is_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    train(perceptron(), part(0, 100), part(0, 9), epochs=2, batch_size=50)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("Sequential  epoch 2/2  loss ")
    train(perceptron(), part(0, 100), part(0, 9), epochs=2, batch_size=50, progress=False)
    assert capsys.readouterr().err == ""


def test_bfloat16_trains_near_float32() -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        result = train(
            small_cnn(), part(0, 400), part(400, 500), epochs=2, precision=precision, **QUICK
        )
        losses.append(result.history[-1]["train_loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_step_in_bfloat16_on_cuda(tmp_path: Path) -> None:
    model = small_cnn()
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    result = train(
        model, part(0, 200), part(200, 250), test_data=part(250, 300), epochs=2, max_steps=4,
        run_dir=tmp_path, **QUICK,
    )  # fmt: skip
    assert result.steps == 4
    assert set(seen) == {torch.bfloat16}
    assert next(model.parameters()).device.type == "cuda"
    assert next(model.parameters()).dtype == torch.float32
    again = small_cnn(1)
    load_weights(again, tmp_path / "best.safetensors")
    assert same(weights(model.cpu()), weights(again))
