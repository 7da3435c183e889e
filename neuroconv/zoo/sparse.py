"""Opponents of dendrites whose units hear few inputs: a sparse perceptron, dendritic ANN, k-tree.

With time_steps > 1 frames are channels, as in the baselines.
"""

from collections.abc import Callable
from math import isqrt, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import ImageShape, Seed, Size, checked
from neuroconv.core.counting import is_counting
from neuroconv.layers import Cost, Random, ReceptiveField, TreeShape
from neuroconv.neurons.stages import Kinds, Table, build
from neuroconv.zoo.baselines import GREY, StillNet
from neuroconv.zoo.registry import ImageNetwork, register_model

_WIRINGS: Kinds = {"random": Random, "receptive_field": ReceptiveField}
Inputs = Random | ReceptiveField | Table | str


@checked
class SparseLinear(nn.Module):
    """A linear layer whose units read S inputs each, which are gathered; no zero is counted.

    Batches to units that read an eighth of the inputs or more run as one dense product.

    Args:
        in_features: number of inputs F.
        fan_in: inputs S of a unit.
        wiring: the inputs of each unit, (N, S) integers. None: unit n reads the n-th S inputs, so
            that N = F / S.
        bias: whether each unit adds a trained number.
        branches: whether the units are branches of a cell, which count as no neurons.

    Attributes:
        weight: (N, S), at first normal with variance 2 / S (He et al. 2015,
            doi:10.1109/ICCV.2015.123).
        bias: (N,), at first zero; or None.

    Shape:
        (B, F) -> (B, N)
    """

    wiring: Tensor | None

    def __init__(
        self,
        in_features: Size,
        fan_in: Size,
        wiring: Tensor | None = None,
        *,
        bias: bool = True,
        branches: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.branches = in_features, branches
        self.out_features = in_features // fan_in if wiring is None else len(wiring)
        self.register_buffer("wiring", wiring)
        self.weight = nn.Parameter(torch.empty(self.out_features, fan_in))
        self.bias = nn.Parameter(torch.zeros(self.out_features)) if bias else None
        nn.init.normal_(self.weight, std=(2 / fan_in) ** 0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.wiring is not None and not is_counting() and self._runs_dense(len(inputs)):
            blocks = zip(self.wiring.split(2048), self.weight.split(2048), strict=True)
            dense = (
                weight.new_zeros(len(weight), self.in_features).scatter_add_(1, wiring, weight)
                for wiring, weight in blocks
            )
            sums = torch.cat([F.linear(inputs, weight) for weight in dense], 1)
            return sums if self.bias is None else sums + self.bias
        rows = inputs.t()
        if self.wiring is not None:  # whole rows are copied faster than single numbers
            rows = rows.contiguous().index_select(0, self.wiring.flatten())
        presynaptic = rows.unflatten(0, self.weight.shape)  # (N, S, B)
        sums = torch.bmm(self.weight.unsqueeze(1), presynaptic).squeeze(1)
        return (sums if self.bias is None else sums + self.bias.unsqueeze(1)).t()

    def _runs_dense(self, batch: int) -> bool:
        """Whether gathered inputs would be read for longer than zeros are multiplied."""
        return batch >= 16 and self.in_features <= 8 * self.weight.shape[1]

    def closed_form(self, inputs: torch.Size) -> tuple[Cost, ...]:
        synapses, neurons = self.weight.numel(), 0 if self.branches else self.out_features
        macs = {"matmul": inputs[0] * synapses}
        return (Cost("synapses", macs, neurons=neurons, synapses=synapses),)

    def extra_repr(self) -> str:
        units, fan_in = self.weight.shape
        return f"in_features={self.in_features}, units={units}, fan_in={fan_in}"


def _sparse_linear(
    image_shape: tuple[int, int, int],
    time_steps: int,
    units: int,
    fan_in: int,
    wiring: Inputs,
    seed: int,
    **options: bool,
) -> SparseLinear:
    """Builds a layer on flattened frames, whose units draw their inputs."""
    channels, height, width = image_shape
    columns = min(isqrt(fan_in - 1) + 1, width)  # of a square, with room for a unit's inputs
    drawn = build(
        "wiring", wiring, _WIRINGS, seed=seed, claw=True,
        image_shape=(channels * time_steps, height, width),
        patch=(min(-(-fan_in // columns), height), columns),
    )  # fmt: skip
    pixels = time_steps * prod(image_shape)
    axons = drawn.axons(pixels, units, TreeShape((1, fan_in)))
    return SparseLinear(pixels, fan_in, axons, **options)


@register_model
def sparse_mlp(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 1,
    width: Size = 142,
    fan_in: Size = 16,
    wiring: Inputs = "random",
    norm: bool = True,
    seed: Seed = 0,
) -> StillNet:
    """A layer of rectified units that hear few inputs each, and a linear read-out.

    The sharp opponent of a dendritic layer: what restricted sampling gives without any dendrite. By
    default it has 3,986 parameters.

    Args:
        width: hidden units.
        fan_in: inputs of a unit. 16 are those of a dendrite in `dendritic_ann`, whose control this
            is; a unit of `granule_convnet` has 60 taps.
        wiring: "random" draws the inputs from all pixels and frames, "receptive_field" from a patch
            of one channel of one frame, by default the smallest square with room for them; or a
            table, such as {"kind": "receptive_field", "patch": [7, 7]}.
        norm: batch norm before the rectifier, as in the neuron networks; else a bias.
        seed: of the wiring.
    """
    hidden = _sparse_linear(image_shape, time_steps, width, fan_in, wiring, seed, bias=not norm)
    layers = [nn.Flatten(), hidden, *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
    return StillNet(nn.Sequential(*layers, nn.Linear(width, num_classes)), time_steps, image_shape)


class DendriticCells(nn.Sequential):
    """The dendrites and somata of `dendritic_ann`: a `SparseLinear` and a rectifier each.

    Shape:
        (B, F) -> (B, N somata)
    """

    def trace_axons(self, layer: Callable[..., Tensor], inputs: Tensor) -> Tensor:
        """States a cell's inputs; what its dendrites send to its soma are no axons."""
        dendrites: Any = self[0]
        somata: Any = self[2]
        return layer(inputs, len(somata.weight), dendrites.wiring.view(len(somata.weight), -1))


@register_model
def dendritic_ann(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 1,
    width: Size = 128,
    dendrites: Size = 1,
    fan_in: Size = 16,
    wiring: Inputs = "random",
    seed: Seed = 0,
) -> StillNet:
    """The dendritic ANN of Chavlis and Poirazi: inputs -> dendrites -> their soma -> classes.

    Nature Communications 16:943, 2025 (doi:10.1038/s41467-025-56297-9). A dendrite samples 16
    inputs, a soma its own dendrites, and both pass a leaky rectifier of slope 0.1. The paper's grid
    has 1 to 64 dendrites on 32 to 512 somata. By default it is the one of 3,722 parameters on
    MNIST, 118,282 were it dense: 128 somata of one dendrite, so that no soma sums any. With its
    code's training (Adam at a constant 1e-3, batches of 128, 15 epochs, no decay) one stored trial
    of it scores 93.28 %; see experiments/opponents.

    As in their code weights begin uniform within Glorot's bound of the dense layer (Glorot and
    Bengio 2010), and biases at zero. It draws all synapses of the layer at once, 16 to a dendrite
    on average; here, as in the paper's text, each dendrite has `fan_in`.

    Args:
        width: somata.
        dendrites: of a soma.
        fan_in: inputs of a dendrite.
        wiring: as in `sparse_mlp`: "random", the paper's dANN-R, or "receptive_field", its dANN-LRF
            with other patches.
        seed: of the wiring.
    """
    units = width * dendrites
    layers = (
        _sparse_linear(image_shape, time_steps, units, fan_in, wiring, seed, branches=True),
        SparseLinear(units, dendrites),
        nn.Linear(width, num_classes),
    )
    for layer in layers:
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    cells = DendriticCells(layers[0], nn.LeakyReLU(0.1), layers[1], nn.LeakyReLU(0.1))
    return StillNet(nn.Sequential(nn.Flatten(), cells, layers[2]), time_steps, image_shape)


@checked
class KTree(ImageNetwork):
    """Neurons whose dendrites are binary trees over all pixels, one neuron for each class.

    Shape:
        (B, C, H, W) or (B, C, T, H, W) -> logits (B, classes); of two classes one neuron gives the
        logit, and the first class has 0
    """

    def __init__(
        self,
        image_shape: ImageShape,
        num_classes: Size,
        time_steps: Size,
        repeats: Size,
        pool: Size,
    ) -> None:
        super().__init__(time_steps, image_shape)
        channels, *sides = image_shape
        pooled = [-(-side // pool) for side in sides]
        padded = [1 << (side - 1).bit_length() for side in pooled]
        gaps = [after - before for before, after in zip(pooled, padded, strict=True)]
        self.padding = [side for gap in reversed(gaps) for side in (gap // 2, gap - gap // 2)]
        self.pool = nn.AvgPool2d(pool, ceil_mode=True)
        self.tells_two = num_classes == 2  # by one neuron
        neurons = 1 if self.tells_two else num_classes
        self.trees = neurons * repeats
        inputs = channels * time_steps
        nodes = self.trees * prod(padded) * inputs
        layers = list[nn.Module]()
        for fan_in in [inputs] * (inputs > 1) + [2] * (prod(padded).bit_length() - 1):
            layers += [SparseLinear(nodes, fan_in, branches=True), nn.LeakyReLU(0.01)]
            nodes //= fan_in
        self.dendrites = nn.Sequential(*layers)
        self.classifier = SparseLinear(nodes, repeats)
        for parameter in self.classifier.parameters():
            nn.init.uniform_(parameter, -(repeats**-0.5), repeats**-0.5)

    @property
    def num_classes(self) -> int:
        neurons = super().num_classes
        return neurons + (self.tells_two and neurons == 1)

    def forward_features(self, images: Tensor) -> Tensor:
        leaves = self._leaves(images)
        return self.dendrites(leaves.t().repeat(self.trees, 1).t())  # as layers read them

    def _leaves(self, images: Tensor) -> Tensor:
        """Returns the inputs of a tree (B, leaves), those of a pixel side by side."""
        pixels = F.pad(self.pool(self.as_frames(images).flatten(1, 2)), self.padding)
        return pixels.flatten(2).transpose(1, 2).flatten(1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        if pre_logits:
            return features
        return self._of_classes(self.classifier(features))

    def _of_classes(self, logits: Tensor) -> Tensor:
        return F.pad(logits, (1, 0)) if self.tells_two and logits.shape[1] == 1 else logits

    def trace_axons(self, layer: Callable[..., Tensor], images: Tensor) -> Tensor:
        """States the neurons' inputs; the nodes of their trees are no axons."""
        return self._of_classes(layer(self._leaves(images), self.classifier.out_features))


@register_model
def k_tree(
    *,
    image_shape: ImageShape = GREY,
    num_classes: Size = 10,
    time_steps: Size = 1,
    width: Size = 1,
    pool: Size = 1,
) -> KTree:
    """The k-tree of Jones and Kording: a neuron whose dendrite is a binary tree, k times over.

    Neural Computation 33(6):1554-1571, 2021 (doi:10.1162/neco_a_01390). An image is padded to
    sides that are powers of two; each node of a tree sums two below it, adds a bias and passes a
    leaky rectifier of slope 0.01; the soma sums k trees over the same pixels. On two classes of
    MNIST, padded to 32 x 32, the neuron has 3,071 parameters with k = 1 and 98,241 with 32, and
    scores .922 +- .018 (of the seven of ten seeds that learned) and .9635 +- .0043 on 3 against 5.
    More classes than two have a neuron each, 30,710 parameters on MNIST with k = 1.

    Frames and colours of a pixel meet in a first layer. Weights begin as He et al. draw them for
    two inputs, those of the soma as torch's `nn.Linear`.

    Args:
        width: k, the trees of a neuron.
        pool: average regions of pool x pool pixels first, for fewer parameters: 3,810 for ten
            classes of MNIST with pool = 4 and k = 2; the paper has none.
    """
    return KTree(image_shape, num_classes, time_steps, width, pool)
