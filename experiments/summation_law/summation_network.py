"""The tasks, and networks of neurons that sum by each law, and of ordinary units with it."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.data import load_data
from neuroconv.essay.networks import Split, fit
from neuroconv.layers import DendriticSummation, FiringRate

DENDRITES = {"neuron": 4, "ordinary": 1}  # of a unit

LAWS: dict[str, dict[str, Any]] = {
    "linear": {"law": "linear"},
    "sublinear": {"law": "sublinear"},
    "supralinear": {"law": "supralinear", "exponent": 2.0},
    "sigmoidal": {"law": "sigmoidal", "exponent": 4.0},
    "bistable": {"law": "sigmoidal", "exponent": 12.0},
}

LEARNED = "learned"


def conjunctions(count: int, generator: torch.Generator, values: int = 6) -> Split:
    """Draws two features of six values each, whose sum modulo six is the class.

    No input and neither feature is correlated with the class: a neuron must tell both together from
    each. A feature's value is one of six inputs that is raised by one above Gaussian noise.
    """
    features = torch.randint(values, (count, 2), generator=generator)
    inputs = F.one_hot(features, values).flatten(1).float()
    noise = torch.randn(inputs.shape, generator=generator)
    return inputs + 0.35 * noise, features.sum(1) % values


@lru_cache(maxsize=1)
def splits(task: str, count: int) -> list[Split]:
    """Returns inputs (N, F) and labels (N,) for training, validation and test."""
    generator = torch.Generator().manual_seed(5)  # the task's, the same for all seeds
    if task == "conjunction":
        return [conjunctions(number, generator) for number in (min(count, 2000), 1000, 4000)]
    name, parts = task.removeprefix("noisy_"), []
    data = load_data(name, encoding="none", train_limit=None if "digits" in name else count)
    for part in (data.train, data.val, data.test):
        pixels, labels = part.batch(range(len(part)))
        noise = torch.randn(pixels.shape, generator=generator)
        parts.append(((pixels + 0.3 * noise if name != task else pixels).flatten(1), labels))
    return parts


class Power(nn.Module):
    """k (s / k)^p with a learned exponent p > 0 of either side of 1, where it starts."""

    def __init__(self, knee: float) -> None:
        super().__init__()
        self.knee, self.log_exponent = knee, nn.Parameter(torch.zeros(()))

    def forward(self, rate: Tensor) -> Tensor:
        knees = rate.mean(-1) / self.knee
        return knees.clamp(min=1e-6).pow(self.log_exponent.exp()) * self.knee


class Layer(nn.Module):
    """Units whose dendrites read all inputs (B, F); rates (B, N).

    With one dendrite the law acts on a rectified weighted sum: it is an activation function. A
    constant gain lets the law's values vary as much between inputs as the sums do before training,
    for laws are to be compared by their shape and not by the scale of what they send.
    """

    def __init__(self, features: int, dendrites: int, per_unit: int) -> None:
        super().__init__()
        self.dendrites, self.per_unit = nn.Linear(features, dendrites), per_unit
        self.summation: Callable[[Tensor], Tensor] = DendriticSummation(scale=1 / per_unit)
        self.gain = 1.0
        units = dendrites // per_unit
        self.bias, self.firing = nn.Parameter(torch.zeros(units)), FiringRate()

    def dendritic_rates(self, inputs: Tensor) -> Tensor:
        rates: Tensor = self.dendrites(inputs).relu().unflatten(1, (-1, 1, self.per_unit))
        return rates

    def set_law(self, law: str, inputs: Tensor) -> None:
        """Gives it a law whose knee is the mean sum of these inputs, and the law's gain."""
        rates, linear = self.dendritic_rates(inputs), self.summation
        knee, options = float(rates.mean()), LAWS.get(law, {})
        self.summation = Power(knee) if law == LEARNED else DendriticSummation(
            scale=1 / self.per_unit, **options, **({} if law == "linear" else {"knee": knee})
        )  # fmt: skip
        spread, spread_of_law = (f(rates).std(0).mean() for f in (linear, self.summation))
        self.gain = float(spread / spread_of_law)

    def forward(self, inputs: Tensor) -> Tensor:
        current = self.summation(self.dendritic_rates(inputs)).squeeze(2)
        rate: Tensor = self.firing(self.gain * current + self.bias)
        return rate


def trained(
    unit: str, law: str, rate: float, training: Split, steps: int, size: Any, seed: int
) -> nn.Sequential:
    """Trains a network; all laws begin with the same weights and see the same batches."""
    (inputs, labels), generator = training, torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    per_unit = DENDRITES[unit]
    units = size.dendrites // per_unit
    layers = [Layer(count, size.dendrites, per_unit) for count in (inputs.shape[1], units)]
    network = nn.Sequential(*layers, nn.Linear(units, int(labels.max()) + 1))
    with torch.no_grad():
        sent = inputs[: size.batch]
        for layer in layers:
            layer.set_law(law, sent)
            sent = layer(sent)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    drawn = torch.randint(len(labels), (steps, size.batch), generator=generator)
    fit(network, training, drawn.unbind(), optimizer)
    return network
