"""The registry: names, presets, documented keywords and what it refuses."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from neuroconv.comparison import match_parameters
from neuroconv.zoo import (
    count_parameters,
    create_model,
    default_keywords,
    get_builder,
    list_models,
    register_model,
)
from neuroconv.zoo import registry as registry_module
from neuroconv.zoo.registry import register_preset


def test_names_are_sorted_and_matched_by_wildcards() -> None:
    assert list_models() == sorted(list_models())
    assert list_models("resnet18*") == ["resnet18", "resnet18_granule"]
    assert list_models("cerebellum_????") == ["cerebellum_base", "cerebellum_tiny"]
    assert list_models("nothing*") == []


@pytest.fixture
def registry_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_REGISTRY", dict(registry_module._REGISTRY))


@pytest.mark.usefixtures("registry_copy")
def test_registered_models_are_built_and_duplicates_refused() -> None:
    @register_model
    def my_net(*, image_shape: Any = (1, 2, 2), num_classes: int = 3, time_steps: int = 1) -> Any:
        return nn.Sequential(nn.Flatten(), nn.Linear(4, num_classes))

    assert "my_net" in list_models("my*")
    assert get_builder("my_net") is my_net
    assert create_model("my_net", num_classes=5)(torch.rand(2, 1, 2, 2)).shape == (2, 5)
    with pytest.raises(ValueError, match="'my_net' is registered already; give the builder anoth"):
        register_model(my_net)


@pytest.mark.usefixtures("registry_copy")
def test_a_preset_is_a_builder_with_other_defaults() -> None:
    mlp = get_builder("mlp")
    doc = "A wide one.\n\nArguments as in `mlp`."
    wide = register_preset("wide", mlp, doc, width=300, num_classes=4)
    assert get_builder("wide") is wide
    assert (wide.__name__, wide.__doc__) == ("wide", doc)
    assert default_keywords("wide") == default_keywords("mlp") | {"width": 300, "num_classes": 4}
    parameters, expected = (inspect.signature(builder).parameters for builder in (wide, mlp))
    assert all(parameters[key].annotation == expected[key].annotation for key in parameters)
    for keywords in ({}, {"width": 5}, {"num_classes": 7}, {"image_shape": (2, 3, 3)}):
        model = create_model("wide", **keywords)
        same = create_model("mlp", **{"width": 300, "num_classes": 4} | keywords)
        assert count_parameters(model) == count_parameters(same)
    assert match_parameters("wide", count_parameters(create_model("wide", width=9)))["width"] == 9
    assert count_parameters(create_model("mlp")) == 128 * 785 + 10 * 129  # as it was


@pytest.mark.usefixtures("registry_copy")
def test_a_presets_defaults_are_the_builders_keywords() -> None:
    with pytest.raises(TypeError, match="mlp has no keyword 'widht'; preset 'wide'"):
        register_preset("wide", get_builder("mlp"), "A wide one.", width=3, widht=300)
    assert list_models("wide") == []
    with pytest.raises(ValueError, match="'lenet5' is registered already; give the builder anoth"):
        register_preset("lenet5", get_builder("mlp"), "Not LeNet.")
    for name in ("", "..", "../x", "a/b", "a\0", "\x1b[m", "[red]", "a*", "-x", "\udcff", "x" * 81):
        with pytest.raises(ValueError, match="expected 1 to 80 letters, digits and _"):
            register_preset(name, get_builder("mlp"), "Could name no folder.")


@pytest.mark.parametrize("name", list_models())
def test_every_keyword_is_in_the_doc(name: str) -> None:
    doc = inspect.getdoc(get_builder(name)) or ""
    shared = {"image_shape", "num_classes", "time_steps", "seed"}
    if "Arguments as" in doc:
        base = "cerebellum_small" if "cereb" in name else "granule_convnet"
        doc += inspect.getdoc(get_builder(base)) or ""
    assert [key for key in {*default_keywords(name)} - shared if key not in doc] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("granule_convet", "unknown model 'granule_convet'; did you mean 'granule_convnet'"),
        ("resnet50", "did you mean 'resnet18'"),
        ("zzz", "unknown model 'zzz'; expected one of alexnet, .*, resnet18"),
    ],
)
def test_unknown_names_suggest_the_nearest(name: str, message: str) -> None:
    for call in (create_model, get_builder):
        with pytest.raises(ValueError, match=message):
            call(name)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("mlp", {"widht": 3}, "mlp has no keyword 'widht'; did you mean 'width'"),
        ("granule_convnet", {"kernel": (3, 4)}, "no keyword 'kernel'; did you mean 'kernel_size'"),
        # of presets, as of their builder
        ("cerebellum_tiny", {"purkinge": {}}, "cerebellum_tiny has .* did you mean 'purkinje'"),
        ("cerebellum_tiny", {"purkinje": {"tree": {"sheets": 3}}},
         "TreeShape has no keyword 'sheets'"),
        ("granule_convnet", {"unit": {"norms": "both"}},
         "unit: GranuleConv2d has no keyword 'norms'"),
    ],
)  # fmt: skip
def test_misspelt_keywords_are_type_errors(name: str, keywords: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        create_model(name, **keywords)


def test_frozen_parameters_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[0].weight.requires_grad_(False)
    assert count_parameters(model) == 4 + 8
