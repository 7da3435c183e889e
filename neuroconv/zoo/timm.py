"""Networks of the zoo in `timm.create_model`, as neuroconv_NAME, once this module is imported."""

from typing import Any

from timm.models import register_model
from torch import nn

from neuroconv.zoo.registry import create_model, list_models


def _register(name: str) -> None:
    def build(pretrained: bool = False, pretrained_cfg: Any = None, **keywords: Any) -> nn.Module:
        for key in ("pretrained_cfg_overlay", "cache_dir"):  # which timm passes to all
            keywords.pop(key, None)
        return create_model(name, pretrained and (pretrained_cfg or True), **keywords)

    build.__name__, build.__module__ = f"neuroconv_{name}", __name__
    register_model(build)


for _name in list_models():
    _register(_name)
