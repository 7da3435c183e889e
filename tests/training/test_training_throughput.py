"""Batches in parts, compiled models, memory formats, and how seldom the device is asked."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from neuroconv.training import (
    ConfigError,
    TrainConfig,
    evaluate_model,
    load_weights,
    metrics,
    train,
)
from neuroconv.training.checkpoint import load_checkpoint, save_checkpoint
from neuroconv.training.device import arithmetic_of, check_compiler, float32_arithmetic
from neuroconv.training.distributed import Ranks
from neuroconv.training.metrics import EpochMetrics, Part
from neuroconv.training.optimizer import make_optimizer
from neuroconv.training.progress import TrainingBar
from tests.training.processes import digits, granule_net

QUICK: dict[str, Any] = {"learning_rate": 1e-2, "device": "cpu", "progress": False}
CUDA = torch.device("cuda")


def plain_net() -> nn.Module:
    """Granule cells without batch norm and dropout, in float64."""
    return granule_net(unit={"norm": "none"})


# --- a batch in parts


@pytest.mark.parametrize(("batch_size", "accumulate", "images"), [(24, 4, 60), (96, 2, 51)])
def test_parts_of_a_batch_train_as_the_batch(batch_size: int, accumulate: int, images: int) -> None:
    results = []
    for parts in (1, accumulate):
        model, sizes = plain_net(), []
        model.register_forward_pre_hook(
            lambda module, inputs, sizes=sizes: (
                sizes.append(len(inputs[0])) if module.training else None
            )
        )
        result = train(
            model, digits(0, images), digits(100, 130), epochs=2, batch_size=batch_size,
            accumulate=parts, label_smoothing=0.1, **QUICK,
        )  # fmt: skip
        results.append((model.state_dict(), result, sizes))
    (wanted, whole, _), (weights, partly, sizes) = results
    for name, value in wanted.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-10, atol=1e-10)
    assert partly.steps == whole.steps
    for one, other in zip(whole.history, partly.history, strict=True):
        for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert other[key] == pytest.approx(one[key], rel=1e-10)
    assert len(sizes) == accumulate * partly.steps
    assert max(sizes) == math.ceil(min(batch_size, images) / accumulate)


def test_parts_that_do_not_divide_the_batch() -> None:
    with pytest.raises(ConfigError, match=r"accumulate = 3: expected a divisor of batch_size = 64"):
        TrainConfig(epochs=1, learning_rate=1e-3, batch_size=64, accumulate=3)
    with pytest.raises(ConfigError, match=r"3 images: expected at least 4 x 1"):
        train(plain_net(), digits(0, 3), digits(3, 6), batch_size=8, accumulate=4, **QUICK)


# --- looks at the device


class Steps(TrainingBar):
    def __init__(self) -> None:
        super().__init__("", epochs=1, steps=99, done=0, shown=False)
        self.shown: list[tuple[float, float, int]] = []

    def step(self, epoch: int, loss: float, accuracy: float, rate: float, steps: int = 1) -> None:
        self.shown.append((loss, accuracy, steps))


def metrics_of(
    losses: list[float], device: str, norms: dict[int, float] | None = None
) -> EpochMetrics:
    """One step for each loss, of two parts with one right answer of three each."""
    metrics = EpochMetrics(1, torch.device(device), Steps(), Ranks())
    for number, loss in enumerate(losses, start=1):
        part = Part(torch.tensor(loss), 3, torch.tensor(1))
        norm = torch.tensor((norms or {}).get(number, 1.0))
        metrics.add(number, number / 10, [part, part], norm)
    return metrics


@pytest.mark.parametrize(("device", "looks"), [("cpu", 70), ("cuda", 3)])
def test_cuda_is_looked_at_seldom_and_adds_up_the_same(device: str, looks: int) -> None:
    losses = torch.rand(70).tolist()
    metrics = metrics_of(losses, device)
    record = metrics.record()
    assert record["train_loss"] == pytest.approx(sum(losses) / 70, rel=1e-12)
    assert record["train_accuracy"] == pytest.approx(1 / 3)
    assert record["learning_rate"] == 7.0
    assert record["images_per_second"] * record["seconds"] == pytest.approx(70 * 6)
    assert isinstance(metrics.bar, Steps)
    assert len(metrics.bar.shown) == looks
    assert sum(steps for *_, steps in metrics.bar.shown) == 70


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("bad", [1, 31, 32, 33, 64, 70])
def test_the_step_that_is_not_finite_is_named(device: str, bad: int) -> None:
    losses = [1.0] * 70
    message = rf"epoch 1, step {bad}: loss nan, gradient norm 1 at learning rate {bad / 10:.3g}"
    with pytest.raises(FloatingPointError, match=message):
        metrics_of([*losses[: bad - 1], math.nan, *losses[bad:]], device).record()
    with pytest.raises(FloatingPointError, match=rf"step {bad}: loss 1, gradient norm inf"):
        metrics_of(losses, device, {bad: math.inf}).record()


def test_a_step_that_is_not_finite_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, where the steps after it have run before anyone looks."""
    monkeypatch.setitem(metrics._READ_INTERVAL, "cpu", 32)
    images = torch.rand(40, 64)
    images[0] = math.inf
    data = TensorDataset(images, torch.arange(40) % 2)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step \d+: loss"):
        train(nn.Linear(64, 2), data, data, batch_size=8, run_dir=tmp_path, **QUICK)
    assert list(tmp_path.iterdir()) == []


# --- the optimiser


def test_adamw_is_one_kernel_and_agrees_with_the_plain_one() -> None:
    settings = TrainConfig(epochs=1, learning_rate=1e-2, weight_decay=0.1)
    model, other = plain_net(), plain_net()
    fused = make_optimizer(model, settings)
    assert all(group["fused"] for group in fused.param_groups)
    groups = [{**group, "fused": False} for group in make_optimizer(other, settings).param_groups]
    plain = torch.optim.AdamW(groups)
    for _ in range(3):
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            two.grad = one.grad.clone()
        fused.step()
        plain.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_a_checkpoint_older_than_a_setting_goes_on(tmp_path: Path) -> None:
    data = TensorDataset(torch.rand(40, 64), torch.arange(40) % 2)
    keywords = {"batch_size": 8, "epochs": 1, "run_dir": tmp_path, **QUICK}
    train(nn.Linear(64, 2), data, data, **keywords)
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    for key in ("accumulate", "compile", "channels_last"):
        del saved["settings"][key]
    save_checkpoint(tmp_path / "checkpoint.pt", saved)
    train(nn.Linear(64, 2), data, data, resume=True, **keywords)
    with pytest.raises(ValueError, match="was made with accumulate = 1, not 2"):
        train(nn.Linear(64, 2), data, data, resume=True, accumulate=2, **keywords)


# --- memory format


def test_channels_last_changes_the_layout_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(48, 3, 6, 6), torch.arange(48) % 2)
    seen: list[bool] = []
    trained = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip
        if channels_last:
            model.register_forward_pre_hook(
                lambda module, inputs: seen.append(
                    inputs[0].is_contiguous(memory_format=torch.channels_last)
                )
            )
        folder = tmp_path / str(channels_last)
        train(
            model, data, data, epochs=2, batch_size=16, channels_last=channels_last,
            run_dir=folder, **QUICK,
        )  # fmt: skip
        trained.append(model)
    plain, last = trained
    assert last[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert seen
    assert all(seen)
    for one, two in zip(plain.state_dict().values(), last.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    load_weights(plain, tmp_path / "True/best.safetensors")
    assert plain[0].weight.is_contiguous()
    assert torch.equal(plain[0].weight, last[0].weight)


# --- arithmetic


def fp32_settings() -> list[Any]:
    cudnn: Any = torch.backends.cudnn
    return [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]


@pytest.mark.parametrize(("precision", "mode"), [("float32", "ieee"), ("tf32", "tf32")])
def test_float32_on_cuda_is_what_is_asked_for_and_is_put_back(precision: str, mode: str) -> None:
    before = [each.fp32_precision for each in fp32_settings()]
    inside = []

    def fail() -> None:
        with float32_arithmetic(precision, CUDA):
            inside.extend(each.fp32_precision for each in fp32_settings())
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert inside == [mode] * 3
    assert [each.fp32_precision for each in fp32_settings()] == before
    for other in ("auto", "bfloat16"):
        with float32_arithmetic(other, CUDA):
            assert [each.fp32_precision for each in fp32_settings()] == before


def test_the_arithmetic_of_a_run() -> None:
    cpu = torch.device("cpu")
    assert [arithmetic_of("auto", each) for each in (cpu, CUDA)] == ["float32", "bfloat16"]
    assert arithmetic_of("tf32", CUDA) == "tf32"
    with pytest.raises(ConfigError, match=r'"tf32" on the device "cpu": expected "float32" or'):
        arithmetic_of("tf32", cpu)
    data = TensorDataset(torch.rand(8, 4), torch.arange(8) % 2)
    with pytest.raises(ConfigError, match='"tf32" on the device "cpu"'):
        train(nn.Linear(4, 2), data, data, precision="tf32", **QUICK)


# --- torch.compile


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """torch.compile without its C++ code; the number of graphs that it has made."""
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    return lambda: int(counters["stats"]["unique_graphs"])


def compile_and_compare(tmp_path: Path, close: float) -> None:
    """Two runs after one another, which share what was compiled, against plain ones."""
    for seed in (0, 1):
        trained = []
        for compile in (False, True):
            model = granule_net(widths=(4,), strides=(2,))
            names = list(model.state_dict())
            folder = tmp_path / f"{seed}-{compile}"
            result = train(
                model, digits(0, 64), digits(100, 170), test_data=digits(200, 270), epochs=2,
                batch_size=16, compile=compile, seed=seed, run_dir=folder, **QUICK,
            )  # fmt: skip
            assert list(model.state_dict()) == names
            assert list(load_checkpoint(folder / "checkpoint.pt")["model"]) == names
            assert not any(module._forward_hooks for module in model.modules())
            trained.append((model, result))
        (plain, wanted), (model, result) = trained
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=close, atol=close)
        for one, other in zip(wanted.history, result.history, strict=True):
            assert other["val_loss"] == pytest.approx(one["val_loss"], rel=close)
            assert other["activity"].keys() == one["activity"].keys() == {"units.0"}
            for path, part in one["activity"].items():
                assert other["activity"][path] == pytest.approx(part, rel=close)
        assert result.test is not None
        load_weights(plain, tmp_path / f"{seed}-True/best.safetensors")
        again = evaluate_model(plain, digits(200, 270), batch_size=16, device="cpu")
        assert again.loss == pytest.approx(result.test.loss, rel=close)


def test_a_compiled_model_trains_as_the_plain_one(
    tmp_path: Path, graphs: Callable[[], int]
) -> None:
    compile_and_compare(tmp_path, 1e-9)
    # Of the check, of training and of evaluation: no epoch, watch or last batch makes another.
    assert graphs() == 3


@pytest.mark.slow
def test_a_model_compiled_to_machine_code_trains_as_the_plain_one(tmp_path: Path) -> None:
    torch.compiler.reset()
    compile_and_compare(tmp_path, 1e-9)


@pytest.mark.slow
def test_without_a_compiler_the_error_says_what_to_install() -> None:
    program = (
        "import torch\n"
        "from neuroconv.training.device import check_compiler\n"
        "try:\n"
        "    check_compiler(torch.device('cpu'))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    environment = {
        **os.environ,
        "CXX": "no-such-compiler",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    }
    printed = subprocess.check_output([sys.executable, "-c", program], text=True, env=environment)
    assert "compile = true: torch.compile does not work for cpu here" in printed
    assert "install a C++ compiler (g++ or clang++), or set compile = false" in printed


def test_whatever_the_compiler_says_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(call: Any) -> Any:
        raise OSError("no room\nfor it")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(ConfigError, match=r"for cpu here \(OSError: no room\): install a C\+\+"):
        check_compiler(torch.device("cpu"))
    data = TensorDataset(torch.rand(8, 4), torch.arange(8) % 2)
    with pytest.raises(ConfigError, match="or set compile = false"):
        train(nn.Linear(4, 2), data, data, compile=True, **QUICK)
