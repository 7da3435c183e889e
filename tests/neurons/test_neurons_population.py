"""Populations as modules: what they compute, hold, state and refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.layers import (
    DendriticRate,
    DendriticSpike,
    DendriticSummation,
    PoissonDropout,
    PoissonSpikes,
    ReceptiveField,
    SomaFilter,
    Synapse,
    Taps,
    TreeShape,
)
from neuroconv.neurons import PRESETS, Granule, Population, Purkinje

Lively = Callable[[nn.Module], Any]


def test_dendrite_and_soma_see_nine_steps_back_with_the_present(lively: Lively) -> None:
    cells = lively(Granule(8, 16))
    nn.init.constant_(cells.soma.weight, 0.5)
    activity = torch.rand(4, 8, 12, dtype=torch.float64, requires_grad=True)
    cells(activity)[..., 11].sum().backward()
    felt = activity.grad.abs().sum((0, 1)) > 0
    assert felt.tolist() == [False] * 3 + [True] * 9


@pytest.mark.parametrize(
    ("kind", "keywords", "expected"),
    [
        # weights of the synapses, taps, dendritic bias, soma taps, somatic bias
        (Granule, {}, 7 * (15 + 60 + 4 + 1) + 5),
        (Granule, {"norm": "soma"}, 7 * (15 + 60 + 4 + 2) + 5),
        (Granule, {"norm": "dendrites"}, 7 * (15 + 60 + 8 + 1) + 5),
        (Granule, {"norm": "both"}, 7 * (15 + 60 + 8 + 2) + 5),
        (Granule, {"soma": {"neurons": 7}}, 7 * (15 + 60 + 4 + 1 + 5)),
        (Granule, {"wiring": "all_to_all"}, 7 * (15 * 30 + 60 + 4 + 1) + 5),
        (Purkinje, {}, 7 * (100_000 + 50_000 + 1_000 + 1) + 5),
        (Purkinje, {"tree": {"mode": "valid"}}, 7 * (100_000 + 50_000 + 1 + 1) + 5),
    ],
)
def test_parameters_by_closed_form(kind: type[Population], keywords: Any, expected: int) -> None:
    with torch.device("meta"):
        cells = kind(30, 7, **keywords)
    assert sum(parameter.numel() for parameter in cells.parameters()) == expected


def test_state_dict_round_trip(lively: Lively) -> None:
    cells = lively(Granule(20, 4, norm="both", wiring={"seed": 1}))
    other = Granule(20, 4, norm="both", wiring={"seed": 2}).double().eval()
    activity = torch.rand(2, 20, 5, dtype=torch.float64)
    assert not torch.equal(cells(activity), other(activity))
    other.load_state_dict(cells.state_dict())  # the wiring goes with it
    assert torch.equal(cells(activity), other(activity))


def test_norms_in_training_normalise_where_they_say() -> None:
    potentials: list[Tensor] = []
    cells = Granule(20, 6, norm="both", output={"mean_wait": 0.0})
    cells.dendritic_rate.register_forward_pre_hook(lambda m, args: potentials.append(args[0]))
    cells.soma_norm.register_forward_hook(lambda m, args, result: potentials.append(result))
    cells(torch.rand(16, 20, 5))
    # Each dendrite of each neuron, over batch, steps and sites; each soma over batch and steps.
    for potential, axes in zip(potentials, [(0, 2, 3), (0, 2)], strict=True):
        mean, deviation = potential.mean(axes), potential.std(axes)
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-5)
        torch.testing.assert_close(deviation, torch.ones_like(mean), rtol=0, atol=0.05)


def test_all_purkinje_cells_of_a_tenth_of_a_brain_on_meta() -> None:
    with torch.device("meta"):
        cells = Purkinje(5_000_000, 10_000_000)
        rate = cells(torch.empty(1, 5_000_000, 5))
    assert rate.is_meta
    assert rate.shape == (1, 10_000_000, 5)
    assert sum(p.numel() for p in cells.parameters()) == 10_000_000 * 151_001 + 5
    dendrites = cells.closed_form(torch.Size((1, 5_000_000, 5)))[1]
    assert dendrites.essay == dendrites.direct == 10_000_000 * 25_000_000_000


def test_closed_form_rows() -> None:
    rows = Granule(20, 6, taps={"backend": "direct"}).closed_form(torch.Size((3, 20)))
    table = {row.stage: row for row in rows}
    synapses, dendrites, soma = (table[name] for name in ("synapses", "dendrites", "soma"))
    assert synapses.synapses == 6 * 15
    assert synapses.pointwise == 3 * 5 * 6 * 15
    assert dendrites.neurons == 6
    assert dendrites.essay == 3 * 6 * 4_500
    assert dendrites.direct == 3 * 6 * 4_800
    assert dendrites.macs == {"convolution": 3 * 6 * 4_800}
    assert soma.macs == {"matmul": 3 * 6 * 5 * 5}
    assert Granule(20, 6, taps={"backend": "direct"}).closed_form(torch.Size((3, 20, 5))) == rows
    joined = Granule(20, 6, taps={"backend": "matmul"}).closed_form(torch.Size((3, 20)))
    assert joined[0].pointwise == 0
    # Each step of an axon meets the 16 branches at itself and at all later steps of the window; and
    # the three weights that a branch of a claw reads meet the taps, of which one is zero.
    joining = 6 * 5 * (4 + 1) * 3 * 16
    assert joined[1].macs == {"matmul": 3 * 6 * (5 + 4 + 3 + 2 + 1) * 4 * 16 + joining}
    assert joined[1].essay == dendrites.essay


@pytest.mark.parametrize(
    ("error", "keywords", "message"),
    [
        (ValueError, {"in_features": 0}, "in_features=0; expected an integer"),
        (ValueError, {"in_features": "10"}, "in_features='10'; expected an integer"),
        (ValueError, {"out_features": 5.0}, "out_features=5.0; expected an integer"),
        (ValueError, {"tree": {"sheet": (0, 4)}}, r"tree: sheet=\(0, 4\); expected 2 values"),
        (ValueError, {"tree": {"synapses": 17}}, "tree: synapses=17; expected 1 to 16"),
        (ValueError, {"tree": {"mode": "valid", "sheet": (2, 4)}}, "does not fit .*mode='same'"),
        (ValueError, {"wiring": "randon"}, "wiring='randon' is unknown; did you mean 'random'"),
        (ValueError, {"norm": "batch"}, "norm='batch'; .*expected one of none, dendr"),
        (ValueError, {"output": {"mean_wait": -1.0}}, "output: mean_wait=-1.0; expected"),
        (ValueError, {"unit_dropout": PoissonDropout()}, "Poiss.*expected scope='unit'"),
        (ValueError, {"wiring": ReceptiveField((1, 4, 4))}, "has 16 pixels and in_features is 10"),
        (TypeError, {"tree": {"sheets": (4, 4)}}, "TreeShape has no keyword 'sheets'; did you"),
        (TypeError, {"tree": 4}, "tree=4; expected a TreeShape, a table or None"),
        (TypeError, {"wiring": {"patch": (2, 2)}},
         "Random has no keyword 'patch'; expected one of claw, seed"),
        (TypeError, {"wiring": {"kind": "in_order", "seed": 1}},
         "no keyword 'seed'; expected .* none"),
        (TypeError, {"wiring": "receptive_field"},
         "wiring: ReceptiveField.* missing .* 'image_shape'"),
        (TypeError, {"wiring": 3}, "wiring=3; expected a Random, .*, a table, a string or None"),
        (TypeError, {"sead": 1}, "Population has no keyword 'sead'"),
    ],
)  # fmt: skip
def test_constructor_errors(error: type[Exception], keywords: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Granule(**{"in_features": 10, "out_features": 5, **keywords})


def test_a_stage_is_an_object_a_table_or_a_name() -> None:
    tables: dict[str, Any] = {
        "tree": {"sheet": [4, 4], "filter": [3, 4, 5], "synapses": 15},
        "wiring": {"kind": "receptive_field", "image_shape": [1, 4, 6], "patch": [2, 2], "seed": 3},
        "synapse": {"excitatory": 0.5, "seed": 3},
        "taps": {"cable": "purkinje", "trainable": False},
        "spike": {"strength": 0.5},
        "rate": {"reduction": "max"},
        "summation": "sublinear",
        "soma": {"time_steps": 3},
        "output": "poisson_spikes",
        "unit_dropout": {},
    }
    objects: dict[str, Any] = {
        "tree": TreeShape((4, 4), (3, 4, 5), synapses=15),
        "wiring": ReceptiveField((1, 4, 6), (2, 2), seed=3),
        "synapse": Synapse(0.5, seed=3),
        "taps": Taps(PRESETS["purkinje", "literature"].cable(), trainable=False),
        "spike": DendriticSpike(0.5),
        "rate": DendriticRate("max"),
        "summation": DendriticSummation("sublinear", scale=1 / 4),
        "soma": SomaFilter(3),
        "output": PoissonSpikes(),
        "unit_dropout": PoissonDropout(0.5, scope="unit"),
    }
    built = []
    for stages in (tables, objects):
        torch.manual_seed(0)
        built.append(Granule(24, 5, **stages))
    assert repr(built[0]) == repr(built[1])
    assert not built[0].dendrites.weight.requires_grad
    states = [cells.state_dict() for cells in built]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("shape", [(10,), (2, 9), (2, 9, 5), (2, 10, 0), (2, 10, 5, 1)])
def test_call_errors(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, 10 axons, time_steps\)"):
        Granule(10, 5)(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"expected \(batch, 10 axons, time_steps\)"):
        Granule(10, 5).stream(torch.zeros(shape))


@pytest.mark.parametrize("wiring", ["random", "all_to_all"])
def test_activity_of_other_dtypes_is_converted_to_the_weights(wiring: str) -> None:
    cells, spikes = Granule(10, 5, wiring=wiring).eval(), torch.randint(0, 2, (3, 10, 5))
    for dtype in (torch.uint8, torch.int64, torch.float64):
        torch.testing.assert_close(cells(spikes.to(dtype)), cells(spikes.float()))


@pytest.mark.gpu
def test_cuda_equals_cpu(population: Population) -> None:
    activity = torch.rand(3, population.in_features, 5, dtype=torch.float64)
    expected = population(activity)
    result = population.cuda()(activity.cuda()).cpu()
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("backend", ["auto", "direct", "fft", "matmul"])
def test_no_samples_give_no_rates(backend: Any, training: bool) -> None:
    cells = Granule(20, 6, taps={"backend": backend}).train(training)
    assert cells(torch.rand(0, 20, 5)).shape == (0, 6, 5)
