"""The zoo: whole networks from images to logits, by name."""

from neuroconv.zoo.baselines import StillNet, lenet5, linear, mlp, plain_cnn
from neuroconv.zoo.cerebellum import Cerebellum, cerebellum_base, cerebellum_small, cerebellum_tiny
from neuroconv.zoo.circuit import ClimbingFibres, GranularLayer
from neuroconv.zoo.granule_convnet import (
    Conv3dUnit,
    FrameNet,
    granule_convnet,
    granule_convnet_conv3d,
)
from neuroconv.zoo.ncp import ncp
from neuroconv.zoo.perceptron import Perceptron, perceptron
from neuroconv.zoo.pretrained import Weights, get_weights
from neuroconv.zoo.purkinje_classifier import (
    MossyFibres,
    NuclearReadout,
    PurkinjeClassifier,
    purkinje_classifier,
)
from neuroconv.zoo.recurrent import elm, gru, lif, lstm
from neuroconv.zoo.registry import (
    count_parameters,
    create_model,
    default_keywords,
    get_builder,
    list_models,
    register_model,
)
from neuroconv.zoo.resnet_granule import GranuleResNet, resnet18_granule
from neuroconv.zoo.sparse import KTree, SparseLinear, dendritic_ann, k_tree, sparse_mlp
from neuroconv.zoo.temporal_cnn import temporal_cnn
from neuroconv.zoo.vision import PatchTransformer, alexnet, mobilenet_v3_small, resnet18, vit

__all__ = [
    "Cerebellum", "ClimbingFibres", "Conv3dUnit", "FrameNet", "GranularLayer", "GranuleResNet",
    "KTree", "MossyFibres", "NuclearReadout", "PatchTransformer", "Perceptron",
    "PurkinjeClassifier", "SparseLinear", "StillNet", "Weights", "alexnet", "cerebellum_base",
    "cerebellum_small", "cerebellum_tiny", "count_parameters", "create_model", "default_keywords",
    "dendritic_ann", "elm", "get_builder", "get_weights", "granule_convnet",
    "granule_convnet_conv3d", "gru", "k_tree", "lenet5", "lif", "linear", "list_models", "lstm",
    "mlp", "mobilenet_v3_small", "ncp", "perceptron", "plain_cnn", "purkinje_classifier",
    "register_model", "resnet18", "resnet18_granule", "sparse_mlp", "temporal_cnn", "vit",
]  # fmt: skip
