"""Single neurons of five kinds, the tasks that they learn, and their training.

Shapes: B batch, F axons, N neurons side by side, D branches, P synapses of a branch.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import isqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroconv.data import load_data
from neuroconv.layers import DendriticFields, Random
from neuroconv.learning import Backprop, ClimbingFibre, Rule, logistic_error
from neuroconv.zoo import PurkinjeClassifier, create_model
from neuroconv.zoo.purkinje_classifier import MossyFibres, NuclearReadout

ENTRANTS = {
    "random": "cell, branches wired at random",
    "patches": "cell, branches on patches",
    "backprop": "cell, random, backpropagation",
    "pair": "two cells that work against one another",
    "point": "point neuron",
    "quadratic": "quadratic neuron",
    "mlp": "sparse MLP, backpropagation",
}
GAIN = 8.0  # logits for a rate of one
EVEN = 0, 2, 4, 6, 8
SPLITS = [(0, *others) for others in combinations(range(1, 10), 4)]


class TonicNuclei(NuclearReadout):
    """Nuclei that answer yes to a Purkinje cell that fires below a rate of one."""

    def forward(self, rates: Tensor) -> Tensor:
        return super().forward(rates - 1)


class Point(nn.Module):
    """Linear-threshold units. Synapses of one axon add up: more of them do not tell more."""

    def __init__(self, axons: int, neurons: int, synapses: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(neurons, synapses // axons, axons) / synapses**0.5)
        self.bias = nn.Parameter(torch.zeros(neurons))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1) @ self.weight.sum(1).t() + self.bias


class Quadratic(nn.Module):
    """Neurons b + w.x + sum over k of c_k (u_k.x)^2: the energy model with a linear term that fits
    cortical cells (Rust et al. 2005, doi:10.1016/j.neuron.2005.05.021)."""

    def __init__(self, axons: int, neurons: int, synapses: int) -> None:
        super().__init__()
        squares = synapses // axons - 1
        self.linear = Point(axons, neurons, axons)
        self.weight = nn.Parameter(torch.randn(neurons, squares, axons) / axons**0.5)
        signs = 1 - 2.0 * (torch.arange(squares) % 2)
        self.output = nn.Parameter((signs / max(squares, 1) ** 0.5).repeat(neurons, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        squares = (inputs.flatten(1) @ self.weight.flatten(0, 1).t()).square()
        return self.linear(inputs) + (squares.unflatten(1, self.output.shape) * self.output).sum(2)


class SparseMLP(nn.Module):
    """Branches as hidden units whose output weights are trained too, of either sign."""

    def __init__(self, wiring: Tensor, axons: int, sites: int) -> None:
        super().__init__()
        self.wiring, self.axons = wiring.reshape(-1, sites), axons
        units = len(wiring), len(self.wiring) // len(wiring)  # (N, D)
        self.weight = nn.Parameter(torch.randn(self.wiring.shape) * (2 / sites) ** 0.5)
        self.rest = nn.Parameter(torch.zeros(len(self.wiring)))
        self.output = nn.Parameter(torch.randn(units) * (2 / units[1]) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(len(wiring)))

    def forward(self, inputs: Tensor) -> Tensor:
        zeros = self.weight.new_zeros(len(self.wiring), self.axons)
        dense = zeros.scatter_add(1, self.wiring, self.weight)
        hidden = torch.addmm(self.rest, inputs.flatten(1), dense.t()).relu()
        return (hidden.unflatten(1, self.output.shape) * self.output).sum(2) + self.bias


def make_neurons(name: str, axons: int, neurons: int, sites: int, branches: int, seed: int) -> Rule:
    """Returns the rule and model (`rule.model`) of neurons with the parameters of such a cell."""
    torch.manual_seed(seed)
    synapses, pair = sites * branches, 1 + (name == "pair")
    if name in ("point", "quadratic"):
        kind = Point if name == "point" else Quadratic
        return Backprop(kind(axons, neurons, synapses), error=logistic_error)
    if name == "mlp":  # each unit has an output weight more than a branch
        branches = max(1, round((synapses + branches) / (sites + 2)))
    wiring: Any = Random(seed=seed)
    if name == "patches":
        image, patch = (1, isqrt(axons), isqrt(axons)), (isqrt(sites), isqrt(sites))
        wiring = DendriticFields(image, patch, seed=seed)
    model = create_model(
        "purkinje_classifier", image_shape=(1, 1, axons), num_classes=neurons, normalise=False,
        cells_per_class=pair, gain=GAIN, seed=seed,
        purkinje={"tree": {"sheet": (sites, branches // pair)}, "wiring": wiring},
    ).eval()  # fmt: skip
    if name == "mlp":
        drawn = model.get_buffer("purkinje.synapses.wiring")
        return Backprop(SparseMLP(drawn, axons, sites), error=logistic_error)
    model.classifier = TonicNuclei(neurons, pair, GAIN)
    return (Backprop if name == "backprop" else ClimbingFibre)(model, error=logistic_error)


def train(rule: Rule, x: Tensor, y: Tensor, epochs: int, batch: int, lr: float, seed: int) -> Rule:
    """Trains on patterns (n, F) and answers 0 or 1 (n, N): Adam, cosine to zero, no decay.

    Dendritic cells first get resting potentials at which their rates are one on average.
    """
    if isinstance(rule.model, PurkinjeClassifier):
        cells: Any = rule.model.purkinje
        with torch.no_grad():
            cells.bias += 1 - cells(x[:1000].unsqueeze(2)).mean((0, 2))
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(rule.trained(), lr=lr)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(batch):
            optimizer.zero_grad()
            rule(x[rows][:, None, None], y[rows])
            optimizer.step()
            schedule.step()
    return rule


@torch.no_grad()
def answered(rule: Rule, x: Tensor, y: Tensor) -> NDArray[np.bool_]:
    """Returns which answers are right, (n, N)."""
    run = rule.forward if isinstance(rule, ClimbingFibre) else rule.model
    logits = torch.cat([run(rows[:, None, None]) for rows in x.split(256)])
    return ((logits > 0) == (y > 0)).numpy()


def patterns(inputs: int) -> Tensor:
    """Returns all patterns of -1 and 1, (2^d, d)."""
    return ((torch.arange(2**inputs).unsqueeze(1) >> torch.arange(inputs)) % 2) * 2.0 - 1


def truth_tables(inputs: int, functions: int, seed: int) -> Tensor:
    """Draws Boolean functions (2^d, functions) with as many ones as zeros."""
    tables = np.tile(np.arange(2**inputs)[:, None] % 2, functions)
    return torch.from_numpy(np.random.default_rng((seed, inputs)).permuted(tables, axis=0)).float()


def first_halves(labels: Tensor, splits: Sequence[Sequence[int]]) -> Tensor:
    """Returns 1 where a digit is in the first half of a split, else 0, (n, splits)."""
    return torch.stack([torch.isin(labels, torch.tensor(split)) for split in splits], 1).float()


@lru_cache(maxsize=1)
def images(name: str, limit: int | None) -> tuple[tuple[Tensor, Tensor], ...]:
    """Returns mossy fibres' activity (n, F) and labels (n,): training, validation, test."""
    data = load_data(name, encoding="none", train_limit=limit)
    parts = (part.batch(range(len(part))) for part in (data.train, data.val, data.test))
    return tuple((MossyFibres()(still.unsqueeze(2)).squeeze(2), labels) for still, labels in parts)
