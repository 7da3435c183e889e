"""Opponents whose units hear few inputs, and the perceptron: against plain loops, and published."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from neuroconv.comparison import match_parameters
from neuroconv.flops import count_axons, count_closed_form
from neuroconv.training import train
from neuroconv.training.optimizer import learning_rate_at
from neuroconv.zoo import SparseLinear, count_parameters, create_model

# --- units that hear few inputs


@pytest.mark.parametrize("batch", [4, 16])  # gathered, and as a dense product
@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_sparse_layer_is_a_masked_dense_one(drawn: bool, bias: bool, batch: int) -> None:
    wiring = torch.tensor([[0, 5], [5, 3], [1, 2]]) if drawn else None
    layer = SparseLinear(6, 2, wiring, bias=bias).double()
    dense = torch.zeros(3, 6, dtype=torch.float64)
    axons = torch.arange(6).view(3, 2) if wiring is None else wiring
    dense.scatter_(1, axons, layer.weight.detach()).requires_grad_()
    offset = None if layer.bias is None else nn.init.normal_(layer.bias)
    first = torch.rand(batch, 6, dtype=torch.float64, requires_grad=True)
    second = first.detach().clone().requires_grad_()
    sums, expected = layer(first), F.linear(second, dense, offset)
    torch.testing.assert_close(sums, expected)
    gain = torch.rand_like(expected)
    (sums * gain).sum().backward()
    (expected * gain).sum().backward()
    torch.testing.assert_close(first.grad, second.grad)
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, dense.grad.gather(1, axons))


def test_wirings() -> None:
    def axons(name: str, **keywords: Any) -> Tensor:
        model = create_model(name, image_shape=(2, 9, 11), time_steps=3, **keywords)
        return next(m.wiring for m in model.modules() if isinstance(m, SparseLinear))

    everywhere = axons("sparse_mlp", width=7, fan_in=20)
    assert everywhere.shape == (7, 20)
    assert all(len(row.unique()) == 20 for row in everywhere)
    assert not torch.equal(everywhere, axons("sparse_mlp", width=7, fan_in=20, seed=1))
    patches = axons("dendritic_ann", width=5, dendrites=3, fan_in=10, wiring="receptive_field")
    assert patches.shape == (15, 10)
    for wiring, tall in ((patches, 4), (axons("sparse_mlp", wiring=_patch(5)), 5)):
        frame, row, column = wiring // 99, wiring // 11 % 9, wiring % 11
        assert (frame == frame[:, :1]).all()
        for position in (row, column):
            assert (position.amax(1) - position.amin(1) < tall).all()
    with pytest.raises(ValueError, match="wiring='all_to_all' is unknown; expected one of"):
        axons("sparse_mlp", wiring="all_to_all")


def _patch(side: int) -> dict[str, Any]:
    return {"kind": "receptive_field", "patch": (side, side)}


def test_a_soma_sums_its_own_dendrites() -> None:
    model: Any = create_model("dendritic_ann", image_shape=(1, 5, 5), width=3, dendrites=4)
    model.double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    flatten, (branches, _, somata, _), _ = model.network
    images = torch.rand(2, 1, 5, 5, dtype=torch.float64)
    pixels = flatten(images)
    expected = torch.zeros(2, 3, dtype=torch.float64)
    for soma in range(3):
        for dendrite in range(4):
            unit = 4 * soma + dendrite
            drive = pixels[:, branches.wiring[unit]] @ branches.weight[unit] + branches.bias[unit]
            expected[:, soma] += somata.weight[soma, dendrite] * F.leaky_relu(drive, 0.1)
    expected = F.leaky_relu(expected + somata.bias, 0.1)
    torch.testing.assert_close(model.forward_features(images), expected)


@pytest.mark.parametrize(("image_shape", "pool"), [((1, 3, 5), 1), ((2, 5, 7), 2)])
def test_a_k_tree_is_a_recursion(image_shape: tuple[int, int, int], pool: int) -> None:
    keywords: Any = {"image_shape": image_shape, "num_classes": 3, "width": 2, "pool": pool}
    model: Any = create_model("k_tree", **keywords).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    image = torch.rand(1, *image_shape, dtype=torch.float64)
    averaged = F.avg_pool2d(image, pool, ceil_mode=True)
    padded = F.pad(averaged, (1, 2, 0, 1) if pool == 1 else (0, 0, 0, 1))[0]
    assert padded.shape[1:] == ((4, 8) if pool == 1 else (4, 4))
    layers = [layer for layer in model.dendrites if isinstance(layer, SparseLinear)]

    def node(tree: int, level: int, index: int) -> Tensor:
        if level < 0:
            position, channel = divmod(index, len(padded))
            return padded[channel, position // padded.shape[2], position % padded.shape[2]]
        layer = layers[level]
        unit, fan_in = tree * (layer.out_features // 6) + index, layer.weight.shape[1]
        below = [node(tree, level - 1, fan_in * index + n) for n in range(fan_in)]
        return F.leaky_relu(layer.weight[unit] @ torch.stack(below) + layer.bias[unit], 0.01)

    roots = torch.stack([node(tree, len(layers) - 1, 0) for tree in range(6)]).view(3, 2)
    soma = model.classifier
    torch.testing.assert_close(model(image)[0], (roots * soma.weight).sum(1) + soma.bias)


def test_published_numbers_of_parameters() -> None:
    def parameters(name: str, **keywords: Any) -> int:
        with torch.device("meta"):
            return count_parameters(create_model(name, **keywords))

    assert parameters("dendritic_ann") == 3_722
    assert parameters("dendritic_ann", dendrites=4) == 10_634
    assert parameters("k_tree", num_classes=2) == 3_071
    assert parameters("k_tree", num_classes=2, width=32) == 98_241
    for name, keywords in (("sparse_mlp", {}), ("dendritic_ann", {}), ("k_tree", {"pool": 4})):
        matched = match_parameters(name, 4_000, at_most=True, **keywords)
        assert matched.ratio > 0.95, name


def test_branches_inside_a_cell_are_no_axons() -> None:
    def axons(name: str, **keywords: Any) -> tuple[int, int, int]:
        model = create_model(name, image_shape=(1, 6, 6), num_classes=3, **keywords)
        counts = count_axons(model, torch.rand(1, 1, 6, 6))
        rows = count_closed_form(model, torch.rand(1, 1, 6, 6)).rows
        assert sum(row.cost.neurons for row in rows) == counts.axons + 3
        return counts.axons, counts.wires, counts.input_wires

    assert axons("sparse_mlp", width=7, fan_in=5) == (7, 21, 35)
    assert axons("dendritic_ann", width=7, dendrites=1, fan_in=5) == (7, 21, 35)
    hidden, wires, inputs = axons("dendritic_ann", width=7, dendrites=4, fan_in=5)
    assert (hidden, wires) == (7, 21)
    assert 35 < inputs < 7 * 20  # dendrites of a cell share inputs
    assert axons("k_tree", width=2) == (0, 0, 3 * 36)
    assert axons("perceptron") == (0, 0, 3 * 36)


def test_one_neuron_tells_two_classes() -> None:
    model: Any = create_model("k_tree", num_classes=2, image_shape=(1, 4, 4))
    images, labels = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 1, 0, 1])
    logits = model(images)
    assert (logits.shape, model.num_classes) == ((5, 2), 2)
    assert create_model("k_tree", num_classes=1, image_shape=(1, 4, 4))(images).shape == (5, 1)
    binary = F.binary_cross_entropy_with_logits(logits[:, 1], labels.float())
    torch.testing.assert_close(F.cross_entropy(logits, labels), binary)


# --- linear dendrites, the control of every neuron network

CONTROLS = {
    "granule_convnet": {"unit": {"linear_dendrites": True}},
    "resnet18_granule": {"unit": {"linear_dendrites": True}, "width": 4},
    "cerebellum_tiny": {"linear_cells": True},
}


@pytest.mark.parametrize("name", CONTROLS)
def test_linear_dendrites_have_the_neurons_parameters_and_no_kink(name: str) -> None:
    size = {"width": 4} if name == "resnet18_granule" else {}
    neurons = create_model(name, image_shape=(1, 8, 8), time_steps=2, **size)
    control: Any = create_model(name, image_shape=(1, 8, 8), time_steps=2, **CONTROLS[name])
    control.load_state_dict(neurons.state_dict())
    images = torch.rand(2, 1, 8, 8)
    assert not torch.allclose(control.eval()(images), neurons.eval()(images))
    cells = [m for m in control.modules() if hasattr(m, "somatic_potential")]
    assert len(cells) == (4 if name == "cerebellum_tiny" else 0)
    for cell in cells:  # up to the soma it is linear, but for an offset
        drives = torch.randn(2, 1, cell.in_features, 2, dtype=torch.float64)
        inputs = torch.cat([*drives, drives.sum(0), torch.zeros_like(drives[0])])
        first, second, both, rest = cell.double().somatic_potential(inputs)[0]
        torch.testing.assert_close(both - rest, first + second - 2 * rest)


# --- the perceptron


class Recorded(Dataset[tuple[Tensor, int]]):
    """Binary images of two classes of each of three kinds, and the order they were read in."""

    def __init__(self, images: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(images, 1, 3, 4, generator=generator).round().double()
        self.labels = torch.randint(3, (images,), generator=generator)
        self.order: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.order.append(index)
        return self.images[index], int(self.labels[index])


def _learn(data: Recorded, **settings: Any) -> Any:
    model = create_model("perceptron", image_shape=(1, 3, 4), num_classes=3).double()
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip": math.inf}
    every: Any = plain | {"epochs": 2, "warmup": 0.0, "device": "cpu", "progress": False} | settings
    train(model, data, Recorded(6), learning_rate=0.5, **every)
    return model.get_classifier()


def test_training_is_the_perceptrons_rule() -> None:
    """Pixels are 0 or 1, so that an update rounds once, however it is written."""
    data = Recorded(20)
    units = _learn(data, batch_size=1)
    weight, bias = torch.zeros(3, 12, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    assert len(data.order) == 40
    for step, index in enumerate(data.order):
        pixels, label = data.images[index].flatten(), data.labels[index]
        rate = learning_rate_at(step, 40, 0.5, 0.0)
        for unit in range(3):
            fires = bool(weight[unit] @ pixels + bias[unit] > 0)
            error = rate * (int(unit == label) - int(fires))
            weight[unit] += error * pixels
            bias[unit] += error
    assert torch.equal(units.weight, weight)
    assert torch.equal(units.bias, bias)


def test_parts_of_a_batch_learn_as_the_whole_and_smoothing_is_refused() -> None:
    whole = _learn(Recorded(20), batch_size=10)
    parts = _learn(Recorded(20), batch_size=10, accumulate=2)
    torch.testing.assert_close(whole.weight, parts.weight)
    with pytest.raises(ValueError, match=r"label_smoothing = 0.1: expected 0, since the model br"):
        _learn(Recorded(20), batch_size=10, label_smoothing=0.1)


def test_the_convergence_theorem() -> None:
    """Separable by a margin g within a radius R, a unit errs (R / g)^2 times at most (Novikoff)."""
    torch.manual_seed(0)
    teacher = torch.randn(13, dtype=torch.float64)
    points = torch.randn(200, 1, 3, 4, dtype=torch.float64)
    margins = (F.pad(points.flatten(1), (0, 1), value=1.0) @ teacher) / teacher.norm()
    points, margins = points[margins.abs() > 0.3], margins[margins.abs() > 0.3]
    labels = (margins > 0).long()
    model: Any = create_model("perceptron", image_shape=(1, 3, 4), num_classes=2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    radius = points.flatten(1).square().sum(1).add(1).max()
    updates, bound = torch.zeros(2), float(radius / margins.abs().min().square())
    for _ in range(100):
        before = updates.clone()
        for point, label in zip(points.split(1), labels.split(1), strict=True):
            optimizer.zero_grad()
            model.training_loss(model(point), label).backward()
            updates += model.get_classifier().bias.grad.abs()
            optimizer.step()
        if torch.equal(updates, before):
            break
    assert torch.equal(model(points).argmax(1), labels)
    assert 0 < updates.min() <= updates.max() <= bound
