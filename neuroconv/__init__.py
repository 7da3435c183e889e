"""neuroconv: the neuron as a small convolutional network, built, counted, trained and compared."""

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
from neuroconv.training import train
from neuroconv.zoo import create_model, list_models, register_model

__version__ = "0.4.0"

__all__ = [
    "DeepNuclear",
    "Golgi",
    "Granule",
    "GranuleConv2d",
    "MixedPopulation",
    "Purkinje",
    "Pyramidal",
    "__version__",
    "convert",
    "create_model",
    "estimate_brain",
    "fold",
    "list_models",
    "match_flops",
    "match_parameters",
    "profile",
    "register_model",
    "train",
]
