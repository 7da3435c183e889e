"""`cuda_graph = true`: on the CPU all but the recording itself, which only a GPU can show."""

import copy
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neuroconv.core.cuda_graph import CaptureError, record
from neuroconv.training import ConfigError, TrainConfig, step, train
from neuroconv.training.distributed import Ranks, check_device
from neuroconv.training.signals import Interrupted
from neuroconv.training.trainer import Trainer
from tests.scripts import loaded
from tests.training.processes import digits, granule_net, plain

pytestmark = pytest.mark.filterwarnings("ignore:cuda_graph = true. cpu has no CUDA graphs")
QUICK: dict[str, Any] = {
    "learning_rate": 1e-2, "device": "cpu", "progress": False, "epochs": 2, "batch_size": 24,
}  # fmt: skip
TRACE = Path(__file__).parents[2] / "experiments" / "gpu" / "trace.py"


def network() -> nn.Module:
    """Granule layers with norms and draws, and dropout."""
    granule = granule_net(widths=(4,), strides=(2,), unit={"output": {"mean_wait": 0.5}})
    return nn.Sequential(granule, nn.Dropout(0.2))


def outcome(model: nn.Module | None = None, data: Any = None, **keywords: Any) -> Any:
    """Returns weights, statistics and the result of a training."""
    model, sets = model or network(), [data, data] if data else [digits(0, 80), digits(100, 130)]
    result = train(model, *sets, **{**QUICK, **keywords})
    return model.state_dict(), plain(result)


def assert_equal(first: Any, second: Any) -> None:
    assert first[1] == second[1]
    torch.testing.assert_close(first[0], second[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "interval"),
    [
        ({"optimizer": "sgd", "clip": 0.1, "weight_decay": 0.1}, 1),
        ({"accumulate": 2, "label_smoothing": 0.1, "clip": 1e-2}, 32),
        ({"precision": "bfloat16", "channels_last": True}, 32),
    ],
)
def test_it_changes_no_bit(options: Any, interval: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do the calls that warm up: of weights, moments, statistics and generators."""
    monkeypatch.setitem(step._READ_INTERVAL, "cpu", interval)
    assert_equal(outcome(**options), outcome(cuda_graph=True, **options))


def test_a_resumed_run_is_equal_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within an epoch, with moments and generators as they were."""
    monkeypatch.setitem(step._READ_INTERVAL, "cpu", 32)
    whole = outcome(cuda_graph=True)
    monkeypatch.setattr(Trainer, "_due", lambda run: signal.SIGINT * (run.state.step == 1))
    keywords = {"cuda_graph": True, "run_dir": tmp_path, "resume": True}
    with pytest.raises(Interrupted, match="at step 2, with 0 epochs"):
        outcome(**keywords)
    assert_equal(whole, outcome(**keywords))


def test_batches_of_other_shapes_are_trained_without_the_graph() -> None:
    def collate(items: list[Any]) -> Any:
        width = 4 + int(items[0][1]) % 3
        return torch.stack([x[:width] for x, _ in items]), torch.tensor([y for _, y in items])

    data = TensorDataset(torch.rand(24, 6), torch.arange(24) % 10)
    loader = DataLoader(data, 4, shuffle=True, collate_fn=collate)
    model = nn.Sequential(nn.AdaptiveAvgPool1d(4), nn.Linear(4, 10))
    twin = copy.deepcopy(model)
    plainly = outcome(model, loader, batch_size=4)
    assert_equal(plainly, outcome(twin, loader, batch_size=4, cuda_graph=True))


def test_a_recording_takes_a_call_after_those_that_warm_up_and_names_what_failed() -> None:
    """With a stand-in for torch.cuda: what the recording asks of it, not what it does."""
    names = ("CUDAGraph", "Stream", "current_stream", "stream", "device", "graph")
    with mock.patch.multiple(torch.cuda, **dict.fromkeys(names, mock.DEFAULT)) as cuda:
        call = mock.Mock(side_effect=range(4))
        replay = record(call, torch.device("cuda"))
        assert [replay(), replay(), call.call_count] == [3, 3, 4]
        assert cuda["CUDAGraph"].return_value.replay.call_count == 2
        cuda["graph"].return_value.__exit__.side_effect = RuntimeError("capture is invalid")
        call.side_effect = (0, 1, 2, RuntimeError("no .item() here\nfor a reason"))
        with pytest.raises(CaptureError, match=r"^RuntimeError: no .item\(\) here$"):
            record(call, torch.device("cuda"))


def test_what_no_graph_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, labels = nn.Linear(64, 2), torch.arange(40) // 20

    def refused(message: str) -> None:
        data = TensorDataset(torch.rand(40, 64), labels)
        with pytest.raises(ValueError, match=message):
            outcome(model, data, batch_size=4, cuda_graph=True)

    with monkeypatch.context() as patch:
        patch.setattr(step, "record", mock.Mock(side_effect=CaptureError("it waits")))
        refused("step of Linear cannot be recorded .it waits.: .* set cuda_graph = false")
    model.register_buffer("count", torch.zeros(()))
    hook = model.register_forward_hook(lambda *_: setattr(model, "count", model.count + 1))
    refused("cuda_graph = true: .*it replaces its buffer count")
    hook.remove()
    labels[-1] = 2
    refused("label 2: the model has 2 logits")


def test_what_does_not_go_with_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda call: call)
    compiled: dict[str, Any] = {"compile": "reduce-overhead"}
    for options, size, message in (
        ({**compiled, "accumulate": 2}, 1, 'compile = "reduce-overhead": expected accumulate = 1'),
        ({**compiled, "cuda_graph": True}, 1, "and cuda_graph = false, since"),
        ({"cuda_graph": True}, 2, "cuda_graph = true, .* in 2 processes: expected one"),
        (compiled, 2, 'or compile = "reduce-overhead", in 2 processes'),
    ):
        with pytest.raises(ConfigError, match=message):
            check_device(TrainConfig(1, 0.1, device="cpu", **options), 100, Ranks(0, size))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n != "plain_cnn"))
        for n in loaded(TRACE).traceable()
    ],
)
def test_a_graph_can_hold_every_network(name: str) -> None:
    """On CUDA tensors without data: a step neither copies from the host nor waits, and for
    torch.compile it is one program that changes running statistics alone in place."""
    trace = loaded(TRACE)
    for optimizer in ("adamw", "sgd"):
        taken = trace.training_step(name, optimizer=optimizer)
        assert taken.copies == []
        assert taken.launches[f"_fused_{optimizer}_"] == 2
    devices, changed = trace.compiled(name)
    assert devices == {"cuda"}
    assert all("running" in key or "num_batches" in key for key in changed)
