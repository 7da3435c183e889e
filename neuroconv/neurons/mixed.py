"""Populations of several cell types side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuroconv.core.cost import Cost
from neuroconv.neurons.population import Population
from neuroconv.neurons.state import REST, NeuronState


class MixedPopulation(nn.Module):
    """Populations of several cell types side by side: they hear the same axons.

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
        if len({each.in_features for each in populations}) != 1:
            raise ValueError(
                f"in_features={[each.in_features for each in populations]}; expected one or more "
                "populations that listen to the same axons"
            )
        self.populations = nn.ModuleList(populations)
        self.in_features = populations[0].in_features
        self.out_features = sum(each.out_features for each in populations)

    def forward(self, activity: Tensor) -> Tensor:
        return torch.cat([each(activity) for each in self.populations], 1)

    def stream(
        self, activity: Tensor, state: Sequence[NeuronState] | None = None
    ) -> tuple[Tensor, tuple[NeuronState, ...]]:
        """As `Population.stream`; the state has one part for each population."""
        parts = [REST] * len(self.populations) if state is None else state
        rates, after_it = [], []
        for population, part in zip(self.populations, parts, strict=True):
            assert isinstance(population, Population)
            rate, part = population.stream(activity, part)
            rates.append(rate)
            after_it.append(part)
        return torch.cat(rates, 1), tuple(after_it)

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        """As `Population.closed_form`, one population after another."""
        return tuple(
            cost
            for population in self.populations
            if isinstance(population, Population)
            for cost in population.closed_form(activity)
        )
