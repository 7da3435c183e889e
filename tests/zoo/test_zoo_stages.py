"""The keywords that exchange a stage: each network builds, learns, is counted, and differs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.flops import profile
from neuroconv.layers import DendriticSpike, PoissonDropout, PoissonSpikes, ReleaseOrWait
from neuroconv.layers.threshold import ThresholdNorm
from neuroconv.zoo import Cerebellum, FrameNet, count_parameters, create_model

SHAPE, STEPS = (1, 8, 8), 3
CEREBELLUM: list[dict[str, Any]] = [
    {"golgi_cells": 0},
    {"nuclei": 0},
    {"golgi_cells": 0, "nuclei": 0},
    {"pull": 1.0},
    {"pull": 0.5, "spike_signal": "essay"},
    {"pull": 0.5, "spike_signal": "essay", "purkinje_mode": "same"},
    {"law": "sublinear"},
    {"law": "supralinear"},
    {"law": "bistable"},
    {"threshold": 3.0},
    {"norm": "none"},
    {"norm": "dendrites"},
    {"norm": "both"},
    {"diffusion": "initial"},
    {"diffusion": "held"},
    {"transmitters": 2},
    {"vesicles": True},
    {"excitatory": 0.5},
    {"excitatory": 0.8, "vesicles": True, "transmitters": 2},
    {"soma_time_steps": 1},
    {"linear_dendrites": True},
    {"granule_mode": "valid"},
    {"granule_mode": "per_dendrite"},
    {"purkinje_mode": "same"},
    {"purkinje_mode": "valid"},
    {"purkinje_wiring": "sparse"},
    {"purkinje_wiring": "parallel"},
    {"purkinje_wiring": "dense"},
    {"purkinje_unit_taps": True},
    {"threshold": 2.0, "norm": "both", "pull": 0.7, "law": "sublinear", "transmitters": 2},
]  # fmt: skip
CONVNET: list[dict[str, Any]] = [
    {"pull": 1.0},
    {"pull": 0.5, "spike_threshold": 0.5},
    {"pull": 0.5, "spike_signal": "essay"},
    {"law": "sublinear"},
    {"law": "supralinear"},
    {"law": "bistable"},
    {"threshold": 2.0},
    {"norm": "none"},
    {"norm": "dendrites"},
    {"norm": "soma"},
    {"linear_dendrites": True},
    {"soma_time_steps": 1},
    {"soma_time_steps": 2},
    {"wiring": "dense"},
    {"kernel_size": (2, 3)},
    {"threshold": 2.0, "norm": "none", "pull": 0.7, "law": "sublinear", "soma_time_steps": 1},
]  # fmt: skip
# Seen in training alone: in evaluation the default's axons carry the same rates.
IN_TRAINING: list[tuple[str, dict[str, Any]]] = [
    ("cerebellum_tiny", {"mean_wait": 0.0}),
    ("cerebellum_tiny", {"dropout_mode": "redraw"}),
    ("cerebellum_tiny", {"dropout_mode": "independent"}),
    ("cerebellum_tiny", {"dropout_scope": "unit"}),
    ("cerebellum_tiny", {"output": "spikes"}),
    # A frame is longer than its sleep of 20 ms, which is over at the next step.
    ("cerebellum_tiny", {"output": "release"}),
    ("cerebellum_tiny", {"output": "release", "mean_wait": 2.0}),
    ("granule_convnet", {"mean_wait": 0.5}),
    ("granule_convnet", {"mean_wait": 0.5, "dropout_mode": "redraw"}),
    ("granule_convnet", {"mean_wait": 0.5, "dropout_mode": "independent"}),
]
IN_EVALUATION = [
    *(("cerebellum_tiny", keywords) for keywords in CEREBELLUM),
    *(("granule_convnet", keywords) for keywords in CONVNET),
]


def build(name: str, **keywords: Any) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, image_shape=SHAPE, time_steps=STEPS, **keywords)


def take(model: nn.Module, other: nn.Module) -> None:
    """Gives a model all the parameters of another that have their place in it."""
    theirs = dict(other.named_parameters())
    with torch.no_grad():
        for key, own in model.named_parameters():
            if key in theirs and theirs[key].shape == own.shape:
                own.copy_(theirs[key])


def off_start(model: nn.Module) -> nn.Module:
    """Moves what starts at zero or one, so that every stage does something."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() <= 1 or parameter.shape[0] == 1:
                parameter += 0.1 * torch.rand_like(parameter)
    return model


def seeded(model: nn.Module, frames: Tensor) -> Tensor:
    torch.manual_seed(1)
    return model(frames)


@pytest.mark.parametrize(("name", "keywords"), [*IN_EVALUATION, *IN_TRAINING], ids=str)
def test_every_parameter_learns(name: str, keywords: dict[str, Any]) -> None:
    model = off_start(build(name, **keywords)).train()
    logits = model(torch.rand(8, 1, STEPS, 8, 8))
    assert logits.isfinite().all()
    F.cross_entropy(logits, torch.arange(8)).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key
    held = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    filters = {"granular.granule.dendrites.weight", "purkinje.dendrites.weight"}
    assert held == (filters if keywords.get("diffusion") == "held" else set())


@pytest.mark.parametrize(("name", "keywords"), [*IN_EVALUATION, *IN_TRAINING], ids=str)
def test_counters_agree(name: str, keywords: dict[str, Any]) -> None:
    result = profile(build(name, **keywords), torch.zeros(2, 1, STEPS, 8, 8))
    assert set(result.counts) == {"closed_form", "exact", "fvcore"}
    assert result.agree is True, result.disagreements
    assert result.unstated == ()


@pytest.mark.parametrize(("name", "keywords"), IN_EVALUATION, ids=str)
def test_the_output_changes(name: str, keywords: dict[str, Any]) -> None:
    plain = off_start(build(name)).eval()
    model = off_start(build(name, **keywords)).eval()
    if "diffusion" not in keywords:  # it is the filters themselves
        take(model, plain)
    frames = torch.rand(4, 1, STEPS, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(model(frames), plain(frames), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "keywords"), IN_TRAINING, ids=str)
def test_the_output_changes_in_training_alone(name: str, keywords: dict[str, Any]) -> None:
    without = {"mean_wait": 0.5} if "dropout_mode" in keywords else {}
    plain, model = build(name, **without), build(name, **keywords)
    model.load_state_dict(plain.state_dict())
    frames = torch.rand(4, 1, STEPS, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.eval()(frames), plain.eval()(frames))
        assert not torch.allclose(seeded(model.train(), frames), seeded(plain.train(), frames))


@pytest.mark.parametrize("name", ["cerebellum_tiny", "granule_convnet"])
def test_the_spikes_signal_changes_the_gradient_alone(name: str) -> None:
    models = [build(name, pull=0.5, spike_signal=signal).eval() for signal in ("max", "essay")]
    frames = torch.rand(4, 1, STEPS, 8, 8)
    logits = [model(frames) for model in models]
    assert torch.equal(*logits)
    for each in logits:
        each.square().sum().backward()
    key = "granular.granule.dendrites.weight" if name == "cerebellum_tiny" else "units.1.weight"
    one, other = (model.get_parameter(key).grad for model in models)
    assert one is not None
    assert other is not None
    assert not torch.allclose(one, other)


def cerebellum(**keywords: Any) -> Cerebellum:
    model = build("cerebellum_tiny", **keywords)
    assert isinstance(model, Cerebellum)
    return model


def convnet(**keywords: Any) -> FrameNet:
    model = build("granule_convnet", **keywords)
    assert isinstance(model, FrameNet)
    return model


@pytest.mark.parametrize(
    ("keywords", "stage", "holds"),
    [
        ({"golgi_cells": 0}, "granular", lambda m: m.golgi is None and m.inhibition is None),
        ({"nuclei": 0}, "classifier", lambda m: m.in_features == 16),
        ({"nuclei": 7}, "classifier", lambda m: m.in_features == 7),
        ({"pull": 0.4}, "granular.granule.spike", lambda m: m.pull == 0.4 and m.reach is None),
        ({"pull": 0.4, "purkinje_mode": "same"}, "purkinje.spike", lambda m: m.pull == 0.4),
        ({"law": "bistable"}, "granular.granule.summation", lambda m: m.law == "bistable"),
        ({"threshold": 3.0}, "purkinje.threshold_norm", lambda m: m.threshold == 3.0),
        # 15 synapses on 16 places
        ({"threshold": 3.0}, "granular.granule.threshold_norm", lambda m: m.empty_places == 1),
        ({"norm": "both"}, "purkinje.dendritic_norm", lambda m: m.num_features == 16 * 50),
        ({"transmitters": 2}, "purkinje.dendrites", lambda m: len(m.weight) == 32),
        ({"vesicles": True}, "purkinje.synapses", lambda m: m.weight is None),
        ({"excitatory": 0.5}, "purkinje.synapses", lambda m: (m.signs < 0).sum() == 128),
        ({"soma_time_steps": 1}, "granular.granule.soma", lambda m: m.time_steps == 1),
        ({"output": "spikes"}, "granular.granule.output", lambda m: type(m) is PoissonSpikes),
        ({"output": "release"}, "granular.granule.output", lambda m: type(m) is ReleaseOrWait),
        (
            {"output": "release", "mean_wait": 0.9},
            "granular.granule.output",
            lambda m: m.mean_wait == 0.9,
        ),
        ({"mean_wait": 0.9}, "granular.granule.output", lambda m: m.mean_wait == 0.9),
        ({"dropout_scope": "unit"}, "granular.granule.unit_dropout", lambda m: m.mean_wait == 0.5),
        ({"dropout_mode": "redraw"}, "granular.granule.output", lambda m: m.mode == "redraw"),
        ({"granule_mode": "valid"}, "granular.granule.dendrites", lambda m: m.mode == "valid"),
    ],
)
def test_a_keyword_reaches_its_stage_in_a_cerebellum(
    keywords: dict[str, Any], stage: str, holds: Callable[[Any], bool]
) -> None:
    assert holds(cerebellum(**keywords).get_submodule(stage))


def test_the_few_cells_behind_the_granule_cells_drop_nothing() -> None:
    for keywords in ({}, {"output": "release"}, {"dropout_scope": "unit"}, {"mean_wait": 2.0}):
        model = cerebellum(**keywords)
        assert model.nuclei is not None
        for cells in (model.purkinje, model.nuclei, model.granular.golgi):
            assert cells is not None
            assert isinstance(cells.output, PoissonDropout)
            assert cells.output.mean_wait == 0
            assert cells.unit_dropout is None


@pytest.mark.parametrize("diffusion", ["initial", "held"])
def test_diffusion_fills_every_filter_with_one_cable(diffusion: str) -> None:
    model = cerebellum(diffusion=diffusion)
    for cells in (model.granular.granule, model.purkinje):
        weight = cells.dendrites.weight
        assert torch.equal(weight, weight[:1].expand_as(weight))
        assert (weight >= 0).all()
        assert weight.requires_grad is (diffusion == "initial")
    # Purkinje dendrites have a column each: an even input comes through at its own strength.
    taps = model.purkinje.dendrites.weight[0]
    torch.testing.assert_close(taps.sum((0, 1)), torch.ones(50))
    random = count_parameters(cerebellum())
    filters = 256 * 3 * 4 * STEPS + 16 * 5 * 50 * STEPS
    assert random - count_parameters(model) == (filters if diffusion == "held" else 0)


def test_a_threshold_holds_the_synaptic_potentials() -> None:
    model = cerebellum(threshold=1.5).train()
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
    model, free = off_start(cerebellum()).eval(), cerebellum(golgi_cells=0).eval()
    take(free, model)
    mossy = torch.rand(4, 64, STEPS)
    with torch.no_grad():
        held, (rates, _) = model.granular(mossy), free.granular.stream(mossy)  # both by stages
    assert torch.equal(held[:, :, 0], rates[:, :, 0])  # the answer comes one step later
    assert (held <= rates).all()
    assert (held < rates)[:, :, 1:].any()


def test_dale_signs_hold_for_the_axons_of_the_mossy_fibres_too() -> None:
    synapses = cerebellum(excitatory=0.25).granular.granule.synapses
    assert synapses.signs is not None
    assert (synapses.signs > 0).sum() == 16  # of 64 pixels
    weight = synapses.effective_weight()
    assert torch.equal(weight.sign(), synapses.signs[synapses.wiring].float())


@pytest.mark.parametrize(
    ("keywords", "stage", "holds"),
    [
        ({"pull": 0.4, "spike_threshold": 2.0}, "spike", lambda m: m.extra_repr().count("2.0")),
        ({"pull": 0.4, "kernel_size": (2, 3)}, "spike", lambda m: m.reach == 2),
        ({"pull": 0.4, "spike_signal": "essay"}, "spike", lambda m: m.signal == "essay"),
        ({"law": "supralinear"}, "summation", lambda m: m.law == "supralinear"),
        ({"threshold": 2.5}, "threshold_norm", lambda m: m.threshold == 2.5),
        ({"soma_time_steps": 2}, "soma", lambda m: m.time_steps == 2),
        ({"soma_time_steps": 1}, "soma", lambda m: type(m) is nn.Identity),
        ({"mean_wait": 0.3, "dropout_mode": "redraw"}, "output", lambda m: m.mode == "redraw"),
    ],
)
def test_a_keyword_reaches_its_stage_in_every_layer_of_a_convnet(
    keywords: dict[str, Any], stage: str, holds: Callable[[Any], bool]
) -> None:
    units = convnet(**keywords).units
    assert len(units) == 3
    assert all(holds(unit.get_submodule(stage)) for unit in units)


def test_without_a_pull_there_is_no_spike() -> None:
    for model in (cerebellum(), convnet(), cerebellum(spike_signal="essay")):
        assert not any(isinstance(module, DendriticSpike) for module in model.modules())


def test_one_step_leaves_golgi_cells_nothing_to_do() -> None:
    model = create_model("cerebellum_tiny", image_shape=SHAPE, time_steps=1)
    assert isinstance(model, Cerebellum)
    assert model.granular.golgi is None


@pytest.mark.parametrize("output", ["spikes", "release"])
def test_an_output_of_its_own_takes_no_dropout_within_the_cell(output: str) -> None:
    with pytest.raises(ValueError, match="replaces the Poisson dropout: give one of the two"):
        create_model("cerebellum_tiny", output=output, dropout_scope="unit")
