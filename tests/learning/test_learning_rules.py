"""Rules but the climbing fibre: feedback weights, the last layer, Oja's rule; and [train] rule."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuroconv import learning
from neuroconv.learning import NotLocal, make_rule
from neuroconv.training import ConfigError, TrainConfig, runs, train
from neuroconv.training.rules import make_learning_rule
from neuroconv.zoo import StillNet, create_model
from tests.training.small_runs import interrupt_after_first_epoch, small_config

IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(2)).double()
LABELS = torch.tensor([0, 2, 1, 1, 0, 2])


def chain(*nonlinearities: nn.Module) -> StillNet:
    torch.manual_seed(0)
    widths = [16, *[7] * len(nonlinearities), 3]
    pairs = zip(map(nn.Linear, widths[:-1], widths[1:]), [*nonlinearities, None], strict=True)
    layers = [layer for pair in pairs for layer in pair if layer]
    return StillNet(nn.Sequential(nn.Flatten(), *layers), 1).double()


def by_autograd(model: nn.Module, inputs: Tensor = IMAGES) -> list[Tensor]:
    trained = [p for p in model.parameters() if p.requires_grad]
    return [*torch.autograd.grad(F.cross_entropy(model(inputs), LABELS), trained)]


def by_rule(name: str, model: nn.Module, inputs: Tensor = IMAGES, **options: Any) -> list[Tensor]:
    rule = make_rule(model, name, **options)
    with torch.inference_mode(name != "backprop"):
        rule(inputs, LABELS)
    return [p.grad for p in model.parameters() if p.grad is not None]


def agree(results: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(results, expected, rtol=1e-12, atol=1e-15)


def test_errors_are_gradients_of_their_losses() -> None:
    outputs = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    yes = F.one_hot(LABELS, 3).double()
    for error, targets, loss in (
        (learning.softmax_error, LABELS, F.cross_entropy(outputs, LABELS, reduction="sum")),
        (learning.logistic_error, yes, F.binary_cross_entropy_with_logits(outputs, yes) * 18),
        (learning.squared_error, yes, (outputs - yes).square().sum() / 2),
    ):
        (expected,) = torch.autograd.grad(loss, outputs)
        torch.testing.assert_close(error(outputs.detach(), targets), expected)


NONLINEAR = (nn.Tanh(), nn.ReLU(), nn.Sigmoid())


def test_feedback_by_transposed_weights_is_backpropagation() -> None:
    for model in (chain(*NONLINEAR), chain()):
        rule = learning.FeedbackAlignment(model)
        rule.feedback = [layer.weight for layer in map(rule.layers.__getitem__, rule.linear[1:])]
        rule(IMAGES, LABELS)
        agree([p.grad for p in model.parameters()], by_autograd(model))
    agree(by_rule("backprop", chain(nn.ReLU())), by_autograd(chain(nn.ReLU())))


def test_direct_feedback_written_out() -> None:
    model = chain(nn.Tanh(), nn.ReLU())
    rule = learning.DirectFeedback(model, seed=3)
    with torch.inference_mode():
        logits = rule(IMAGES, LABELS)
    _, first, _, second, _, last = rule.layers
    x = IMAGES.flatten(1)
    h1 = torch.tanh(x @ first.weight.t() + first.bias)
    h2 = (h1 @ second.weight.t() + second.bias).relu()
    e = (logits.softmax(1) - F.one_hot(LABELS, 3)) / 6
    at2, at1 = (e @ rule.feedback[1]) * (h2 > 0), (e @ rule.feedback[0]) * (1 - h1**2)
    for layer, error, inputs in ((first, at1, x), (second, at2, h1), (last, e, h2)):
        agree([layer.weight.grad, layer.bias.grad], [error.t() @ inputs, error.sum(0)])
    seeds = [by_rule("direct_feedback", chain(*NONLINEAR), seed=seed)[0] for seed in (3, 3, 4)]
    assert [torch.equal(seeds[0], update) for update in seeds[1:]] == [True, False]
    assert all(weights.abs().max() <= 3**-0.5 for weights in rule.feedback)
    assert rule.teaching_signals == 7 + 7 + 3


@pytest.mark.parametrize("name", ["linear", "mlp", "cerebellum_tiny", "granule_convnet", "lenet5"])
def test_the_delta_rule_is_the_gradient_of_the_last_layer(name: str) -> None:
    model: Any = create_model(name, image_shape=(1, 8, 8), num_classes=3, time_steps=2)
    model.double().eval()
    inputs = torch.rand(6, 1, 2, 8, 8).double()
    buffers = [b.clone() for b in model.buffers()]
    results = by_rule("delta", model, inputs)
    last = model.get_classifier()
    assert [p.shape for p in results] == [last.weight.shape, last.bias.shape]
    assert {p for p in model.parameters() if p.requires_grad} == {last.weight, last.bias}
    agree(results, by_autograd(model, inputs))
    assert all(map(torch.equal, model.buffers(), buffers))  # norms stay too, in evaluation
    by_rule("delta", model.train(), inputs)
    norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    assert norms != all(map(torch.equal, model.buffers(), buffers))


def test_the_perceptrons_rule_is_the_gradient_of_its_own_loss() -> None:
    model: Any = create_model("perceptron", image_shape=(1, 4, 4), num_classes=3).double()
    nn.init.normal_(model.network[1].weight)
    results = by_rule("perceptron", model)
    model.zero_grad()
    model.training_loss(model(IMAGES), LABELS).backward()
    agree(results, [p.grad for p in model.parameters()])


def granule_network(**granule: Any) -> Any:
    torch.manual_seed(0)
    granule = {"cells": 20, "wiring": {"patch": (3, 3)}, **granule}
    task, tree = {"image_shape": (1, 4, 4), "num_classes": 3}, {"sheet": (2, 3)}
    return create_model("purkinje_classifier", **task, granule=granule, purkinje={"tree": tree})


@pytest.mark.parametrize("synapse", [{}, {"excitatory": 0.5, "factorized": True}])
def test_ojas_rule_written_out(synapse: dict[str, Any]) -> None:
    model = granule_network(synapse=synapse).double()
    rates = model.parallel_fibres(IMAGES).detach()  # (B, N, 1)
    fibres = model.mossy(model.as_frames(IMAGES))
    by_rule("hebbian", model, strength=2.0)
    stages: Any = model.granule
    weight: Tensor = stages.synapses.effective_weight()
    taps = stages.dendrites.taps()[:, 0].transpose(1, 2).flatten(1) / 4  # four dendrites' mean
    x = fibres[:, stages.synapses.wiring, 0] * taps  # (B, N, S)
    growth = (rates * (x - rates * weight)).sum(0)
    expected = torch.autograd.grad(weight, [*stages.synapses.parameters()], -growth * 2 / 6)
    agree([p.grad for p in stages.synapses.parameters()], [*expected])
    assert not any(p.requires_grad for p in stages.dendrites.parameters())


def test_ojas_rule_finds_the_first_principal_component() -> None:
    """Of one linear cell of two dendrites, whose taps are ones, with a rate that stays positive."""
    model = granule_network(cells=1, tree={"sheet": (2, 2)}, rate={"linear": True}).double()
    rule: Any = learning.Hebbian(model)
    cells = model.granule
    cells.synapses.wiring.copy_(torch.arange(4))
    nn.init.ones_(cells.dendrites.weight)
    fibres = torch.rand(50, 16, 1).double() * torch.tensor([3.0, 1, 2, 1] * 4).double()[:, None]
    data, weight = fibres[:, :4], cells.synapses.weight
    for _ in range(100):
        rule._rates = rule.granule.forward(fibres)
        rule.classify(rule._rates)
        rule.learn(torch.zeros(50, 3).double(), 1 / 50)
        weight.data -= 0.5 * weight.grad
        weight.grad = None
    first = torch.linalg.eigh((data @ data.transpose(1, 2)).mean(0)).eigenvectors[:, -1]
    torch.testing.assert_close(weight.detach()[0], first * first.sum().sign(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("rule", "model", "message"), [
    ("climbing_fibre", "cerebellum_small", "Cerebellum has no cells that know their error, "),
    ("climbing_fibre", "mlp", "StillNet has no cells.*expected a purkinje_classifier"),
    ("hebbian", "purkinje_classifier", r"no granule cells; expected .* granule = \{cells = 1"),
    ("delta", "purkinje_classifier", "last layer of PurkinjeClassifier is a NuclearReadout"),
    ("perceptron", "k_tree", "last layer of KTree is a SparseLinear; expected"),
    ("feedback_alignment", "plain_cnn", "has AdaptiveAvgPool2d, BatchNorm2d, Conv2d; expected"),
    ("direct_feedback", "granule_convnet", "is no chain of linear layers; expected nn.Linear"),
])  # fmt: skip
def test_refusals(rule: str, model: str, message: str) -> None:
    with pytest.raises(NotLocal, match=message):
        make_rule(create_model(model), rule)


def test_mistakes_in_options() -> None:
    model = create_model("purkinje_classifier")
    with pytest.raises(ValueError, match=r"rule = 'climbing': .*climbing_fibre"):
        make_rule(model, "climbing")
    for option, message in (
        ({"signal": "loud"}, "signal='loud'"), ({"gain": 0}, "gain=0; expected .* above 0"),
        ({"strength": 1.0}, "strength"), ({"eligibility": 0}, "eligibility=0; expected"),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=message):
            make_rule(model, "climbing_fibre", **option)
    with pytest.raises(NotLocal, match="no parameter that it trains"):
        make_rule(model.requires_grad_(False), "climbing_fibre")


# --- [train] rule


def test_mistakes_in_a_configuration() -> None:
    for settings, message in (
        ({"rule": "climbing_fiber"}, "rule = 'climbing_fiber': .*climbing_fibre"),
        ({"rule": {"signal": "rate"}}, "rule = .*or a table with such a kind"),
        ({"rule": {"kind": "backprop", "seed": 1}}, "which has no options"),
        ({"rule": "delta", "label_smoothing": 0.1}, "'delta' with label_smoothing: expected one"),
        ({"rule": "delta", "precision": "bfloat16"}, "with precision"),
    ):
        with pytest.raises(ConfigError, match=message):
            TrainConfig(epochs=1, learning_rate=0.1, **settings)
    plain = TrainConfig(epochs=1, learning_rate=0.1)
    assert "[train] rule" not in plain.decisive()  # runs from before there were rules resume
    for rule, message in (("climbing_fibre", "StillNet has no"), ({"kind": "delta", "a": 1}, "a")):
        config = small_config(Path("nowhere"), rule=rule)
        with pytest.raises(ConfigError, match=rf"\[train\] rule = .*{message}"):
            runs.run(config, seed=0, progress=False)
    data = torch.utils.data.TensorDataset(IMAGES, LABELS)
    with pytest.raises(ConfigError, match="expected one process, and a classification"):
        train(chain(), data, data, loss=F.cross_entropy, rule="delta", progress=False)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_step_in_parts_is_the_step(optimizer: Any) -> None:
    data = torch.utils.data.TensorDataset(IMAGES, LABELS)
    weights = []
    for accumulate in (1, 3):
        model = granule_network().double()
        train(
            model, data, data, epochs=2, batch_size=6, accumulate=accumulate, optimizer=optimizer,
            rule="hebbian", learning_rate=1e-3, progress=False, device="cpu",
        )  # fmt: skip
        weights.append(list(model.parameters()))
    torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("model", "rule"), [
    (
        {"name": "purkinje_classifier", "purkinje": {"tree": {"sheet": (16, 20)}}},
        {"kind": "climbing_fibre", "signal": "spikes", "window_s": 10.0},
    ),
    ({"name": "mlp", "width": 64}, "direct_feedback"),
])  # fmt: skip
def test_digits_are_learned_and_resumed_to_the_bit(
    model: dict[str, Any], rule: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, rule=rule, epochs=5, learning_rate=1e-2)
    config = replace(config, model=model, data=replace(config.data, train_limit=None))
    whole = runs.run(config, seed=0, run_dir=tmp_path / "whole", progress=False)
    assert whole.val_accuracy > 0.9
    with monkeypatch.context() as patch:
        interrupt_after_first_epoch(patch)
        with pytest.raises(KeyboardInterrupt):
            runs.run(config, seed=0, run_dir=tmp_path / "cut", progress=False)
    resumed = runs.resume(tmp_path / "cut", progress=False)
    for file in ("best.safetensors", "last.safetensors"):
        bits = [(tmp_path / folder / file).read_bytes() for folder in ("whole", "cut")]
        assert bits[0] == bits[1]
    assert resumed.test_loss == whole.test_loss


def test_a_run_draws_its_own_feedback_unless_it_is_told_which() -> None:
    def feedback(rule: Any, seed: int) -> Tensor:
        made: Any = make_learning_rule(create_model("mlp", width=5), rule, seed)
        return torch.cat([weights.flatten() for weights in made.feedback])

    for rule in ("direct_feedback", {"kind": "feedback_alignment"}):
        assert torch.equal(feedback(rule, 3), feedback(rule, 3))
        assert not torch.equal(feedback(rule, 3), feedback(rule, 4))
    told = {"kind": "direct_feedback", "seed": 7}
    assert torch.equal(feedback(told, 3), feedback(told, 4))
    make_learning_rule(create_model("linear"), "delta", 3)  # draws nothing
