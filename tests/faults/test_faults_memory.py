"""Memory that runs out: fewer inputs at once, the same batch; all that is on the disk stays."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from neuroconv.training import CheckpointError, train

DATA = TensorDataset(torch.linspace(0, 1, 64 * 6).view(64, 6), torch.arange(64) % 3)
QUICK = {"learning_rate": 1e-2, "batch_size": 24, "epochs": 2, "device": "cpu", "progress": False}

# The system refuses memory beyond what the process has and some MB: half of the batch needs less.
LIMITED = """
import json, resource, sys, torch
from torch import nn
from torch.utils.data import TensorDataset
from neuroconv.training import train
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 1 << 18), nn.ReLU(), nn.Linear(1 << 18, 2))
data = TensorDataset(torch.rand(64, 8), torch.arange(64) % 2)
train(nn.Linear(8, 2), data, data, epochs=1, batch_size=64, device="cpu", progress=False)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), used + (200 << 20)))
result = train(
    model, data, data, epochs=1, batch_size=64, device="cpu", progress=False, run_dir=sys.argv[1],
    accumulate=json.loads(sys.argv[2]), optimizer="sgd",
)
print(json.dumps([result.accumulate, result.steps]))
"""


def limited(folder: Path, accumulate: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED, str(folder), accumulate]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_memory_that_runs_out_halves_the_part_or_says_what_to_change(tmp_path: Path) -> None:
    """Memory that runs out: smaller parts by `accumulate = "auto"`, else what to change."""
    fitted = limited(tmp_path / "auto", '"auto"')
    assert fitted.returncode == 0, fitted.stderr
    parts, steps = json.loads(fitted.stdout)
    assert parts in (2, 4, 8, 16)
    assert steps == 1
    stopped = limited(tmp_path / "whole", "1")
    assert stopped.returncode == 1
    message = r"out of memory at step 1, in 64 inputs at once (.*): set [train] accumulate"
    for words in message.split(".*"):
        assert words in stopped.stderr, stopped.stderr


class Hungry(nn.Module):
    """A network that finds no memory for more inputs than its limit, as CUDA says it.

    After `steps` passes in training the limit is half.
    """

    def __init__(self, limit: int, steps: int = 999) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Dropout(), nn.Linear(9, 3)
        )
        self.limit, self.steps = limit, steps

    def forward(self, inputs: Tensor) -> Tensor:
        self.steps -= int(self.training)
        if self.training and len(inputs) > self.limit // (1 if self.steps >= 0 else 2):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.layers(inputs)


@pytest.mark.filterwarnings("ignore:cuda_graph = true. cpu has no CUDA graphs")
@pytest.mark.parametrize(("limit", "parts"), [(24, 1), (12, 2), (11, 4), (3, 8)])
def test_parts_found_by_trial_train_as_parts_that_were_asked_for(limit: int, parts: int) -> None:
    """Parts found by trial: they train as parts that were asked for."""
    model, expected = Hungry(limit), Hungry(64)
    result = train(model, DATA, DATA, accumulate="auto", cuda_graph=parts == 2, **QUICK)
    train(expected, DATA, DATA, accumulate=parts, **QUICK)
    assert result.accumulate == parts
    weights = expected.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_parts_are_recorded_restored_and_a_change_is_told(tmp_path: Path) -> None:
    """Parts found by trial: recorded, restored on resume, and a change is told."""
    keywords = {**QUICK, "run_dir": tmp_path, "resume": True, "accumulate": "auto"}
    train(Hungry(12), DATA, DATA, max_steps=3, **keywords)
    with pytest.raises(CheckpointError, match="max_steps = 3, now None"):
        train(Hungry(64), DATA, DATA, **keywords)
    roomy = train(Hungry(64), DATA, DATA, force=True, **keywords)
    assert roomy.accumulate == 2  # as before, for the sake of the same numbers


@pytest.mark.parametrize(
    ("accumulate", "message"), [("auto", "a step of 1 input "), (2, "12 inputs")]
)
def test_what_does_not_fit_at_all_is_an_error_that_says_what_to_change(
    tmp_path: Path, accumulate: object, message: str
) -> None:
    """One image that does not fit: an error that says what to change."""
    with pytest.raises(RuntimeError, match=f"out of memory .*{message}.*2.00 GiB"):
        train(Hungry(0), DATA, DATA, accumulate=accumulate, run_dir=tmp_path, **QUICK)
