"""`cuda_graph = true`: on the CPU all but the recording itself, which only a GPU can show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from neuroconv.core.cuda_graph import CaptureError, record
from neuroconv.training import ConfigError, RunFailed, TrainConfig, step, train
from neuroconv.training.distributed import Ranks, check_device
from neuroconv.training.state import State
from neuroconv.zoo import list_models
from tests.scripts import loaded
from tests.training.processes import digits, granule_net, plain
from tests.training.small_runs import newest

pytestmark = pytest.mark.filterwarnings("ignore:cuda_graph = true. cpu has no CUDA graphs")
QUICK: dict[str, Any] = {
    "learning_rate": 1e-2, "device": "cpu", "progress": False, "epochs": 2, "batch_size": 24,
}  # fmt: skip
QUICKLY, SLOW = ("granule_convnet_conv3d",), pytest.mark.slow
TRACE = Path(__file__).parents[2] / "experiments" / "gpu" / "trace.py"


def network() -> nn.Module:
    """Granule layers with norms and draws, and dropout."""
    return nn.Sequential(granule_net(unit={"output": {"mean_wait": 0.5}}), nn.Dropout(0.2)).double()


def outcome(build: Callable[[], nn.Module] = network, data: Any = None, **keywords: Any) -> Any:
    """Returns weights, statistics and the result of a training."""
    model = build()
    data = digits(0, 80) if data is None else data
    result = train(model, data, digits(100, 130), **{**QUICK, **keywords})
    return model.state_dict(), plain(result)


def assert_equal(first: Any, second: Any) -> None:
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name
    assert first[1] == second[1]


@pytest.mark.parametrize(
    ("options", "interval"),
    [
        ({"optimizer": "sgd", "clip": 0.1, "weight_decay": 0.1}, 1),
        ({"accumulate": 2, "label_smoothing": 0.1, "clip": 1e-2}, 32),
        ({"precision": "bfloat16", "channels_last": True}, 32),
        pytest.param({"precision": "bfloat16", "accumulate": 2}, 1, marks=SLOW),
    ],
)
def test_it_changes_no_bit(
    options: dict[str, Any], interval: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do the calls that warm up: of weights, moments, statistics and generators."""
    monkeypatch.setitem(step._READ_INTERVAL, "cpu", interval)
    assert_equal(outcome(**options), outcome(cuda_graph=True, **options))


@pytest.mark.parametrize("interval", [pytest.param(1, marks=SLOW), 32])
def test_a_resumed_run_is_equal_to_the_bit(
    interval: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within an epoch, with moments and generators as they were."""
    monkeypatch.setitem(step._READ_INTERVAL, "cpu", interval)
    graph = {"cuda_graph": True, "save_steps": 1, "max_steps": 5}
    whole = outcome(run_dir=tmp_path / "whole", **graph)
    saves: list[int] = []

    def save(state: State, sums: Any = None) -> None:
        original(state, sums)
        saves.append(state.step)
        if len(saves) == 2:
            raise KeyError("power cut")

    original = State.save
    monkeypatch.setattr(State, "save", save)
    with pytest.raises(KeyError):
        outcome(run_dir=tmp_path / "cut", **graph)
    assert saves == [1, 2]
    assert_equal(whole, outcome(run_dir=tmp_path / "cut", resume=True, **graph))
    assert newest(tmp_path / "cut").read_bytes() == newest(tmp_path / "whole").read_bytes()


def test_batches_of_other_shapes_are_trained_without_the_graph() -> None:
    data = TensorDataset(torch.rand(24, 6).double(), torch.arange(24) % 10)

    def collate(items: list[Any]) -> Any:
        width = 2 + int(items[0][1]) % 3
        return torch.stack([x[:width] for x, _ in items]), torch.tensor([y for _, y in items])

    class Means(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(1, 10).double()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.linear(x.mean(1, keepdim=True))
            return logits

    results = []
    for graph in (False, True):
        loader = DataLoader(data, 4, shuffle=True, collate_fn=collate)
        model = Means()
        train(model, loader, loader, **{**QUICK, "batch_size": 4, "cuda_graph": graph})
        results.append((model.state_dict(), 0))
    assert_equal(*results)


def test_the_weights_stay_at_the_step_before_one_that_is_not_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though later steps have run before anyone looks."""
    inputs = torch.rand(40, 64)
    inputs[38] = torch.nan
    data, weights = TensorDataset(inputs, torch.arange(40) % 2), []
    for interval, graph in ((1, False), (32, False), (32, True)):
        monkeypatch.setitem(step._READ_INTERVAL, "cpu", interval)
        torch.manual_seed(0)
        model = nn.Linear(64, 2)
        with pytest.raises(RunFailed, match=r"step 3, .*loss nan"):
            train(model, data, data, **{**QUICK, "batch_size": 8, "cuda_graph": graph})
        weights.append((model.state_dict(), 0))
    assert_equal(weights[0], weights[1])
    assert_equal(weights[0], weights[2])


class Replacing(nn.Module):
    """A classifier with a buffer that is a new tensor after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 2)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.steps = self.steps + 1
        logits: Tensor = self.linear(x)
        return logits


def refuse(*_: object) -> Any:
    raise CaptureError("AcceleratorError: operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    ("model", "labels", "call", "message"),
    [
        (
            Replacing(),
            2,
            record,
            "step of Replacing cannot .*it replaces its buffer steps",
        ),
        (
            nn.Linear(64, 2),
            2,
            refuse,
            "cuda_graph = true: .* of Linear .*not permitted when",
        ),
        (nn.Linear(64, 2), 3, record, "label 2: the model has 2 logits"),
    ],
)
def test_what_no_graph_can_hold_is_refused(
    model: nn.Module, labels: int, call: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "record", call)
    data = TensorDataset(torch.rand(40, 64), torch.arange(40) // 20 % labels)
    data.tensors[1][-1] = labels - 1
    with pytest.raises(ValueError, match=message):
        train(model, data, data, **{**QUICK, "batch_size": 4, "cuda_graph": True})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": "reduce-overhead", "accumulate": 2}, "expected accumulate = 1"),
        ({"compile": "reduce-overhead", "cuda_graph": True}, "and cuda_graph = false"),
        ({"compile": "fast"}, "compile = 'fast': expected true or false or one of reduce-"),
        ({"cuda_graph": True}, "cuda_graph = true, .* in 2 processes: expected one"),
        ({"compile": "reduce-overhead"}, 'or compile = "reduce-overhead", in 2 processes'),
    ],
)
def test_what_does_not_go_with_graphs(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> None:
        config = TrainConfig(epochs=1, learning_rate=1.0, device="cpu", **options)
        check_device(config, 100, Ranks(0, 2))

    monkeypatch.setattr(torch, "compile", lambda call: call)
    with pytest.raises(ConfigError, match=message):
        check()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICKLY else SLOW) for n in list_models()]
)
def test_a_step_on_cuda_neither_copies_from_the_host_nor_waits(name: str, optimizer: str) -> None:
    """Which a recording would refuse; on CUDA tensors without data."""
    trace = loaded(TRACE).training_step(name, optimizer=optimizer)
    assert trace.copies == []
    assert trace.launches["_fused_sgd_" if optimizer == "sgd" else "_fused_adamw_"] == 2
