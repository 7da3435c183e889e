"""Activation checkpointing: the numbers of the plain run to the bit, in less memory."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.flops import measure_traffic
from neuroconv.kernels.population import fuses
from neuroconv.neurons import Population, Purkinje
from neuroconv.neurons.stages import merge
from tests.scripts import loaded

BENCH = Path(__file__).resolve().parents[2] / "experiments" / "bench"
SPIKE = {
    "strength": 0.8, "threshold": 0.1, "temperature": 0.3, "learn_strength": True,
    "learn_threshold": True,
}  # fmt: skip
STAGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm": {"norm": "both", "tree": {"mode": "valid"}},
    "threshold": {"threshold": 1.0, "tree": {"synapses": 10}},
    "spike": {"spike": SPIKE, "tree": {"mode": "per_dendrite"}},
    "unit_dropout": {"unit_dropout": {"mean_wait": 0.5}},
    "everything": {
        "norm": "both",
        "threshold": 1.5,
        "spike": SPIKE,
        "unit_dropout": {"mean_wait": 0.5},
        "synapse": {"transmitters": 2, "factorized": True, "excitatory": 0.5},
    },
    "dense": {"wiring": "all_to_all", "norm": "dendrites"},
}


def twins(**options: Any) -> tuple[Population, Population]:
    """A population in training, and the same with checkpointing."""
    tree = {"sheet": (4, 3), "filter": (2, 3, 3)}
    if "unit_dropout" not in options:
        options["output"] = {"mean_wait": 0.0}
    options = merge({"tree": tree, "taps": {"backend": "fft"}}, options)
    plain = Purkinje(6, 2, **options).double().train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.checkpoint = True
    return plain, checkpointed


def step(cells: nn.Module, activity: Tensor) -> list[Tensor]:
    """Rate, all gradients, all buffers, and the next draw of the generator."""
    torch.manual_seed(3)
    activity = activity.clone().requires_grad_()
    rate = cells(activity)
    (rate * torch.linspace(0.5, 1.5, rate.numel()).view_as(rate)).sum().backward()
    gradients = [p.grad for p in cells.parameters() if p.grad is not None]
    assert len(gradients) == len(list(cells.parameters()))
    buffers = [buffer.clone() for buffer in cells.buffers()]
    return [rate.detach(), activity.grad, *gradients, *buffers, torch.rand(1)]


@pytest.mark.parametrize("stages", STAGES)
def test_a_step_is_the_plain_one_to_the_bit(stages: str) -> None:
    plain, checkpointed = twins(**STAGES[stages])
    activity = torch.rand(3, 6, 5, dtype=torch.float64)
    for _ in range(2):  # the second step starts from the statistics that the first one left
        pairs = zip(step(checkpointed, activity), step(plain, activity), strict=True)
        assert all(torch.equal(result, expected) for result, expected in pairs)
    for norm in checkpointed.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            assert norm.num_batches_tracked == 2


def test_a_stream_in_training_passes_its_state_on() -> None:
    plain, checkpointed = twins(**STAGES["everything"])
    activity = torch.rand(3, 6, 5, dtype=torch.float64)
    results = []
    for cells in (plain, checkpointed):
        torch.manual_seed(3)
        first, state = cells.stream(activity[:, :, :2])
        second, _ = cells.stream(activity[:, :, 2:], state)
        (first.sum() + second.square().sum()).backward()
        results.append([first, second, *(p.grad for p in cells.parameters())])
    for result, expected in zip(*results, strict=True):
        assert torch.equal(result, expected)


def test_a_tree_of_one_stage_keeps_nothing_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("recomputed what was never kept")

    plain, checkpointed = twins()
    for cells in (plain, checkpointed):
        cells.dendrites.backend = "matmul"
    assert fuses(checkpointed, 3, 5)
    activity = torch.rand(3, 6, 5, dtype=torch.float64)
    monkeypatch.setattr("neuroconv.neurons.population.recomputed_stages", refuse)
    for result, expected in zip(step(checkpointed, activity), step(plain, activity), strict=True):
        assert torch.equal(result, expected)


def test_less_memory_is_needed() -> None:
    plain, checkpointed = twins(**merge(STAGES["everything"], tree={"sheet": (20, 30)}))
    activity = torch.rand(8, 6, 5, dtype=torch.float64)
    needed = {}
    for name, cells in (("plain", plain), ("kept", checkpointed)):
        traffic = measure_traffic(cells, activity, backward=True, training=True)
        run = loaded(BENCH / "operators.py").peak_bytes(
            lambda cells=cells: cells(activity).sum().backward(), torch.device("cpu")
        )
        needed[name] = (traffic.saved_bytes, traffic.peak_bytes, run)
    sheet = 8 * 2 * 5 * 20 * 30 * 8
    assert needed["plain"][0] >= 2 * sheet
    assert needed["kept"][0] < sheet
    assert needed["kept"][1] < needed["plain"][1]
    assert needed["kept"][2] < needed["plain"][2]
