"""Configurations of version 0.4.0, whose keywords were flat, build the same networks today.

The files in `legacy` are those of 0.4.0 to the letter: three that stand in configs/ in their new
form, and the configuration of a run folder, which spells out every default.
"""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from neuroconv.neurons import GranuleConv2d
from neuroconv.training import load_config
from neuroconv.zoo import create_model, default_keywords, list_models
from neuroconv.zoo.legacy import translate

OLD, NEW = Path(__file__).parent / "legacy", Path(__file__).parents[2] / "configs"
NAMES = sorted(path.name for path in OLD.glob("*.toml") if path.name != "run_folder.toml")
TINY = {"name": "cerebellum_tiny"}


def built(table: Any) -> nn.Module:
    beside = ("label", "match", "encoding", "primary", "train")
    with torch.device("meta"):
        return create_model(**{key: value for key, value in table.items() if key not in beside})


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_an_old_configuration_is_todays(name: str) -> None:
    old, new = load_config(OLD / name), load_config(NEW / name)
    tables = [(old.model, new.model), *zip(old.opponents, new.opponents, strict=True)]
    assert tomllib.loads((OLD / name).read_text()) != tomllib.loads((NEW / name).read_text())
    for was, now in tables:
        models = built(was), built(now)
        assert repr(models[0]) == repr(models[1])
        assert shapes(models[0]) == shapes(models[1])
        trained = [[p.requires_grad for p in model.parameters()] for model in models]
        assert trained[0] == trained[1]


def test_a_run_folder_of_0_4_0_loads() -> None:
    config = load_config(OLD / "run_folder.toml", ["--model.granule_cells=20"])
    model = built(config.model)
    assert shapes(model) == shapes(built({"name": "cerebellum_small", "granule": {"cells": 20}}))
    granule: Any = model.get_submodule("granular.granule")
    assert granule.unit_dropout.scope == "unit"
    assert granule.output.mean_wait == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"name": "mlp", "width": 3, "norm": "none"}, {"name": "mlp", "width": 3, "norm": "none"}),
        ({**TINY, "pull": 0.0, "spike_signal": "max"}, TINY),
        ({**TINY, "output": "spikes", "seed": 3},
         {**TINY, "seed": 3, "granule": {"output": {"kind": "poisson_spikes"}}}),
        ({**TINY, "purkinje_wiring": "sparse", "nuclei": 0},
         {**TINY, "purkinje": {"wiring": {"kind": "random"}}, "nuclei": {"cells": 0}}),
        ({"name": "resnet18_granule", "wiring": "claw", "mean_wait": 0.5},
         {"name": "resnet18_granule", "unit": {"wiring": "claw", "output": {"mean_wait": 0.5}}}),
        ({"name": "granule_convnet_conv3d", "wiring": "dense"},
         {"name": "granule_convnet_conv3d", "unit": {"wiring": "dense"}}),
    ],
)  # fmt: skip
def test_translation(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = dict(old)
    assert translate(old) == new
    assert old == before
    assert translate(new) == new


def test_a_kernel_keeps_its_spikes_window() -> None:
    """In 0.4.0 a convnet's spike reached as far as a dendrite has branches."""
    old = {"name": "granule_convnet", "kernel_size": (2, 3), "pull": 0.5}
    units = [m for m in built(translate(old)).modules() if isinstance(m, GranuleConv2d)]
    assert [unit.spike.window for unit in units] == [2, 2, 2]


@pytest.mark.parametrize("name", list_models())
def test_no_keyword_of_today_is_one_of_0_4_0(name: str) -> None:
    """Else a run's saved configuration would be read as another than the one that trained."""
    today = {"name": name, **default_keywords(name)}
    assert translate(today) == today
