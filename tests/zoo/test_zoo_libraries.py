"""The zoo where timm and Hugging Face look for networks."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroconv.zoo import create_model, list_models


def test_timm_builds_the_zoo() -> None:
    timm: Any = pytest.importorskip("timm")
    importlib.import_module("neuroconv.zoo.timm")
    assert set(timm.list_models("neuroconv_*")) == {f"neuroconv_{name}" for name in list_models()}
    assert "resnet18" in timm.list_models()  # timm's own stays
    model = timm.create_model("neuroconv_mlp", num_classes=7, width=5)
    expected = create_model("mlp", num_classes=7, width=5)
    assert repr(model) == repr(expected)
    model.reset_classifier(0)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, model.num_features) == (2, 5)
    images = torch.rand(2, 1, 5, 8, 8)
    logits = create_model("granule_convnet", pretrained="digits").eval()(images)
    for name in ("neuroconv_granule_convnet", "neuroconv_granule_convnet.digits"):
        assert torch.equal(timm.create_model(name, pretrained=True).eval()(images), logits)


def test_hugging_face_saves_and_loads_a_network(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    hub: Any = importlib.import_module("neuroconv.zoo.hub")
    task = {"image_shape": (1, 8, 8), "time_steps": 2, "unit": {"norm": "soma"}}
    model = hub.HubNetwork("granule_convnet", widths=(4, 6, 8), **task).eval()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["name"], config["widths"]) == ("granule_convnet", [4, 6, 8])
    again = hub.HubNetwork.from_pretrained(tmp_path).eval()
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(again(images), model(images))
    assert repr(again) == repr(model)
