"""Tables that exchange a stage: each network builds, learns, is counted, and differs."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuroconv.flops import profile
from neuroconv.layers import PoissonDropout, ReleaseOrWait
from neuroconv.layers.step_norm import StepBatchNorm
from neuroconv.neurons.stages import is_absent, merge
from neuroconv.zoo import count_parameters, create_model

SHAPE, STEPS = (1, 8, 8), 3


def both(**stages: Any) -> dict[str, Any]:
    """The same stages for granule and Purkinje cells."""
    return {"granule": stages, "purkinje": stages}


FIXED_CABLE = both(taps={"cable": "purkinje", "trainable": False})
CEREBELLUM: dict[str, dict[str, Any]] = {
    "no_golgi": {"golgi": {"cells": 0}},
    "no_nuclei": {"nuclei": {"cells": 0}},
    "cable": both(taps={"cable": "purkinje"}),
    "fixed_cable": FIXED_CABLE,
    "synapse": both(synapse={"excitatory": 0.8, "factorized": True, "transmitters": 2}),
    "purkinje_all_to_all": {"purkinje": {"wiring": "all_to_all"}},
    "many": both(threshold=2.0, norm="both", spike={"strength": 0.7}, summation="sigmoidal"),
}
CONVNET: dict[str, dict[str, Any]] = {
    "dense": {"unit": {"wiring": "dense"}},
    "kernel": {"kernel_size": (2, 3)},
    "many": {"unit": {"threshold": 2.0, "norm": "none", "spike": {"strength": 0.7}}},
}
# Seen in training alone: in evaluation the default's axons carry the same rates.
IN_TRAINING: dict[str, tuple[str, dict[str, Any]]] = {
    "on_the_sheet": ("cerebellum_tiny", {"granule": {"unit_dropout": {}}}),
    "spikes": ("cerebellum_tiny", {"granule": {"output": "poisson_spikes"}}),
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
    source = dict(other.named_parameters())
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key in source and source[key].shape == parameter.shape:
                parameter.copy_(source[key])


def off_start(model: nn.Module) -> nn.Module:
    """Moves what starts at zero or one, so that every stage does something."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() <= 1 or parameter.shape[0] == 1:
                parameter += 0.1 * torch.rand_like(parameter)
    return model


SLOW = {"cerebellum_cable", "cerebellum_purkinje_all_to_all", "cerebellum_no_nuclei",
        "convnet_kernel", "convnet_dense", "on_the_sheet"}  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in ALL]
)
def test_every_parameter_learns_and_counters_agree(case: str) -> None:
    name, tables = ALL[case]
    model = off_start(build(name, **tables)).train()
    logits = model(torch.rand(8, 1, STEPS, 8, 8))
    assert logits.isfinite().all()
    F.cross_entropy(logits, torch.arange(8)).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    filters = {"granular.granule.dendrites.weight", "purkinje.dendrites.weight"}
    assert frozen == (filters if case == "cerebellum_fixed_cable" else set())
    frames = torch.zeros(2, 1, STEPS, 8, 8)
    result = profile(build(name, **tables), frames, counters=("closed_form", "exact"))
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


@pytest.mark.parametrize(
    ("name", "tables", "stages", "holds"),
    [
        ("cerebellum_tiny", {"golgi": {"cells": 0}}, ["granular.golgi"], lambda m: m is None),
        ("cerebellum_tiny", {"nuclei": {"cells": 0}}, ["nuclei"], lambda m: m is None),
        # 15 synapses on 16 positions
        ("cerebellum_tiny", both(threshold=3.0), ["granular.granule.threshold_norm"],
         lambda m: m.empty_positions == 1),
        ("cerebellum_tiny", both(synapse={"excitatory": 0.5}), ["purkinje.synapses"],
         lambda m: (m.signs < 0).sum() == 128),
        ("cerebellum_tiny", {"granule": {"output": {"kind": "release_or_wait", "mean_wait": 0.9}}},
         ["granular.granule.output"], lambda m: type(m) is ReleaseOrWait and m.mean_wait == 0.9),
        ("cerebellum_tiny", {"purkinje": {"tree": {"filter": (2, 9, 2), "mode": "valid"}}},
         ["purkinje.dendrites.tree"], lambda m: m.kernel == (2, 2, 9) and m.out == (4, 42)),
        ("granule_convnet", {"unit": {"spike": {"strength": 0.4}}},
         [f"units.{n}.spike" for n in range(3)], lambda m: (m.window, m.strength) == (3, 0.4)),
        ("granule_convnet", {"unit": {"soma": {"time_steps": 1}}},
         [f"units.{n}.soma" for n in range(3)], lambda m: type(m) is nn.Identity),
    ],
)  # fmt: skip
def test_a_table_reaches_its_stages(
    name: str, tables: dict[str, Any], stages: list[str], holds: Callable[[Any], bool]
) -> None:
    model = build(name, **tables)
    assert all(holds(attrgetter(stage)(model)) for stage in stages)


def cerebellum(**tables: Any) -> Any:
    return build("cerebellum_tiny", **tables)


def test_the_few_cells_behind_the_granule_cells_drop_nothing() -> None:
    for granule in ({}, {"output": "release_or_wait"}, {"unit_dropout": {"mean_wait": 2.0}}):
        model = cerebellum(granule=granule)
        for cells in (model.purkinje, model.nuclei, model.granular.golgi):
            assert isinstance(cells.output, PoissonDropout)
            assert cells.output.mean_wait == 0
            assert is_absent(cells.unit_dropout)


def test_a_cable_fills_every_filter() -> None:
    learned, frozen = cerebellum(**both(taps={"cable": "purkinje"})), cerebellum(**FIXED_CABLE)
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


def test_one_step_leaves_golgi_cells_nothing_to_do() -> None:
    model: Any = create_model("cerebellum_tiny", image_shape=SHAPE, time_steps=1)
    assert model.granular.golgi is None


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("cerebellum_tiny", merge(both(norm_over="step"), nuclei={"norm_over": "step"})),
        ("granule_convnet", {"unit": {"norm_over": "step", "threshold": 1.0}}),
        ("granule_convnet_conv3d", {"unit": {"norm_over": "step"}}),
        ("resnet18_granule", {"unit": {"norm_over": "step", "norm": "both"}}),
    ],
)
def test_norms_over_steps_leave_no_other_norm(name: str, tables: Any) -> None:
    with torch.device("meta"):
        model = create_model(name, image_shape=SHAPE, time_steps=2, **tables)
    norms = {type(module) for module in model.modules() if isinstance(module, _BatchNorm)}
    assert norms == {StepBatchNorm}


def test_tables_are_merged_and_another_kind_replaces() -> None:
    below = {"tree": {"sheet": (4, 4), "mode": "same"}, "wiring": {"kind": "random", "seed": 3}}
    assert merge(below, {"tree": {"mode": "valid"}})["tree"] == {"sheet": (4, 4), "mode": "valid"}
    assert merge(below, {"wiring": {"claw": True}})["wiring"] == {
        "kind": "random", "seed": 3, "claw": True
    }  # fmt: skip
    assert merge(below, {"wiring": {"kind": "in_order"}})["wiring"] == {"kind": "in_order"}
    assert merge(below, wiring="in_order")["wiring"] == "in_order"
    assert below["tree"] == {"sheet": (4, 4), "mode": "same"}  # nothing is changed in place
