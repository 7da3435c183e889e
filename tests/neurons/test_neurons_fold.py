"""Folded models against the models themselves, in float64, and what is left of their stages."""

import copy
import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv import fold
from neuroconv.flops import count_exact
from neuroconv.kernels.population import fuses
from neuroconv.layers import Cable, DendriticSpike, SomaFilter, SparseSynapses, TreeShape
from neuroconv.neurons import Granule, GranuleConv2d, MixedPopulation, Population, Purkinje
from neuroconv.neurons.fold.linear import Contacts
from neuroconv.neurons.stages import is_absent, merge
from neuroconv.zoo import create_model, list_models
from tests.neurons.test_neurons_cost import Resumed, check

Lively = Callable[[nn.Module], nn.Module]
SMALL: dict[str, Any] = {"tree": {"sheet": (4, 3), "filter": (2, 3, 3)}, "soma": {"time_steps": 3}}


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
    folded: Any = fold(population)
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
    folded: Any = fold(population)
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
    folded: Any = fold(image_layer)
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
    folded: Any = fold(model)
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
        ({"spike": True}, False, False),
    ],
    ids=str,
)
def test_the_somas_norm(options: Any, gone: bool, gone_if_negative: bool, lively: Lively) -> None:
    stages = {"norm": "soma", **options}
    if "spike" in stages:
        stages["spike"] = DendriticSpike(0.5, 0.1)
    model = cells(lively, **stages)
    folded: Any = fold(model)
    assert is_absent(folded.soma_norm) == gone
    same_everywhere(model, folded)
    assert not is_absent(model.soma_norm)
    with torch.no_grad():
        model.soma_norm.weight[0] *= -1
    folded = fold(model)
    assert is_absent(folded.soma_norm) == gone_if_negative
    same_everywhere(model, folded)


def test_factors_signs_and_units_become_plain_weights(lively: Lively) -> None:
    model = cells(
        lively, synapse={"factorized": True, "excitatory": 0.5}, taps={"equalized_lr": True}
    )
    folded: Any = fold(model)
    assert type(folded.synapses) is SparseSynapses
    assert folded.synapses.signs is None
    near(folded.synapses.weight, model.synapses.effective_weight())
    near(folded.dendrites.weight, model.dendrites.taps())
    assert folded.dendrites.tap_unit == 1


def test_transmitters_join_where_their_taps_allow(lively: Lively) -> None:
    apart: Any = fold(cells(lively, synapse={"transmitters": 3}))
    assert apart.transmitters.kinds == 3
    cable = Cable(300.0, 40.0, 100.0, 20.0)
    for options in (
        {"taps": {"cable": cable, "trainable": False}},
        {"taps": {"cable": cable, "trainable": False}, "wiring": "all_to_all"},
        {"tree": {"filter": (4, 3, 3), "mode": "per_dendrite", "synapses": 10}},
        {"tree": {"filter": (4, 3, 3), "mode": "valid"}},
    ):
        model = cells(lively, **merge(options, synapse={"transmitters": 3}, norm="dendrites"))
        folded: Any = fold(model)
        assert folded.transmitters.kinds == 1
        assert folded.dendrites.neurons == 2
        same_everywhere(model, folded)


def test_a_clamp_keeps_transmitters_and_weights_apart(lively: Lively) -> None:
    model = cells(
        lively, synapse={"transmitters": 2}, threshold=1.0, taps={"backend": "fft"},
        tree={"filter": (4, 3, 3), "mode": "valid"},
    )  # fmt: skip
    folded: Any = fold(model)
    assert folded.transmitters.kinds == 2
    assert type(folded.synapses) is SparseSynapses
    same_everywhere(model, folded)


def test_weights_go_into_taps_that_they_meet_alone(lively: Lively) -> None:
    model = cells(lively, tree={"filter": (4, 3, 3), "mode": "valid", "synapses": 9}, norm="both")
    model.dendrites.backend = "direct"
    folded: Any = fold(model)
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
    folded: Any = fold(model)
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
    whole: Any = fold(model)
    monkeypatch.setattr(sys.modules[Contacts.__module__], "_CHUNK_NUMBERS", 1)
    apart: Any = fold(model)
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
    folded: Any = fold(model)
    assert folded.dendrites.sheet_shape == (1, 2)
    same_everywhere(model, folded)


def test_scales_pass_the_image_layers_rectifier_if_positive() -> None:
    layer = GranuleConv2d(2, 2, (2, 3), time_steps=2, norm="both").double().eval()
    frames = noise(2, 2, 3, 5, 6)
    folded: Any = fold(layer)
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
    folded: Any = fold(model)
    assert folded[0] is folded[1][0]
    x = noise(2, 6, 5)
    near(folded(x), model(x))
    near(folded[1][1].stream(x)[0], model[1][1].stream(x)[0])


def test_convolutions_of_a_sequence_take_the_norm_behind_them(lively: Lively) -> None:
    twice = nn.Conv2d(4, 4, 3, padding=1)
    model = lively(
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), twice, nn.BatchNorm2d(4), twice,
            nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4, track_running_stats=False),
        )
    )  # fmt: skip
    folded: Any = fold(model)
    x = noise(2, 1, 8, 8)
    near(folded(x), model(x))
    kinds = [type(module) for module in folded]
    assert kinds[1] is nn.Identity
    assert kinds[4] is nn.BatchNorm2d  # its convolution is used once more
    assert kinds[7] is nn.BatchNorm2d  # it takes the batch's model statistics


def test_save_and_load(lively: Lively) -> None:
    folded: Any = fold(cells(lively, norm="both", tree={"mode": "per_dendrite"}))
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


def test_neurons_with_hooks_on_their_stages_stay_as_they_are(lively: Lively) -> None:
    model = cells(lively, norm="both", tree={"mode": "per_dendrite"})
    model.soma.register_forward_hook(lambda m, args, out: None)
    folded: Any = fold(model)
    assert not is_absent(folded.dendritic_norm)
    layer = GranuleConv2d(2, 2, norm="dendrites").double().eval()
    layer.firing.register_forward_hook(lambda m, args, out: None)
    folded = fold(layer)
    assert not any(map(is_absent, folded.dendritic_norms))


def test_subclasses_with_methods_of_their_own_stay_as_they_are() -> None:
    class Loud(Granule):
        def fire(self, potential: Tensor, state: Any) -> Any:
            rate, state = super().fire(potential, state)
            return 2 * rate, state

    model = Loud(6, 4, norm="both", tree={"mode": "per_dendrite"}).double().eval()
    folded: Any = fold(model)
    assert not is_absent(folded.dendritic_norm)
    x = noise(2, 6, 5)
    near(folded(x), model(x))


def test_what_cannot_be_folded() -> None:
    with pytest.raises(TypeError, match=r"model=<class .*; expected a Module"):
        fold(nn.ReLU)
    with torch.device("meta"):
        model = Granule(6, 4)
    with pytest.raises(ValueError, match=r"parameter 'bias' is on meta; expected values to fold"):
        fold(model)
