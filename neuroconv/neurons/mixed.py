"""Populations of several cell types side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuroconv.core.cost import Cost
from neuroconv.neurons.population import Population
from neuroconv.neurons.state import REST, NeuronState


class MixedPopulation(nn.Module):
    """Populations of several cell types side by side, with the same incoming axons.

    Args:
        *populations: each with the same in_features. Their neurons follow one another in the
            output.

    Shape:
        activity (B, F, T) or (B, F) -> rate (B, N, T), N the neurons of all

    Raises:
        ValueError: none, or populations that expect different numbers of axons.
    """

    def __init__(self, *populations: Population) -> None:
        super().__init__()
        axons = [population.in_features for population in populations]
        if len({*axons}) != 1:
            raise ValueError(
                f"in_features={axons}; expected one or more populations with the same axons"
            )
        self.populations = nn.ModuleList(populations)
        self.in_features = populations[0].in_features
        self.out_features = sum(population.out_features for population in populations)

    def forward(self, activity: Tensor) -> Tensor:
        return torch.cat([population(activity) for population in self.populations], 1)

    def stream(
        self, activity: Tensor, state: Sequence[NeuronState] | None = None
    ) -> tuple[Tensor, tuple[NeuronState, ...]]:
        """Runs over a stretch, as `Population.stream`; the state is one for each population."""
        before = [REST] * len(self.populations) if state is None else state
        rates, after = [], []
        for population, memory in zip(self.populations, before, strict=True):
            assert isinstance(population, Population)
            rate, memory = population.stream(activity, memory)
            rates.append(rate)
            after.append(memory)
        return torch.cat(rates, 1), tuple(after)

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        """Returns the rows of `Population.closed_form`, one population after another."""
        return tuple(
            cost
            for population in self.populations
            if isinstance(population, Population)
            for cost in population.closed_form(activity)
        )
