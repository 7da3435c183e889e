"""neuroconv: the neuron as a small convolutional network, built, counted, trained and compared.

Public names are loaded when they are first used (PEP 562): `import neuroconv` alone does not wait
for torch, and a population of neurons does not wait for data sets, plots or the brain.
"""

import importlib
from typing import TYPE_CHECKING, Any

from neuroconv.core.version import __version__

if TYPE_CHECKING:
    from neuroconv.brain import estimate_brain
    from neuroconv.comparison import match_flops, match_parameters
    from neuroconv.flops import profile
    from neuroconv.neurons import (
        DeepNuclear,
        Golgi,
        Granule,
        GranuleConv2d,
        MixedPopulation,
        Purkinje,
        Pyramidal,
        convert,
        fold,
    )
    from neuroconv.training import shard, train
    from neuroconv.zoo import create_model, list_models, register_model

__all__ = [
    "DeepNuclear", "Golgi", "Granule", "GranuleConv2d", "MixedPopulation", "Purkinje", "Pyramidal",
    "__version__", "convert", "create_model", "estimate_brain", "fold", "list_models",
    "match_flops", "match_parameters", "profile", "register_model", "shard", "train",
]  # fmt: skip

_PARTS = (
    "brain", "comparison", "core", "data", "flops", "kernels", "layers", "neurons", "references",
    "report", "training", "zoo",
)  # fmt: skip
_PART_OF = {  # the part of each public name that is not in neurons
    "create_model": "zoo", "estimate_brain": "brain", "list_models": "zoo",
    "match_flops": "comparison", "match_parameters": "comparison", "profile": "flops",
    "register_model": "zoo", "shard": "training", "train": "training",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports the part that a public name belongs to, or the part itself, on first use."""
    if name in _PARTS:
        return importlib.import_module(f"neuroconv.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'neuroconv' has no attribute {name!r}")
    part = _PART_OF.get(name, "neurons")
    value = getattr(importlib.import_module(f"neuroconv.{part}"), name)
    globals()[name] = value  # later uses bypass this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS})
