"""Populations of several cell types side by side."""

from collections.abc import Sequence
from typing import Any

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

    populations: Any  # an nn.ModuleList of populations

    def __init__(self, *populations: Population) -> None:
        super().__init__()
        axons = [population.in_features for population in populations]
        if len({*axons}) != 1:
            raise ValueError(
                f"in_features={axons}; expected one or more populations with the same axons"
            )
        self.populations = nn.ModuleList(populations)
        self.in_features = axons[0]
        self.out_features = sum(population.out_features for population in populations)

    def forward(self, activity: Tensor) -> Tensor:
        return torch.cat([population(activity) for population in self.populations], 1)

    def stream(
        self, activity: Tensor, state: Sequence[NeuronState] | None = None
    ) -> tuple[Tensor, tuple[NeuronState, ...]]:
        """Runs over a stretch, as `Population.stream`; the state is one for each population."""
        before = [REST] * len(self.populations) if state is None else state
        pairs = zip(self.populations, before, strict=True)
        rates, after = zip(
            *(cells.stream(activity, memory) for cells, memory in pairs), strict=True
        )
        return torch.cat(rates, 1), after

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        """Returns the rows of `Population.closed_form`, one population after another."""
        return sum((cells.closed_form(activity) for cells in self.populations), ())
