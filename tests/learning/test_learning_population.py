"""The local gradient of a population: that of autograd where it is exact, and where it is not."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels.operator import kernels_off
from neuroconv.learning import ClimbingFibre, LocalGradient, NotLocal, make_rule, softmax_error
from neuroconv.learning import population as module
from neuroconv.neurons import Population, Purkinje
from neuroconv.zoo import PurkinjeClassifier, create_model

WHOLE = {"sheet": (3, 4), "filter": (3, 4, 1), "mode": "per_dendrite"}
PLAIN: dict[str, Any] = {
    "tree": WHOLE, "wiring": "random", "norm": "none", "output": {"mean_wait": 0.0},
    "soma": {"time_steps": 1},
}  # fmt: skip
IN_TIME = {"tree": {**WHOLE, "filter": (3, 4, 3)}}
CASES: dict[str, dict[str, Any]] = {
    "one step": {},
    "fewer synapses than positions": {"tree": {**WHOLE, "synapses": 10}},
    "linear dendrites": {"rate": {"linear": True}},
    "taps in time": IN_TIME,
    "equalised taps": {**IN_TIME, "taps": {"equalized_lr": True}},
    "frozen taps": {**IN_TIME, "taps": {"trainable": False}},
    "Dale's law": {"synapse": {"excitatory": 0.6}},
    "two factors": {"synapse": {"factorized": True}},
    "Dale's law, two factors, in time": {
        **IN_TIME, "tree": {**IN_TIME["tree"], "synapses": 11},
        "synapse": {"excitatory": 0.5, "factorized": True}, "soma": {"time_steps": 4},
    },
    "a soma of each neuron": {"soma": {"time_steps": 3, "neurons": 5}},
    "a spike at the only site": {"spike": {}},
    "a supplied sum": {"summation": {"law": "linear", "scale": 2.0}},
}  # fmt: skip


def population(dtype: torch.dtype = torch.float64, **keywords: Any) -> Population:
    torch.manual_seed(0)
    kind = keywords.pop("kind", Purkinje)
    cells: Population = kind(9, 5, **{**PLAIN, **keywords}).to(dtype)
    with torch.no_grad():
        for parameter in cells.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return cells


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_gradient(
    case: str, dtype: torch.dtype, bound: float, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not together:  # neuron by neuron
        monkeypatch.setattr(module, "_TOGETHER", 0)
    for batch, steps in itertools.product((1, 8), (1, 5)):
        cells = population(dtype, **CASES[case])
        activity = torch.randn(steps, 9, batch, dtype=dtype).permute(2, 1, 0)
        with kernels_off():  # by the stages of the definition
            expected = cells(activity)
            (expected * (error := torch.randn_like(expected))).sum().backward()
        gradients = {name: p.grad for name, p in cells.named_parameters()}
        cells.zero_grad()
        with torch.inference_mode():
            local = LocalGradient(cells)
            torch.testing.assert_close(local.forward(activity), expected.detach())
            local.backward(error)
        trained = {id(p) for p in local.parameters()}
        names = {name: p for name, p in cells.named_parameters() if id(p) in trained}
        for name, p in names.items():
            worst = (p.grad - gradients[name]).abs().max()
            assert worst <= bound * gradients[name].abs().max(), name
        assert ("dendrites.weight" in names) == (case != "frozen taps")
        assert {*gradients} - {*names} <= {"dendrites.weight", "soma.weight"}


def test_a_written_out_twin_agrees() -> None:
    """Branch by branch and synapse by synapse, as a synapse knows it."""
    cells = population(**IN_TIME, soma={"time_steps": 2}).requires_grad_(False)
    cells.synapses.requires_grad_(True)
    activity, error = torch.randn(2, 9, 4).double(), torch.randn(2, 5, 4).double()
    local = LocalGradient(cells)
    rates = local.forward(activity)
    local.backward(error)
    stages: Any = cells
    weight, taps, wiring = stages.synapses.weight, stages.dendrites.taps(), stages.synapses.wiring
    rest, soma, scale = stages.dendrites.bias, stages.soma.weight, stages.summation.scale
    expected = torch.zeros_like(weight)
    for b, n in itertools.product(range(2), range(5)):
        filtered = torch.zeros(4, 12, dtype=torch.float64)  # of each synapse, at each step
        for t, s, k in itertools.product(range(4), range(12), range(3)):
            if t - k >= 0:
                filtered[t, s] += taps[n, 2 - k, s % 3, s // 3] * activity[b, wiring[n, s], t - k]
        potential = (filtered * weight[n]).unflatten(1, (4, 3)).sum(2) + rest[n]
        current = potential.relu().sum(1) * scale
        eligible = filtered * (potential > 0).repeat_interleave(3, 1) * scale
        for t in range(4):
            trace = soma[1] * eligible[t] + (soma[0] * eligible[t - 1] if t else 0)
            soma_potential = soma[1] * current[t] + (soma[0] * current[t - 1] if t else 0)
            soma_potential = soma_potential + stages.bias[n]
            assert torch.isclose(rates[b, n, t], soma_potential.relu())
            expected[n] += error[b, n, t] * (soma_potential > 0) * trace
    torch.testing.assert_close(stages.synapses.weight.grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "coupling", [{"norm": "soma"}, {"summation": "sublinear"}, {"rate": {"law": "supralinear"}}]
)
def test_where_it_is_not_exact(coupling: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Through what joins samples or dendrites the formula is another update, which is refused."""
    cells, activity = population(**coupling), torch.randn(6, 9, 4).double()
    monkeypatch.setattr(module, "_reasons", lambda cells: ())
    error, weight = torch.randn(6, 5, 4).double(), cells.synapses.weight
    (true,) = torch.autograd.grad((cells(activity) * error).sum(), weight)
    local = LocalGradient(cells)
    local.forward(activity)
    local.backward(error)
    assert F.cosine_similarity(true.flatten(), weight.grad.flatten(), 0) < 0.99


class Noisy(Purkinje):
    def forward(self, activity: Tensor) -> Tensor:
        return super().forward(activity) + 1


@pytest.mark.parametrize(("keywords", "message"), [
    ({"norm": "soma"}, 'soma_norm is a BatchNorm1d; expected norm = "none"'),
    ({"norm": "dendrites"}, 'dendritic_norm is .*expected norm = "none"'),
    ({"threshold": 2.0}, "threshold_norm is a ThresholdNorm; expected threshold = None"),
    ({"wiring": "all_to_all"}, 'DenseSynapses; expected SparseSynapses, .* but "all_to_all"'),
    ({"tree": {**WHOLE, "mode": "same"}}, r'tree.mode = "same"; expected mode "per_dendrite"'),
    ({"tree": {**WHOLE, "filter": (2, 4, 1)}}, r"filter = \(2, 4, 1\).*expected .*\(3, 4, t"),
    ({"synapse": {"transmitters": 2}}, "synapse.transmitters = 2; expected 1"),
    ({"output": {"mean_wait": 0.5}}, r"mean_wait=0.5.*expected output.mean_wait = 0.0"),
    ({"output": {"kind": "release_or_wait", "mean_wait": 0.0}}, "output = ReleaseOrWait"),
    ({"unit_dropout": {}}, "unit_dropout is a PoissonDropout; expected unit_dropout = None"),
    ({"rate": {"law": "sublinear"}}, 'dendritic_rate is .*sublinear.*the law "linear"'),
    ({"summation": "supralinear"}, 'summation is .*supralinear.*expected the law "linear"'),
    ({"kind": Noisy}, "forward pass of its own"),
])  # fmt: skip
def test_a_refusal_says_what_and_the_remedy(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(NotLocal, match=message):
        LocalGradient(population(**keywords))


# --- the climbing fibre, at a whole network

NETWORKS: dict[str, dict[str, Any]] = {
    "pixels": {},
    "pairs": {"cells_per_class": 2, "gain": 3.0},
    "in time": {"time_steps": 3, "purkinje": {"taps": {"trainable": True}}},
    "Dale's law": {"on_off": True, "purkinje": {"synapse": {"excitatory": 1.0}}},
    "granule cells": {"granule": {"cells": 50, "wiring": {"patch": (3, 3)}}, "time_steps": 2},
    "a cable": {"time_steps": 4, "purkinje": {"taps": {"cable": "purkinje"}}},
}


def network(name: str = "pixels", **keywords: Any) -> PurkinjeClassifier:
    torch.manual_seed(0)
    table = {"image_shape": (1, 8, 8), **NETWORKS[name], **keywords}
    table["purkinje"] = {"tree": {"sheet": (6, 7)}, **table.get("purkinje", {})}
    return create_model("purkinje_classifier", **table).double()


IMAGES, LABELS = torch.linspace(0, 40, 448).sin().view(7, 1, 8, 8).double(), torch.arange(7)


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_error_is_the_gradient_and_single_samples_add_up_to_the_batch(name: str) -> None:
    model, stream = network(name), network(name)
    rule, saved = make_rule(model, "climbing_fibre"), []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda x: x):
        logits = rule(IMAGES, LABELS)
    assert not saved
    assert not logits.requires_grad
    result = gradients(model)
    assert {*result} == {name for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    outputs = model(IMAGES)
    torch.testing.assert_close(outputs.detach(), logits)
    F.cross_entropy(outputs, LABELS).backward()
    rule = make_rule(stream, "climbing_fibre")
    with torch.inference_mode():
        for image, label in zip(IMAGES.split(1), LABELS.split(1), strict=True):
            rule(image, label, weight=1 / 7)
    for key, expected in gradients(model).items():
        scale = expected.abs().max()
        assert scale > 0
        assert (result[key] - expected).abs().max() <= 1e-12 * scale, key
        assert (gradients(stream)[key] - expected).abs().max() <= 1e-12 * scale, key
    torch.nn.utils.clip_grad_norm_(stream.parameters(), 1e-3)  # changes them in place


def test_gradcheck_of_the_definition_that_the_rule_is_held_to() -> None:
    model = network(image_shape=(1, 3, 3), purkinje={"tree": {"sheet": (2, 2)}}, num_classes=2)
    weight: Any = model.purkinje.synapses.weight
    images = torch.rand(2, 1, 3, 3).double()

    def logits(weight: Tensor) -> Any:
        return torch.func.functional_call(model, {"purkinje.synapses.weight": weight}, (images,))

    assert torch.autograd.gradcheck(logits, (weight,))


def test_complex_spikes_carry_the_error() -> None:
    model = network("pairs")
    exact: Any = make_rule(model, "climbing_fibre")
    error = torch.tensor([[0.3, -1.0]]).double().repeat(20_000, 5)
    cells = model.classifier.to_cells(error)
    assert cells[0, :4].tolist() == pytest.approx([-0.9, 0.9, 3.0, -3.0])
    assert torch.equal(exact.climbing_signal(cells), cells)
    carried = ClimbingFibre(model, signal="rate").climbing_signal(cells)
    torch.testing.assert_close(carried, cells)  # gain <= resting_rate: no rate is cut off at zero
    cut = ClimbingFibre(model, signal="rate", resting_rate=0.5).climbing_signal(cells)
    assert cut[0, :4].tolist() == pytest.approx([-0.9, 0.9, 3.0, -1.5])
    spikes = ClimbingFibre(model, signal="spikes", window_s=0.5).climbing_signal(cells)
    torch.testing.assert_close(spikes.mean(0), cells[0], rtol=0, atol=0.15)  # 5 standard errors
    counts = (spikes / 3 + 1) * 0.5
    torch.testing.assert_close(counts, counts.round())


def test_eligibility_ends_early() -> None:
    model, images = network("in time"), torch.rand(7, 1, 3, 8, 8).double()
    model.purkinje.dendrites.weight.requires_grad_(False)
    weight, rates = model.purkinje.synapses.weight, model.purkinje(model.parallel_fibres(images))
    error = model.classifier.to_cells(softmax_error(model(images), LABELS)).detach() / 7 / 3
    for eligibility, first in ((1, 2), (2, 1), (5, 0), (None, 0)):
        ClimbingFibre(model, eligibility=eligibility)(images, LABELS)
        traced = (rates[:, :, first:] * error.unsqueeze(2)).sum()
        expected = torch.autograd.grad(traced, weight, retain_graph=True)
        torch.testing.assert_close(weight.grad, expected[0])
        model.zero_grad()
