"""Folded models against the models themselves, in float64, and what is left of their stages."""

import copy
import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import prune

from neuroconv import convert
from neuroconv import fold as fold_and_report
from neuroconv.flops import count_exact
from neuroconv.kernels.population import fuses
from neuroconv.layers import Cable, DendriticSpike, SomaFilter, SparseSynapses, TreeShape
from neuroconv.neurons import Folding, Granule, GranuleConv2d, MixedPopulation, Population, Purkinje
from neuroconv.neurons.fold.linear import Contacts
from neuroconv.neurons.fold.norms import ChannelShift
from neuroconv.neurons.stages import is_absent, merge
from neuroconv.zoo import create_model, list_models
from tests.neurons.test_neurons_cost import Resumed, check

Lively = Callable[[nn.Module], nn.Module]
SMALL: dict[str, Any] = {"tree": {"sheet": (4, 3), "filter": (2, 3, 3)}, "soma": {"time_steps": 3}}


def fold(model: nn.Module) -> Any:
    return fold_and_report(model)[0]


def near(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def cells(lively: Lively, **options: Any) -> Population:
    """Two lively cells; scales of norms are positive unless the test changes them."""
    population = lively(Purkinje(6, 2, **merge(SMALL, options)))
    assert isinstance(population, Population)
    for norm in (population.dendritic_norm, population.soma_norm):
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    return population


def same_everywhere(model: Any, folded: Any) -> None:
    """A window, the same window in stretches, and static activity."""
    x = noise(3, model.in_features, 5)
    near(folded(x), model(x))
    near(folded(x[:, :, 0]), model(x[:, :, 0]))
    first, state = folded.stream(x[:, :, :2])
    second, state = folded.stream(x[:, :, 2:3], state)
    third, _ = folded.stream(x[:, :, 3:], state)
    near(torch.cat([first, second, third], 2), model.stream(x)[0])


def test_a_folded_population_is_the_population_and_states_its_cost(population: Population) -> None:
    before = copy.deepcopy(population.state_dict())
    folded = fold(population)
    assert type(folded) is type(population)
    same_everywhere(population, folded)
    assert all(torch.equal(v, before[k]) for k, v in population.state_dict().items())
    assert not any(p.requires_grad for p in folded.parameters())
    assert any(p.requires_grad for p in population.parameters())
    x = noise(3, population.in_features, 5).requires_grad_()
    near(*(torch.autograd.grad(model(x).sum(), x)[0] for model in (population, folded)))
    check(folded.closed_form(x.shape), count_exact(folded, x))
    state = folded.stream(x)[1]
    counted = count_exact(Resumed(folded), (x, state.dendrites, state.soma))
    check(folded.closed_form(x.shape, resumed=True), counted)


def test_folding_adds_no_flop(population: Population) -> None:
    folded = fold(population)
    # Without its norms a population may run as one stage, of more FLOPs in less time.
    newly = fuses(folded, 32, 5, evaluation=True) and not fuses(population, 32, 5, evaluation=True)
    window = torch.Size((32, population.in_features, 5))
    for mode in ({"streamed": True}, {"resumed": True}, *(() if newly else ({},))):
        after, before = (
            sum(cost.flop for cost in cells.closed_form(window, **mode))
            for cells in (folded, population)
        )
        assert after <= before


def test_a_folded_image_layer_is_the_layer(image_layer: GranuleConv2d) -> None:
    folded = fold(image_layer)
    frames = noise(2, image_layer.in_channels, 4, 5, 6)
    near(folded(frames), image_layer(frames))
    near(folded(frames[:, :, 0]), image_layer(frames[:, :, 0]))
    first, state = folded.stream(frames[:, :, :1])
    second, _ = folded.stream(frames[:, :, 1:], state)
    near(torch.cat([first, second], 2), image_layer.stream(frames)[0])
    check(folded.closed_form(frames.shape), count_exact(folded, frames))
    assert all(isinstance(norm, nn.Identity) for norm in folded.dendritic_norms)


@pytest.mark.parametrize("name", list_models())
def test_every_entry_of_the_zoo(name: str, lively: Lively) -> None:
    small = {"cerebellum_base": {"purkinje": {"cells": 1}, "granule": {"cells": 200}},
             "alexnet": {"width": 64}, "vit": {"width": 12, "depth": 2},
             "resnet18_granule": {"width": 8}}  # fmt: skip
    model = lively(create_model(name, image_shape=(1, 12, 12), time_steps=2, **small.get(name, {})))
    frames = noise(2, 1, 2, 12, 12)
    with torch.no_grad():
        near(fold(model)(frames), model(frames))


# --- what is left


@pytest.mark.parametrize("mode", ["same", "valid", "per_dendrite"])
def test_the_dendrites_norm_goes_where_taps_allow(mode: Any, lively: Lively) -> None:
    across = {"tree": {"filter": (2, 2, 3)}} if mode == "valid" else {}
    model = cells(lively, **merge(across, tree={"mode": mode}, norm="dendrites"))
    folded = fold(model)
    assert is_absent(folded.dendritic_norm) == (mode == "per_dendrite")
    same_everywhere(model, folded)
    assert not is_absent(model.dendritic_norm)
    nn.init.constant_(model.dendritic_norm.running_var, 0.7)
    with torch.no_grad():  # one scale for each neuron
        model.dendritic_norm.weight.copy_(
            torch.tensor([0.5, 1.5]).repeat_interleave(len(model.dendritic_norm.weight) // 2)
        )
    folded = fold(model)
    assert is_absent(folded.dendritic_norm)
    same_everywhere(model, folded)


@pytest.mark.parametrize(
    ("options", "gone", "gone_if_negative"),
    [
        ({}, True, False),
        ({"rate": {"reduction": "max"}}, True, False),
        ({"rate": {"linear": True}, "wiring": "all_to_all"}, True, True),
        ({"rate": {"linear": True, "reduction": "max"}}, True, False),
        ({"soma": {"neurons": 2}, "summation": "sigmoidal"}, True, True),
        ({"summation": "sublinear"}, False, False),
        ({"rate": {"law": "sublinear"}}, False, False),
        ({"norm": "both"}, True, False),
        ({"synapse": {"transmitters": 2}, "threshold": 1.0}, True, False),
        ({"spike": DendriticSpike(0.5, 0.1)}, False, False),
    ],
    ids=str,
)
def test_the_somas_norm(options: Any, gone: bool, gone_if_negative: bool, lively: Lively) -> None:
    model = cells(lively, **{"norm": "soma", **options})
    folded = fold(model)
    assert is_absent(folded.soma_norm) == gone
    same_everywhere(model, folded)
    assert not is_absent(model.soma_norm)
    with torch.no_grad():
        model.soma_norm.weight[0] *= -1
    folded = fold(model)
    assert is_absent(folded.soma_norm) == gone_if_negative
    same_everywhere(model, folded)


def test_transmitters_join_where_their_taps_allow(lively: Lively) -> None:
    apart = fold(cells(lively, synapse={"transmitters": 3}))
    assert apart.transmitters.kinds == 3
    cable = Cable(300.0, 40.0, 100.0, 20.0)
    for options in (
        {"taps": {"cable": cable, "trainable": False}},
        {"taps": {"cable": cable, "trainable": False}, "wiring": "all_to_all"},
        {"tree": {"filter": (4, 3, 3), "mode": "per_dendrite", "synapses": 10}},
        {"tree": {"filter": (4, 3, 3), "mode": "valid"}},
    ):
        model = cells(lively, **merge(options, synapse={"transmitters": 3}, norm="dendrites"))
        folded = fold(model)
        assert folded.transmitters.kinds == 1
        assert folded.dendrites.neurons == 2
        same_everywhere(model, folded)


def test_a_clamp_keeps_transmitters_and_weights_apart(lively: Lively) -> None:
    model = cells(
        lively, synapse={"transmitters": 2}, threshold=1.0, taps={"backend": "fft"},
        tree={"filter": (4, 3, 3), "mode": "valid"},
    )  # fmt: skip
    folded = fold(model)
    assert folded.transmitters.kinds == 2
    assert type(folded.synapses) is SparseSynapses
    same_everywhere(model, folded)


def test_weights_go_into_taps_that_they_meet_alone(lively: Lively) -> None:
    model = cells(lively, tree={"filter": (4, 3, 3), "mode": "valid", "synapses": 9}, norm="both")
    model.dendrites.backend = "direct"
    folded = fold(model)
    assert type(folded.synapses) is Contacts
    assert not list(folded.synapses.parameters())
    same_everywhere(model, folded)


@pytest.mark.parametrize("norm", ["none", "both"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"wiring": "all_to_all", "synapse": {"transmitters": 2}},
        {"synapse": {"transmitters": 2, "excitatory": 0.5, "factorized": True},
         "tree": {"synapses": 7}},
        {"soma": {"neurons": 2}, "tree": {"mode": "per_dendrite"}},
        {"taps": {"equalized_lr": True, "backend": "fft"},
         "tree": {"mode": "valid", "filter": (2, 2, 3)}},
        {"unit_dropout": {"mean_wait": 0.5}},
    ],
    ids=str,
)  # fmt: skip
def test_the_linear_control_is_one_dot_product(norm: Any, options: Any, lively: Lively) -> None:
    model = cells(lively, **merge(options, rate={"linear": True}, norm=norm))
    if not is_absent(model.soma_norm):
        with torch.no_grad():
            model.soma_norm.weight[0] *= -1
    folded = fold(model)
    same_everywhere(model, folded)
    axons = folded.dendrites.sheet_shape[1]
    assert folded.dendrites.tree.filter == (1, axons, model.time_steps)
    assert axons <= model.in_features
    assert is_absent(folded.dendritic_norm)
    assert is_absent(folded.soma_norm)
    assert folded.transmitters.kinds == 1


def test_the_linear_control_is_differentiated_in_chunks(
    lively: Lively, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cells(lively, rate={"linear": True}, norm="both", synapse={"transmitters": 2})
    whole = fold(model)
    monkeypatch.setattr(sys.modules[Contacts.__module__], "_CHUNK_NUMBERS", 1)
    apart = fold(model)
    near(apart.dendrites.weight, whole.dendrites.weight)
    near(apart.dendrites.bias, whole.dendrites.bias)
    same_everywhere(model, apart)


def test_the_linear_control_stays_where_one_filter_costs_more(lively: Lively) -> None:
    """A dense listener to many axons, whose synapses share one tap each."""
    model = lively(
        Purkinje(
            50, 2, tree=TreeShape((1, 2), (1, 2, 5), mode="per_dendrite"), wiring="all_to_all",
            rate={"linear": True},
        )
    )  # fmt: skip
    folded = fold(model)
    assert folded.dendrites.sheet_shape == (1, 2)
    same_everywhere(model, folded)


def test_scales_pass_the_image_layers_rectifier_if_positive() -> None:
    layer = GranuleConv2d(2, 2, (2, 3), time_steps=2, norm="both").double().eval()
    frames = noise(2, 2, 3, 5, 6)
    folded = fold(layer)
    assert is_absent(folded.soma_norm)
    near(folded(frames), layer(frames))
    assert not is_absent(layer.soma_norm)
    with torch.no_grad():
        layer.soma_norm.weight[1] = -0.5
    folded = fold(layer)
    assert not is_absent(folded.soma_norm)
    near(folded(frames), layer(frames))


# --- nested, saved, differentiated, refused


def test_nested_models_are_folded_and_shared_modules_stay_shared(lively: Lively) -> None:
    shared = Granule(6, 6, norm="both", tree={"sheet": (4, 3), "filter": (2, 3, 3)})
    options = SMALL | {"soma": SomaFilter(3, neurons=2)}  # which both populations share
    mixed = MixedPopulation(*(Purkinje(6, 2, norm=norm, **options) for norm in ("soma", "both")))
    model = lively(nn.Sequential(shared, nn.Sequential(shared, mixed)))
    folded = fold(model)
    assert folded[0] is folded[1][0]
    x = noise(2, 6, 5)
    near(folded(x), model(x))
    near(folded[1][1].stream(x)[0], model[1][1].stream(x)[0])


# --- the batch norms of a network


def stages(**options: Any) -> nn.Sequential:
    conv = nn.Conv2d(2, 2, 3, padding=1, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3, bias=False))


class Network(nn.Module):
    """A network of `stages`, with a forward of the test's."""

    def __init__(self, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.features: Any = stages()
        self.run, self.features.held, self.features.kept = run, [*self.features], {}

    def forward(self, x: Any, mask: Any = None) -> Tensor:
        return self.run(self.features, x, mask)


def loop(features: Any, x: Tensor, mask: Any) -> Tensor:
    for layer in features:
        x = layer(x)
    return x


def early(features: Any, x: Tensor, mask: Any) -> Tensor:
    outputs = []
    for name, layer in features.named_children():
        x = layer(x)
        outputs += [x] if name == "0" else []
    return x.sum() + outputs[0]


CONV = "something else takes the output of 'features.0' too"


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda f, x, mask: f(x), ""),
        (loop, ""),
        (lambda f, x, mask: f[2:](f[:2](x)), ""),
        (lambda f, x, mask: f[1](f[0](x)), ""),
        (lambda f, x, mask: f.held[1](f.held[0](x)), ""),
        (lambda f, x, mask: f.kept.update(y=f[0](x)) or f[1](f.kept["y"]), "a module keeps the ou"),
        (lambda f, x, mask: f[1](input=f[0](f[1](f[0](x)))), ""),
        (lambda f, x, mask: f[3](f[0](x)), CONV),
        (lambda f, x, mask: f(x) + f[0](x).mean(), CONV),
        (lambda f, x, mask: f[2:](f[0](x)), CONV),
        (lambda f, x, mask: f[:1](x), CONV),
        (early, CONV),
        (lambda f, x, mask: f(x) + f[1](x).mean(), "its input is not always the output of the"),
        (lambda f, x, mask: f(x) if mask is None else f[0](x), CONV),
        (lambda f, x, mask: f(x) if isinstance(x, Tensor) else f[0](x[0]), CONV),
        (lambda f, x, mask: f(x) if x.sum() > 1e9 else f[0](x), "Network.forward cannot be traced"),
        (lambda f, x, mask: f(x) * f[0].weight.sum(), "a forward reads tensors of 'features.0'"),
        (lambda f, x, mask: f(x).mean() + f[0]._parameters["bias"], "a forward reads tensors of"),
        (lambda f, x, mask: f(x) + f[0].forward(x).mean(), "a forward reads tensors of"),
    ],
)
def test_norms_join_where_they_alone_take_the_output(run: Any, reason: str, lively: Lively) -> None:
    model: Any = lively(Network(run))
    folded, (row,) = fold_and_report(model)
    assert row.name == "features.1"
    assert row.into == ("" if reason else "features.0.weight")
    assert row.reason.startswith(reason)
    assert is_absent(folded.get_submodule("features.1")) == (not reason)
    x = noise(2, 2, 6, 6)
    near(folded(x), model(x))
    near(folded(x, x), model(x, x))
    assert not is_absent(model.features[1])
    assert not folded.features.kept or folded.features.kept["y"].equal(model.features.kept["y"])


def test_a_list_of_layers_and_a_sequence_with_a_forward_of_its_own(lively: Lively) -> None:
    class Block(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, self[1](self[0](x)), self[3](x).mean() * x], 1)

    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Block(*stages()), *stages(groups=2)[:2]])

        def forward(self, x: Tensor) -> Tensor:
            return self.layers[2](self.layers[1](x)) + self.layers[0](x).mean()

    model = lively(Listed())
    folded, rows = fold_and_report(model)
    assert [(row.name, row.into) for row in rows] == [
        ("layers.0.1", "layers.0.0.weight"), ("layers.2", "layers.1.weight")
    ]  # fmt: skip
    x = noise(2, 2, 6, 6)
    near(folded(x), model(x))


def test_a_module_that_borrows_a_layer_and_cannot_be_traced(lively: Lively) -> None:
    class Borrower(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.norm, self.layers = nn.BatchNorm2d(2), [layer]

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.layers[0](x) if x.sum() != 0 else x)

    lender = stages()
    model = lively(nn.Sequential(lender, Borrower(lender[0])))
    folded, rows = fold_and_report(model)
    assert {row.reason[:32] for row in rows} == {"Borrower.forward cannot be trace"}
    x = noise(2, 2, 6, 6)
    near(folded(x), model(x))


def _watched(features: Any) -> None:
    features[0].register_forward_hook(lambda module, args, output: output + 1)


def _subclass(features: Any) -> None:
    class Louder(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    features[1] = Louder(2)


def _batch_statistics(features: Any) -> None:
    features[1] = nn.BatchNorm2d(2, track_running_stats=False)


def _linear(features: Any) -> None:
    features[0] = nn.Upsample(scale_factor=2)


def _pruned(features: Any) -> None:
    prune.l1_unstructured(features[0], "weight", 3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_watched, "hooks, or a forward of its own, would notice"),
        (_pruned, "hooks, or a forward of its own, would notice"),
        (_subclass, "it takes batch statistics, or is no plain batch norm"),
        (_batch_statistics, "it takes batch statistics, or is no plain batch norm"),
        (_linear, "a Upsample is no convolution of its 2 channels"),
    ],
)
def test_what_is_no_plain_convolution_and_norm_stays(
    change: Any, reason: str, lively: Lively
) -> None:
    model = lively(stages())
    change(model)
    model = model.double().eval()
    folded, rows = fold_and_report(model)
    assert rows == [Folding("1", "", reason)]
    x = noise(2, 2, 6, 6)
    near(folded(x), model(x))


@pytest.mark.parametrize("gain", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("after", [nn.ReLU(), nn.Sigmoid()])
@pytest.mark.parametrize(
    "options",
    [{}, {"norm": "both"}, {"norm": "dendrites"}, {"spike": DendriticSpike(0.5, 0.1)},
     {"summation": "sublinear"}, {"time_steps": 3, "padding": 1}, {"output": "poisson_spikes"}],
    ids=str,
)  # fmt: skip
def test_a_norm_behind_rates(options: Any, after: Any, gain: float, lively: Lively) -> None:
    layer = GranuleConv2d(2, 3, (2, 3), **{"time_steps": 1} | options)
    three = layer.time_steps > 1
    norm = nn.BatchNorm3d(3) if three else nn.BatchNorm2d(3)
    model: Any = lively(nn.Sequential(layer, norm, after))
    x = noise(2, 2, *[4] * three, 6, 7)
    with torch.no_grad():
        for inner in layer.modules():
            if isinstance(inner, nn.BatchNorm2d):
                inner.weight.abs_()
        norm.weight.copy_(torch.tensor([0.6, 0.7, gain]))
        for shift in ([-0.3, -0.2, 0.0], [-0.3, 0.4, 0.2]):
            norm.bias.copy_(norm.running_mean * norm.weight * (norm.running_var + norm.eps) ** -0.5)
            norm.bias += torch.tensor(shift)
            folded, rows = fold_and_report(model)
            row = rows[0]
            if options.get("output"):
                assert (row.into, row.reason[:9]) == ("", "the layer")
                continue
            near(folded(x), model(x))
            if three:
                near(folded[0].stream(x)[0], folded[0](x))
            assert row.name == "1"
            if gain < 0:
                assert row.reason == "1 negative scales do not pass the somata's rectifier"
                continue
            assert row.into == "0.weight"
            if isinstance(after, nn.ReLU) and shift[1] < 0:
                assert is_absent(folded[1])
                assert not row.reason
            else:
                assert type(folded[1]) is ChannelShift
                assert row.reason.endswith("and stay")
            bent = {"spike", "summation"} & {*options}
            assert is_absent(folded[0].soma_norm) == (not bent)
    assert [r.name for r in rows[1:]].count("0.soma_norm") == (options.get("norm") == "both")


def test_a_converted_network_has_norms_to_fold(lively: Lively) -> None:
    residual = torchvision.models.resnet.BasicBlock(2, 2)
    model = lively(convert(nn.Sequential(stages(), residual, stages()))[0])
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.abs_()
    folded, rows = fold_and_report(model)
    kinds = {"0.1": True, "1.bn1": True, "1.bn2": False, "2.1": True}
    assert [row.name for row in rows] == [*kinds]
    assert all(row.into for row in rows)
    x = noise(2, 2, 12, 12)
    near(folded(x), model(x))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert type(folded.get_submodule("1.bn2")) is ChannelShift
    near(torch.fx.symbolic_trace(folded)(x), model(x))


def test_precision_and_device_stay() -> None:
    model = convert(stages())[0].to(torch.bfloat16)
    folded = fold(model.train())
    assert {t.dtype for t in folded.state_dict().values() if t.is_floating_point()} == {
        torch.bfloat16
    }
    x = torch.rand(1, 2, 6, 6, dtype=torch.bfloat16)
    torch.testing.assert_close(folded(x), model.eval()(x), rtol=0.05, atol=0.05)


def test_stages_of_populations_are_reported(lively: Lively) -> None:
    model = nn.ModuleDict({
        "all": cells(lively, norm="both", tree={"mode": "per_dendrite"}),
        "law": cells(lively, norm="both", summation="sublinear"),
        "kinds": cells(lively, synapse={"transmitters": 2}, threshold=1.0),
        "linear": cells(lively, rate={"linear": True}),
        "unit": lively(GranuleConv2d(2, 2, (2, 2), norm="both", summation="sublinear")),
        "hook": lively(GranuleConv2d(2, 2, (2, 1), norm="dendrites")),
    })  # fmt: skip
    model["kinds"].soma.register_forward_hook(lambda *_: None)
    model["hook"].firing.register_forward_hook(lambda *_: None)
    other = "the population has methods, stages or hooks of its own"
    bent = "before it is not linear"
    expected = [
        ("all.dendritic_norm", "all.dendrites", ""), ("all.soma_norm", "all.dendrites", ""),
        ("law.dendritic_norm", "", "scales differ where taps are shared"),
        ("law.soma_norm", "", bent), ("kinds.transmitters", "", other),
        ("linear.dendritic_rate", "linear.dendrites", ""),
        ("unit.dendritic_norms.0", "unit.weight", ""),
        ("unit.dendritic_norms.1", "unit.weight", ""), ("unit.soma_norm", "", bent),
        ("hook.dendritic_norms.0", "", "the layer has methods, or stages with hooks, of its own"),
    ]  # fmt: skip
    rows = fold_and_report(model)[1]
    assert [(row.name, row.into) for row in rows] == [row[:2] for row in expected]
    for row, (*_, reason) in zip(rows, expected, strict=True):
        assert reason in row.reason
        assert bool(row.reason) == bool(reason)


def test_save_and_load(lively: Lively) -> None:
    folded = fold(cells(lively, norm="both", tree={"mode": "per_dendrite"}))
    file, x = io.BytesIO(), noise(2, 6, 5)
    torch.save(folded, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), folded(x))


@pytest.mark.gpu
def test_on_cuda(population: Population) -> None:
    x = noise(2, population.in_features, 5)
    folded = fold(population.cuda())
    assert all(t.is_cuda for t in (*folded.parameters(), *folded.buffers()))
    near(folded(x.cuda()), population(x.cuda()))


def test_subclasses_with_methods_of_their_own_stay_as_they_are() -> None:
    class Loud(Granule):
        def fire(self, potential: Tensor, state: Any) -> Any:
            rate, state = super().fire(potential, state)
            return 2 * rate, state

    options: Any = {"norm": "both", "tree": {"mode": "per_dendrite"}}
    patched: Any = Granule(6, 4, **options)
    patched.dendritic_rate.forward = lambda potential: 1 - potential.mean(3)
    for model in (Loud(6, 4, **options), patched):
        folded = fold(model.double().eval())
        assert not is_absent(folded.dendritic_norm)
        x = noise(2, 6, 5)
        near(folded(x), model(x))


def test_scripted_and_lazy_modules(lively: Lively) -> None:
    scripted = torch.jit.script(lively(stages()))
    with pytest.raises(ValueError, match="model is a RecursiveScriptModule; fold it before"):
        fold(scripted)
    model = lively(nn.Sequential(scripted, *stages()))
    folded, rows = fold_and_report(model)
    assert rows == [Folding("2", "1.weight", "")]
    x = noise(2, 2, 8, 8)
    near(folded(x), model(x))
    with pytest.raises(ValueError, match=r"buffer '1.running_mean' has no shape yet; call the"):
        fold(nn.Sequential(nn.Conv2d(2, 2, 3), nn.LazyBatchNorm2d()))


def test_what_cannot_be_folded() -> None:
    with pytest.raises(TypeError, match=r"model=<class .*; expected a Module"):
        fold(nn.ReLU)
    with torch.device("meta"):
        model = Granule(6, 4)
    with pytest.raises(ValueError, match=r"parameter 'bias' is on meta; expected values to fold"):
        fold(model)
