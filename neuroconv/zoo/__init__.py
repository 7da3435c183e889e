"""The zoo: whole networks from images to logits, by name."""

from neuroconv.zoo.baselines import StillNet, lenet5, linear, mlp, plain_cnn, resnet18
from neuroconv.zoo.cerebellum import Cerebellum, cerebellum_base, cerebellum_small, cerebellum_tiny
from neuroconv.zoo.circuit import ClimbingFibres, GranularLayer
from neuroconv.zoo.granule_convnet import (
    Conv3dUnit,
    FrameNet,
    granule_convnet,
    granule_convnet_conv3d,
)
from neuroconv.zoo.perceptron import Perceptron, perceptron
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

__all__ = [
    "Cerebellum", "ClimbingFibres", "Conv3dUnit", "FrameNet", "GranularLayer", "GranuleResNet",
    "KTree", "Perceptron", "SparseLinear", "StillNet", "cerebellum_base", "cerebellum_small",
    "cerebellum_tiny", "count_parameters", "create_model", "default_keywords", "dendritic_ann",
    "get_builder", "granule_convnet", "granule_convnet_conv3d", "k_tree", "lenet5", "linear",
    "list_models", "mlp", "perceptron", "plain_cnn", "register_model", "resnet18",
    "resnet18_granule", "sparse_mlp",
]  # fmt: skip
