"""What learning costs, against closed forms, torch's own counter and what autograd saves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from neuroconv.flops import estimate_energy
from neuroconv.learning import NotLocal
from neuroconv.learning.cost import LearningCost, learning_cost
from neuroconv.zoo import create_model
from tests.commands import Call

SMALL: dict[str, Any] = {"image_shape": (1, 6, 6)}


def cost(name: str, rule: str, batch: int = 2, **keywords: Any) -> LearningCost:
    model: Any = create_model(name, **{**SMALL, **keywords})
    return learning_cost(model, rule, torch.rand(batch, *model.image_shape))


def macs(result: LearningCost) -> tuple[float, float, float]:
    return result.forward_mac, result.backward_mac, result.update_mac


@pytest.mark.parametrize(
    ("batch", "steps", "pair", "sites", "dendrites"),
    [(1, 1, 2, 3, 4), (3, 3, 1, 3, 4), (1, 1, 1, 100, 1000)],
)
def test_climbing_fibres(batch: int, steps: int, pair: int, sites: int, dendrites: int) -> None:
    result = cost(
        "purkinje_classifier", "climbing_fibre", batch, time_steps=steps, cells_per_class=pair,
        purkinje={"tree": {"sheet": (sites, dendrites)}, "soma": {"time_steps": 2}},
    )  # fmt: skip
    cells, synapses = 10 * pair, sites * dendrites
    products = cells * synapses * steps**2  # a dendrite's filter has a tap for each step
    # The soma's filter forward is a matrix over steps; a trace of eligibility has its two taps.
    assert macs(result) == (products + cells * steps**2, cells * steps * 2, products)
    assert result.teaching_signals == cells
    fibres = 4 * 36 * (2 * steps - 1)  # with silence for the filters before the window
    is_open = steps * cells * (dendrites + 1)  # a byte for each dendrite and soma
    assert result.kept_bytes == fibres + is_open
    assert result.parameters == cells * (synapses + dendrites + 1)
    assert result.gradient_bytes == 4 * result.parameters


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("rule", ["backprop", "feedback_alignment", "direct_feedback", "delta"])
def test_perceptron_of_hidden_units(rule: str, depth: int) -> None:
    inputs, width, classes = 36, 7, 10
    result = cost("mlp", rule, width=width, depth=depth)
    hidden = (depth - 1) * width * width
    forward = inputs * width + hidden + width * classes
    sent = {"direct_feedback": depth * classes * width, "delta": 0}
    update = width * classes if rule == "delta" else forward
    assert macs(result) == (forward, sent.get(rule, hidden + classes * width), update)
    assert result.teaching_signals == (classes if rule == "delta" else depth * width + classes)
    if rule == "backprop":
        assert result.kept_bytes == 4 * depth * width


@pytest.mark.parametrize("name", ["mlp", "lenet5", "plain_cnn", "gru", "purkinje_classifier"])
def test_backpropagation_against_torch(name: str) -> None:
    """Contractions by torch's own counter, and bytes by hooks of what autograd saves."""
    model: Any = create_model(name)
    images = torch.rand(2, *model.image_shape)
    result = learning_cost(model, "backprop", images)
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        FlopCounterMode(display=False) as forward,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        outputs = model.train()(images)
    with FlopCounterMode(display=False) as backward:
        outputs.sum().backward()
    assert result.forward_mac == forward.get_total_flops() / 4  # 2 FLOP, 2 samples
    if name != "purkinje_classifier":  # torch's counter sees no products in our operators
        assert result.backward_mac + result.update_mac == backward.get_total_flops() / 4
    for tensor in (*model.parameters(), *model.buffers(), images):
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    assert result.kept_bytes == sum(saved.values()) / 2


class Attention(nn.ModuleList):
    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (linear(tokens) for linear in self)
        mixed: Tensor = (query @ key.transpose(1, 2)).softmax(2) @ value
        return mixed.sum(1)


def test_products_of_activities_send_errors_back_in_attention() -> None:
    tokens, width = 5, 4
    maps = Attention(nn.Linear(width, width, bias=False) for _ in range(3))
    result = learning_cost(maps, "backprop", torch.rand(2, tokens, width))
    weights, pairs = 3 * tokens * width**2, tokens**2 * width
    assert macs(result) == (weights + 2 * pairs, 4 * pairs, weights)


def test_a_real_run_counts_the_same_and_leaves_the_model() -> None:
    model = create_model("purkinje_classifier", **SMALL).eval()
    images = torch.rand(2, 1, 6, 6)
    result = learning_cost(model, "climbing_fibre", images, signal="rate")
    real = learning_cost(model, "climbing_fibre", images, device="cpu", signal="rate")
    # Labels become vectors by a comparison on meta, by a scatter on the CPU.
    assert vars(result) == vars(real) | {"highest_joules": result.highest_joules}
    assert not model.training
    assert all(p.grad is None and not p.is_meta for p in model.parameters())
    with pytest.raises(NotLocal, match="StillNet"):
        cost("mlp", "climbing_fibre")


@pytest.mark.parametrize("batch", [1, 4])
def test_the_lowest_energy_moves_each_number_once(batch: int) -> None:
    """Weights and gradients once for the batch, each sample its pixels and its label."""
    result = cost("linear", "delta", batch)
    mac = 2 * 36 * 10 * batch
    other = batch * (result.backward_flop + result.update_flop - 720)  # the error, and sums
    moved = 2 * 4 * 370 + batch * (4 * 36 + 8)
    lowest, _ = estimate_energy(mac, other, moved).total_joules
    assert result.lowest_joules == pytest.approx(lowest / batch)
    assert result.highest_joules > result.lowest_joules


def test_profile_shows_it(call: Call, tmp_path: Path) -> None:
    words = ("mlp", "--image-shape", "1x6x6", "--rule", "delta", "--rule", "climbing_fibre")
    assert call("profile", *words, "--no-stages", "--json", tmp_path / "mlp.json")[0] == 0
    learning = json.loads((tmp_path / "mlp.json").read_text())[0]["learning"]
    assert learning["delta"]["update_mac"] == 10 * 128
    assert learning["climbing_fibre"]["refused"].startswith("climbing_fibre: StillNet has no cell")
