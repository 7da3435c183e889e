"""Batches in parts, compiled models, arithmetic, and how seldom CUDA is read."""

import math
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.data import TensorDataset

from neuroconv.core.autocast import widest_float
from neuroconv.training import ConfigError, RunFailed, step, train
from neuroconv.training.device import arithmetic_of, choose_device, float32_arithmetic
from neuroconv.training.distributed import Ranks
from neuroconv.training.metrics import EpochMetrics, TrainingBar
from tests.training.processes import assert_close, digits, granule_net, plain
from tests.training.small_runs import newest

QUICK: dict[str, Any] = {"learning_rate": 1e-2, "device": "cpu", "progress": False}
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PAIRS = TensorDataset(torch.linspace(0, 1, 40 * 64).view(40, 64), torch.arange(40) % 2)


# --- a batch in parts


@pytest.mark.parametrize(("batch_size", "accumulate", "images"), [(24, 4, 60), (96, 2, 51)])
def test_parts_of_a_batch_train_as_the_batch(batch_size: int, accumulate: int, images: int) -> None:
    """Without batch norm, which sees one part at a time."""
    outcomes = []
    for parts in (1, accumulate):
        model = granule_net(unit={"norm": "none"})
        sizes = []
        model.register_forward_pre_hook(
            lambda module, inputs, sizes=sizes: sizes.append(len(inputs[0]) * module.training)
        )
        result = train(
            model, digits(0, images), digits(100, 130), test_data=digits(130, 131), epochs=2,
            batch_size=batch_size, accumulate=parts, label_smoothing=0.1, **QUICK,
        )  # fmt: skip
        outcomes.append({"weights": model.state_dict(), "result": plain(result)})
    assert_close(*outcomes)
    assert sum(size > 0 for size in sizes) == accumulate * outcomes[0]["result"]["steps"]
    assert max(sizes) == math.ceil(min(batch_size, images) / accumulate)


# --- reading the device


class Steps(TrainingBar):
    def __init__(self) -> None:
        super().__init__("", epochs=1, steps=99, done=0, shown=False)
        self.counts: list[int] = []

    def step(self, epoch: int, means: dict[str, float], rate: float, steps: int = 1) -> None:
        self.counts.append(steps)


def metrics_of(losses: list[float], interval: int, norms: dict[int, float]) -> Any:
    """One step for each loss, of two parts with one right answer of three each; and problems."""
    metrics = EpochMetrics(1, ["accuracy"], interval, Steps(), Ranks())
    problems = []
    for number, loss in enumerate(losses, start=1):
        numbers = torch.tensor([loss, 1, loss, 1, norms.get(number, 1.0)])
        problems.append(metrics.add(number, number / 10, numbers, [3, 3], [number]))
    return metrics, [problem for problem in (*problems, metrics.read()) if problem]


@pytest.mark.parametrize(("interval", "reads"), [(1, 70), (32, 3)])
def test_cuda_is_read_seldom_and_adds_up_the_same(interval: int, reads: int) -> None:
    losses = torch.rand(70).tolist()
    metrics, problems = metrics_of(losses, interval, {})
    record = metrics.record()
    assert not problems
    assert record["train_loss"] == pytest.approx(sum(losses) / 70, rel=1e-12)
    assert record["train_accuracy"] == pytest.approx(1 / 3)
    assert record["learning_rate"] == 7.0
    assert record["images_per_second"] * record["seconds"] == pytest.approx(70 * 6)
    assert (len(metrics.bar.counts), sum(metrics.bar.counts)) == (reads, 70)


@pytest.mark.parametrize("interval", [1, 32])
@pytest.mark.parametrize("bad", [1, 32, 33, 70])
def test_the_step_that_is_not_finite_is_named(interval: int, bad: int) -> None:
    losses, rate = [1.0] * 70, f"learning rate {bad / 10:.3g}"
    _, (problem, *_) = metrics_of(losses, interval, {bad: math.inf})
    assert problem == (bad, f"loss 1, gradient norm inf, {rate}", [bad])
    losses[bad - 1] = math.nan
    _, (problem, *_) = metrics_of(losses, interval, {})
    assert problem == (bad, f"loss nan, gradient norm 1, {rate}", [bad])


@pytest.mark.filterwarnings("ignore:cuda_graph = true. cpu has no CUDA graphs")
@pytest.mark.parametrize(("interval", "graph"), [(1, False), (32, False), (32, True)])
def test_a_step_that_is_not_finite_changes_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: int, graph: bool
) -> None:
    """As on CUDA too, where the steps after it have run before anyone looks."""
    monkeypatch.setitem(step._READ_INTERVAL, "cpu", interval)
    inputs = PAIRS.tensors[0].clone()
    inputs[38] = math.nan
    model, before = nn.Linear(64, 2), nn.Linear(64, 2)
    before.load_state_dict(model.state_dict())
    train(before, PAIRS, PAIRS, batch_size=8, max_steps=2, **QUICK)
    with pytest.raises(RunFailed, match=r"epoch 1, step 3, .*loss nan.*inputs \[38\] of the"):
        train(
            model, TensorDataset(inputs, PAIRS.tensors[1]), PAIRS, batch_size=8, run_dir=tmp_path,
            cuda_graph=graph, **QUICK,
        )  # fmt: skip
    torch.testing.assert_close(model.state_dict(), before.state_dict(), rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["failure.json"]


# --- arithmetic


@pytest.mark.parametrize(
    ("precision", "mode"),
    [("float32", "ieee"), ("tf32", "tf32"), ("auto", None), ("bfloat16", None)],
)
def test_float32_on_cuda_is_as_configured_and_is_put_back(precision: str, mode: str | None) -> None:
    def modes() -> list[str]:
        cudnn: Any = torch.backends.cudnn
        settings = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
        return [setting.fp32_precision for setting in settings]

    before = modes()
    with suppress(RuntimeError), float32_arithmetic(precision, CUDA):
        inside = modes()
        old = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        raise RuntimeError("power cut")
    assert mode is None or old == (mode == "tf32",) * 2  # torch.compile and libraries read these
    assert inside == (before if mode is None else [mode] * 3)
    assert modes() == before


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("present", ["", "mps", "xpu mps", "cuda xpu mps"])
def test_the_automatic_device(
    present: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("cuda", "xpu", "mps"):
        monkeypatch.setattr(getattr(torch, kind), "is_available", lambda kind=kind: kind in present)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    kinds = present.split() if processes == 1 else ["cuda"] * ("cuda" in present)
    assert choose_device("auto").type == [*kinds, "cpu"][0]


def test_the_arithmetic_of_a_run() -> None:
    assert [arithmetic_of("auto", device) for device in (CPU, CUDA)] == ["float32", "bfloat16"]
    assert arithmetic_of("tf32", CUDA) == "tf32"
    assert widest_float(torch.device("mps")) == torch.float32  # it has no float64
    with pytest.raises(ConfigError, match=r'"tf32" on the device "cpu": expected "float32" or'):
        train(nn.Linear(64, 2), PAIRS, PAIRS, precision="tf32", **QUICK)


# --- torch.compile


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_model_trains_as_the_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Two runs after one another, which share what was compiled, against plain ones."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    for seed in (0, 1):
        outcomes = []
        for compiled in (False, True):
            model, folder = granule_net(widths=(4,), strides=(2,)), tmp_path / f"{seed}-{compiled}"
            names = list(model.state_dict())
            result = train(
                model, digits(0, 64), digits(100, 170), test_data=digits(200, 270), epochs=2,
                batch_size=16, compile=compiled, seed=seed, run_dir=folder, **QUICK,
            )  # fmt: skip
            assert list(model.state_dict()) == names
            held = {name.removeprefix("model.") for name in load_file(newest(folder))}
            assert {*names} <= held
            assert not any(module._forward_hooks for module in model.modules())
            assert all(list(record["activity"]) == ["units.0"] for record in result.history)
            outcomes.append({"weights": model.state_dict(), "result": plain(result)})
        assert_close(*outcomes)
    # Of the check, of training and of evaluation: no epoch, monitor or last batch makes another.
    assert counters["stats"]["unique_graphs"] == 3


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(call: Any) -> Any:
        raise OSError("no room\nfor it")

    monkeypatch.setattr(torch, "compile", fail)
    message = r"cpu here \(OSError: no room\): install a C\+\+ compiler.* or set compile = false"
    with pytest.raises(ConfigError, match=message):
        train(nn.Linear(64, 2), PAIRS, PAIRS, compile=True, **QUICK)
