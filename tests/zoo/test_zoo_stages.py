"""Tables that exchange a stage: each network builds, learns, is counted, and differs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.flops import profile
from neuroconv.layers import DendriticSpike, PoissonDropout, PoissonSpikes, ReleaseOrWait
from neuroconv.layers.threshold import ThresholdNorm
from neuroconv.neurons.stages import is_absent, merge
from neuroconv.zoo import Cerebellum, FrameNet, count_parameters, create_model

SHAPE, STEPS = (1, 8, 8), 3


def both(**stages: Any) -> dict[str, Any]:
    """The same stages for granule and Purkinje cells."""
    return {"granule": stages, "purkinje": stages}


def held() -> dict[str, Any]:
    return both(taps={"cable": "purkinje", "trainable": False})


CEREBELLUM: dict[str, dict[str, Any]] = {
    "no_golgi": {"golgi": {"cells": 0}},
    "no_nuclei": {"nuclei": {"cells": 0}},
    "spike": both(spike={"strength": 0.5, "signal": "essay"}, tree={"mode": "same"}),
    "law": both(summation="sublinear"),
    "threshold": both(threshold=3.0),
    "norm": both(norm="both"),
    "cable": both(taps={"cable": "purkinje"}),
    "held_cable": held(),
    "synapse": both(synapse={"excitatory": 0.8, "factorized": True, "transmitters": 2}),
    "soma": both(soma={"time_steps": 1}),
    "linear": both(rate={"linear": True}),
    "granule_mode": {"granule": {"tree": {"mode": "valid"}}},
    "purkinje_random": {"purkinje": {"wiring": "random"}},
    "purkinje_in_order": {"purkinje": {"wiring": {"kind": "in_order"}}},
    "purkinje_all_to_all": {"purkinje": {"wiring": "all_to_all"}},
    "equalized_lr": {"purkinje": {"taps": {"equalized_lr": True}}},
    "many": both(threshold=2.0, norm="both", spike={"strength": 0.7}, summation="bistable"),
}
CONVNET: dict[str, dict[str, Any]] = {
    "spike": {"unit": {"spike": {"strength": 0.5, "threshold": 0.5}}},
    "essay": {"unit": {"spike": {"strength": 0.5, "signal": "essay"}}},
    "law": {"unit": {"summation": "supralinear"}},
    "threshold": {"unit": {"threshold": 2.0}},
    "norm": {"unit": {"norm": "soma"}},
    "linear": {"unit": {"linear_dendrites": True}},
    "soma": {"unit": {"soma": {"time_steps": 1}}},
    "dense": {"unit": {"wiring": "dense"}},
    "kernel": {"kernel_size": (2, 3)},
    "many": {
        "unit": {
            "threshold": 2.0, "norm": "none", "spike": {"strength": 0.7}, "summation": "sublinear",
        }
    },
}  # fmt: skip
# Seen in training alone: in evaluation the default's axons carry the same rates.
IN_TRAINING: dict[str, tuple[str, dict[str, Any]]] = {
    "no_dropout": ("cerebellum_tiny", {"granule": {"output": {"mean_wait": 0.0}}}),
    "redraw": ("cerebellum_tiny", {"granule": {"output": {"mode": "redraw"}}}),
    "on_the_sheet": ("cerebellum_tiny", {"granule": {"unit_dropout": {}}}),
    "spikes": ("cerebellum_tiny", {"granule": {"output": "poisson_spikes"}}),
    # A frame is longer than its sleep of 20 ms, which is over at the next step.
    "release": ("cerebellum_tiny", {"granule": {"output": "release_or_wait"}}),
    "convnet": ("granule_convnet", {"unit": {"output": {"mean_wait": 0.5, "mode": "redraw"}}}),
}
IN_EVALUATION = {
    **{f"cerebellum_{key}": ("cerebellum_tiny", table) for key, table in CEREBELLUM.items()},
    **{f"convnet_{key}": ("granule_convnet", table) for key, table in CONVNET.items()},
}
ALL = IN_EVALUATION | IN_TRAINING


def build(name: str, **tables: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, image_shape=SHAPE, time_steps=STEPS, **tables)


def take(model: nn.Module, other: nn.Module) -> None:
    """Gives a model all the parameters of another that it has in the same shape."""
    theirs = dict(other.named_parameters())
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key in theirs and theirs[key].shape == parameter.shape:
                parameter.copy_(theirs[key])


def off_start(model: nn.Module) -> nn.Module:
    """Moves what starts at zero or one, so that every stage does something."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() <= 1 or parameter.shape[0] == 1:
                parameter += 0.1 * torch.rand_like(parameter)
    return model


@pytest.mark.parametrize("case", ALL)
def test_every_parameter_learns_and_counters_agree(case: str) -> None:
    name, tables = ALL[case]
    model = off_start(build(name, **tables)).train()
    logits = model(torch.rand(8, 1, STEPS, 8, 8))
    assert logits.isfinite().all()
    F.cross_entropy(logits, torch.arange(8)).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    filters = {"granular.granule.dendrites.weight", "purkinje.dendrites.weight"}
    assert frozen == (filters if case == "cerebellum_held_cable" else set())
    result = profile(build(name, **tables), torch.zeros(2, 1, STEPS, 8, 8))
    assert set(result.counts) == {"closed_form", "exact", "fvcore"}
    assert result.agree is True, result.disagreements
    assert result.unstated == ()


@pytest.mark.parametrize("case", IN_EVALUATION)
def test_the_output_changes(case: str) -> None:
    name, tables = IN_EVALUATION[case]
    plain = off_start(build(name)).eval()
    model = off_start(build(name, **tables)).eval()
    if "cable" not in case:  # it is the filters themselves
        take(model, plain)
    frames = torch.rand(4, 1, STEPS, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(model(frames), plain(frames), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", IN_TRAINING)
def test_the_output_changes_in_training_alone(case: str) -> None:
    name, tables = IN_TRAINING[case]
    plain, model = build(name), build(name, **tables)
    model.load_state_dict(plain.state_dict())
    frames = torch.rand(4, 1, STEPS, 8, 8)
    logits = []
    with torch.no_grad():
        assert torch.equal(model.eval()(frames), plain.eval()(frames))
        for network in (model, plain):
            torch.manual_seed(1)
            logits.append(network.train()(frames))
    assert not torch.allclose(*logits)


def cerebellum(**tables: Any) -> Cerebellum:
    model = build("cerebellum_tiny", **tables)
    assert isinstance(model, Cerebellum)
    return model


def convnet(**tables: Any) -> FrameNet:
    model = build("granule_convnet", **tables)
    assert isinstance(model, FrameNet)
    return model


@pytest.mark.parametrize(
    ("tables", "stage", "holds"),
    [
        ({"golgi": {"cells": 0}}, "granular", lambda m: m.golgi is None and m.inhibition is None),
        ({"nuclei": {"cells": 0}}, "classifier", lambda m: m.in_features == 16),
        ({"nuclei": {"cells": 7}}, "classifier", lambda m: m.in_features == 7),
        # 15 synapses on 16 positions
        (both(threshold=3.0), "granular.granule.threshold_norm", lambda m: m.empty_places == 1),
        (
            {"purkinje": {"norm": "both"}},
            "purkinje.dendritic_norm",
            lambda m: m.num_features == 800,
        ),
        (
            both(synapse={"excitatory": 0.5}),
            "purkinje.synapses",
            lambda m: (m.signs < 0).sum() == 128,
        ),
        (
            {"granule": {"output": {"kind": "release_or_wait", "mean_wait": 0.9}}},
            "granular.granule.output",
            lambda m: type(m) is ReleaseOrWait and m.mean_wait == 0.9,
        ),
        (
            {"granule": {"output": PoissonSpikes()}},
            "granular.granule.output",
            lambda m: type(m) is PoissonSpikes,
        ),
        (
            {"granule": {"unit_dropout": {}}},
            "granular.granule.unit_dropout",
            lambda m: m.mean_wait == 0.5 and m.scope == "unit",
        ),
        (
            {"purkinje": {"tree": {"filter": (2, 9, 2), "mode": "valid"}}},
            "purkinje.dendrites.tree",
            lambda tree: tree.kernel == (2, 2, 9) and tree.out == (4, 42),
        ),
    ],
)
def test_a_table_reaches_its_stage_in_a_cerebellum(
    tables: dict[str, Any], stage: str, holds: Callable[[Any], bool]
) -> None:
    module: Any = cerebellum(**tables)
    for name in stage.split("."):
        module = getattr(module, name)
    assert holds(module)


def test_the_few_cells_behind_the_granule_cells_drop_nothing() -> None:
    for granule in ({}, {"output": "release_or_wait"}, {"unit_dropout": {"mean_wait": 2.0}}):
        model = cerebellum(granule=granule)
        assert model.nuclei is not None
        for cells in (model.purkinje, model.nuclei, model.granular.golgi):
            assert cells is not None
            assert isinstance(cells.output, PoissonDropout)
            assert cells.output.mean_wait == 0
            assert is_absent(cells.unit_dropout)


def test_a_cable_fills_every_filter() -> None:
    learned, frozen = cerebellum(**both(taps={"cable": "purkinje"})), cerebellum(**held())
    for model in (learned, frozen):
        for cells in (model.granular.granule, model.purkinje):
            weight = cells.dendrites.weight
            assert torch.equal(weight, weight[:1].expand_as(weight))
            assert (weight >= 0).all()
    # Purkinje dendrites have a column each: an even input comes through at its own strength.
    taps = learned.purkinje.dendrites.weight[0]
    torch.testing.assert_close(taps.sum((0, 1)), torch.ones(50))
    filters = 256 * 3 * 4 * STEPS + 16 * 5 * 50 * STEPS
    assert count_parameters(learned) - count_parameters(frozen) == filters


def test_a_threshold_bounds_the_synaptic_potentials() -> None:
    model = cerebellum(**both(threshold=1.5)).train()
    seen: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, ThresholdNorm):
            module.register_forward_hook(lambda m, args, sheet: seen.append(sheet))
    model(torch.rand(8, 1, STEPS, 8, 8))
    assert len(seen) == 2  # granule and Purkinje cells
    for sheet in seen:
        assert sheet.min() == 0
        assert sheet.max() == 1.5


def test_golgi_cells_take_from_the_rates_and_add_to_none() -> None:
    model, free = off_start(cerebellum()).eval(), cerebellum(golgi={"cells": 0}).eval()
    take(free, model)
    mossy = torch.rand(4, 64, STEPS)
    with torch.no_grad():
        inhibited, (rates, _) = model.granular(mossy), free.granular.stream(mossy)  # by stages
    assert torch.equal(inhibited[:, :, 0], rates[:, :, 0])  # the answer comes one step later
    assert (inhibited <= rates).all()
    assert (inhibited < rates)[:, :, 1:].any()


def test_dale_signs_hold_for_the_axons_of_the_mossy_fibres_too() -> None:
    synapses = cerebellum(**both(synapse={"excitatory": 0.25})).granular.granule.synapses
    assert synapses.signs is not None
    assert (synapses.signs > 0).sum() == 16  # of 64 pixels
    weight = synapses.effective_weight()
    assert torch.equal(weight.sign(), synapses.signs[synapses.wiring].float())


@pytest.mark.parametrize(
    ("tables", "stage", "holds"),
    [
        (
            {"unit": {"spike": {"strength": 0.4}}},
            "spike",
            lambda m: (m.window, m.strength) == (3, 0.4),
        ),
        (
            {"unit": {"spike": {"window": 5}}, "kernel_size": (2, 3)},
            "spike",
            lambda m: m.window == 5,
        ),
        ({"unit": {"soma": {"time_steps": 2}}}, "soma", lambda m: m.time_steps == 2),
        ({"unit": {"soma": {"time_steps": 1}}}, "soma", lambda m: type(m) is nn.Identity),
        (
            {"unit": {"output": {"mean_wait": 0.3, "mode": "redraw"}}},
            "output",
            lambda m: (m.mean_wait, m.mode, m.scope) == (0.3, "redraw", "unit"),
        ),
    ],
)
def test_a_table_reaches_its_stage_in_every_layer_of_a_convnet(
    tables: dict[str, Any], stage: str, holds: Callable[[Any], bool]
) -> None:
    units = convnet(**tables).units
    assert len(units) == 3
    assert all(holds(unit.get_submodule(stage)) for unit in units)


def test_without_a_table_there_is_no_spike() -> None:
    for model in (cerebellum(), convnet()):
        assert not any(isinstance(module, DendriticSpike) for module in model.modules())


def test_one_step_leaves_golgi_cells_nothing_to_do() -> None:
    model = create_model("cerebellum_tiny", image_shape=SHAPE, time_steps=1)
    assert isinstance(model, Cerebellum)
    assert model.granular.golgi is None


def test_tables_are_merged_and_another_kind_replaces() -> None:
    below = {"tree": {"sheet": (4, 4), "mode": "same"}, "wiring": {"kind": "random", "seed": 3}}
    assert merge(below, {"tree": {"mode": "valid"}})["tree"] == {"sheet": (4, 4), "mode": "valid"}
    assert merge(below, {"wiring": {"claw": True}})["wiring"] == {
        "kind": "random", "seed": 3, "claw": True
    }  # fmt: skip
    assert merge(below, {"wiring": {"kind": "in_order"}})["wiring"] == {"kind": "in_order"}
    assert merge(below, wiring="in_order")["wiring"] == "in_order"
    assert below["tree"] == {"sheet": (4, 4), "mode": "same"}  # nothing is changed in place
