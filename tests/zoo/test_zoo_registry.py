"""The registry and the matcher of equal size."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from neuroconv.comparison import match_parameters
from neuroconv.zoo import (
    count_parameters,
    create_model,
    get_builder,
    list_models,
    register_model,
)
from neuroconv.zoo import registry as registry_module
from neuroconv.zoo.registry import register_preset


def test_names_are_sorted_and_matched_by_wildcards() -> None:
    names = list_models()
    assert names == sorted(names)
    assert {"cerebellum_base", "cerebellum_small", "cerebellum_tiny", "granule_convnet"} <= {*names}
    assert {"lenet5", "linear", "mlp", "plain_cnn", "resnet18"} <= {*names}
    assert list_models("resnet18*") == ["resnet18", "resnet18_granule"]
    assert list_models("granule*") == ["granule_convnet", "granule_convnet_conv3d"]
    assert list_models("cerebellum_????") == ["cerebellum_base", "cerebellum_tiny"]
    assert list_models("linear") == ["linear"]
    assert list_models("nothing*") == []


def test_registered_models_are_built_and_duplicates_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry_module, "_REGISTRY", dict(registry_module._REGISTRY))

    @register_model
    def my_net(*, image_shape: Any = (1, 2, 2), num_classes: int = 3, time_steps: int = 1) -> Any:
        return nn.Sequential(nn.Flatten(), nn.Linear(4, num_classes))

    assert "my_net" in list_models("my*")
    assert get_builder("my_net") is my_net
    assert create_model("my_net", num_classes=5)(torch.rand(2, 1, 2, 2)).shape == (2, 5)
    with pytest.raises(ValueError, match="'my_net' is registered already; give the builder anoth"):
        register_model(my_net)

    def mlp() -> nn.Module:
        return nn.Linear(1, 1)

    with pytest.raises(ValueError, match="'mlp' is registered already"):
        register_model(mlp)
    assert get_builder("mlp") is not mlp


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_REGISTRY", dict(registry_module._REGISTRY))


@pytest.mark.usefixtures("own_registry")
def test_a_preset_is_a_builder_with_other_defaults() -> None:
    mlp = get_builder("mlp")
    doc = "A wide one.\n\nArguments as in `mlp`."
    wide = register_preset("wide", mlp, doc, width=300, num_classes=4)
    assert get_builder("wide") is wide
    assert (wide.__name__, wide.__doc__) == ("wide", doc)
    own, theirs = (inspect.signature(builder).parameters for builder in (wide, mlp))
    assert list(own) == list(theirs)
    assert {key for key in own if own[key].default != theirs[key].default} == {
        "width", "num_classes"
    }  # fmt: skip
    assert (own["width"].default, own["num_classes"].default) == (300, 4)
    assert all(own[key].annotation == theirs[key].annotation for key in own)
    for keywords in ({}, {"width": 5}, {"num_classes": 7}, {"image_shape": (2, 3, 3)}):
        model = create_model("wide", **keywords)
        same = create_model("mlp", **{"width": 300, "num_classes": 4} | keywords)
        assert count_parameters(model) == count_parameters(same)
    assert match_parameters("wide", count_parameters(create_model("wide", width=9)))["width"] == 9
    assert count_parameters(create_model("mlp")) == 128 * 785 + 10 * 129  # as it was


@pytest.mark.usefixtures("own_registry")
def test_a_presets_defaults_are_the_builders_keywords() -> None:
    with pytest.raises(TypeError, match="mlp has no keyword 'widht'; preset 'wide'"):
        register_preset("wide", get_builder("mlp"), "A wide one.", width=3, widht=300)
    assert list_models("wide") == []
    with pytest.raises(ValueError, match="'lenet5' is registered already; give the builder anoth"):
        register_preset("lenet5", get_builder("mlp"), "Not LeNet.")
    assert get_builder("lenet5").__name__ == "lenet5"
    register_preset("wide", get_builder("mlp"), "A wide one.", width=300)
    with pytest.raises(ValueError, match="'wide' is registered already"):
        register_preset("wide", get_builder("mlp"), "A wide one.", width=300)


def test_the_cerebella_are_presets_of_one_builder() -> None:
    parameters = {
        name: inspect.signature(get_builder(name)).parameters for name in list_models("cereb*")
    }
    assert len(parameters) == 3
    small = parameters["cerebellum_small"]
    for name, own in parameters.items():
        assert list(own) == list(small), name
        doc = inspect.getdoc(get_builder(name))
        assert doc is not None
        assert doc.partition("\n")[0].endswith("."), name
    granule = parameters["cerebellum_tiny"]["granule"].default
    assert (granule["cells"], granule["norm"]) == (256, "soma")  # over the builder's table
    assert parameters["cerebellum_base"]["purkinje"].default["tree"]["sheet"] == (100, 1000)


@pytest.mark.parametrize("name", list_models())
def test_every_keyword_is_in_the_doc(name: str) -> None:
    doc = inspect.getdoc(get_builder(name)) or ""
    shared = {"image_shape", "num_classes", "time_steps", "seed"}
    if "Arguments as" in doc:
        doc += (
            inspect.getdoc(
                get_builder("cerebellum_small" if "cereb" in name else "granule_convnet")
            )
            or ""
        )
    for keyword in inspect.signature(get_builder(name)).parameters:
        if keyword not in shared:
            assert keyword in doc, keyword


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("granule_convet", "unknown model 'granule_convet'; did you mean 'granule_convnet'"),
        ("resnet50", "did you mean 'resnet18'"),
        ("cerebelum_tiny", "did you mean 'cerebellum_tiny'"),
        ("zzz", "unknown model 'zzz'; the zoo has cerebellum_base, .*, resnet18"),
        ("", "unknown model ''; the zoo has"),
    ],
)
def test_unknown_names_suggest_the_nearest(name: str, message: str) -> None:
    for call in (create_model, get_builder):
        with pytest.raises(ValueError, match=message):
            call(name)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        (
            "mlp",
            {"widht": 3},
            "'mlp' has no keyword 'widht'; did you mean 'width'.* it takes image",
        ),
        ("granule_convnet", {"kernel": (3, 4)}, "no keyword 'kernel'; did you mean 'kernel_size'"),
        ("linear", {"qqq": 1}, "no keyword 'qqq'; it takes image_shape, num_classes, time_steps"),
        ("cerebellum_small", {"purkinge": {}}, "did you mean 'purkinje'"),
        # of presets, as of their builder
        ("cerebellum_tiny", {"purkinge": {}}, "'cerebellum_tiny' .* did you mean 'purkinje'"),
        ("cerebellum_base", {"golgi_cells": 3}, r"'golgi_cells'; it is now golgi={\"cells\": ...}"),
        ("granule_convnet", {"pull": 1.0}, r"it is now unit={\"spike\": {\"strength\": ...}}"),
        ("cerebellum_tiny", {"purkinje": {"tree": {"sheets": 3}}}, "tree has no 'sheets'; did you"),
        ("granule_convnet", {"unit": {"norms": "both"}}, "unexpected keyword argument 'norms'"),
        ("cerebellum_tiny", {"qqq": 3}, "no keyword 'qqq'; it takes image_shape, num_classes, tim"),
    ],
)
def test_misspelt_keywords_are_type_errors(name: str, keywords: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        create_model(name, **keywords)


@pytest.mark.parametrize("target", [500, 3_915, 4_000, 61_706, 1_000_000])
@pytest.mark.parametrize("time_steps", [1, 5])
def test_match_reaches_the_target_and_no_more(target: int, time_steps: int) -> None:
    keywords = {"image_shape": (1, 28, 28), "num_classes": 10, "time_steps": time_steps}
    matched = match_parameters("plain_cnn", target, **keywords)
    width = matched.pop("width")
    assert matched == keywords
    sizes = [
        count_parameters(create_model("plain_cnn", **keywords, width=w)) for w in (width, width + 1)
    ]
    assert sizes[0] <= target < sizes[1]


def test_match_at_the_edges() -> None:
    exact = count_parameters(create_model("mlp", width=1))
    assert match_parameters("mlp", exact)["width"] == 1
    for width in (2, 3, 8, 17):
        size = count_parameters(create_model("mlp", width=width))
        assert match_parameters("mlp", size)["width"] == width
        assert match_parameters("mlp", size - 1)["width"] == width - 1


@pytest.mark.parametrize(
    ("name", "target", "error", "message"),
    [
        ("lenet5", 1_000, ValueError, "'lenet5' has no keyword 'width' .*try 'plain_cnn'"),
        ("plain_cnn", 0, ValueError, "target_parameters=0; expected a positive"),
        ("plain_cnn", -5, ValueError, "target_parameters=-5; expected a positive"),
        ("mlp", 100, ValueError, "805 parameters at width 1, more than the 100 to match"),
        ("plane_cnn", 100, ValueError, "did you mean 'plain_cnn'"),
    ],
)
def test_match_errors(name: str, target: int, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        match_parameters(name, target)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("cerebellum_tiny", {"granule": {"cells": "many"}}, "cells='many'; expected"),
        ("cerebellum_tiny", {"purkinje": {"tree": {"sheet": 5}}}, "sheet=5; expected"),
        ("cerebellum_base", {"purkinje": 4}, "purkinje=4; expected"),
        ("cerebellum_base", {"nuclei": 4}, "nuclei=4; expected"),
        ("granule_convnet", {"unit": {"threshold": "high"}}, "threshold='high'; expected"),
    ],
)
def test_values_of_another_type_are_refused_with_the_form(
    name: str, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, **keywords)


def test_match_misspelt_keyword() -> None:
    with pytest.raises(TypeError, match="no keyword 'num_clases'; did you mean 'num_classes'"):
        match_parameters("mlp", 1_000, num_clases=10)


def test_frozen_parameters_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[0].weight.requires_grad_(False)
    assert count_parameters(model) == 4 + 8
