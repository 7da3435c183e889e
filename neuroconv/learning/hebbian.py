"""Hebb's rule for the granule layer, without a teacher."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from neuroconv.core.arguments import NonNegative, checked
from neuroconv.learning.population import LocalGradient
from neuroconv.learning.rule import NotLocal, register_rule
from neuroconv.learning.teaching import ClimbingFibre
from neuroconv.neurons import Granule
from neuroconv.zoo import PurkinjeClassifier


@register_rule
@checked
class Hebbian(ClimbingFibre):
    """Oja's rule in the granule cells, beneath the climbing fibres of the Purkinje cells.

    A synapse grows with the product of its cell's rate y and its axon's activity x, as filtered and
    scaled on the way to the soma, and decays by y^2 times its weight w: y (x - y w), so that the
    weights of a linear cell end at the first principal component, with length one (Oja 1982,
    doi:10.1007/BF00275687). No error reaches it, and dendrites that are shut learn too. The taps
    and resting potentials of granule cells stay as they are.

    Args:
        strength: a factor of Oja's update. An optimiser that divides by the size of updates, such
            as Adam, takes it out again.
        options: of `ClimbingFibre`.

    Raises:
        NotLocal: no granule cells, or granule cells or Purkinje cells whose gradient is not local.
    """

    name = "hebbian"

    def __init__(self, model: nn.Module, *, strength: NonNegative = 1.0, **options: Any) -> None:
        granule = model.granule if isinstance(model, PurkinjeClassifier) else None
        if not isinstance(granule, Granule):
            raise NotLocal(
                f"{self.name}: {type(model).__name__} has no granule cells; expected a "
                "purkinje_classifier with some, such as granule = {cells = 1000}"
            )
        self.granule, self.strength = LocalGradient(granule), strength
        super().__init__(model, **options)

    def trained(self) -> Iterable[nn.Parameter]:
        return [*super().trained(), *self.granule.synapses.parameters()]

    def forward(self, inputs: Tensor) -> Tensor:
        self._rates = self.granule.forward(self.network.mossy(self.network.as_frames(inputs)))
        return self.classify(self._rates)

    def learn(self, error: Tensor, scale: float) -> None:
        super().learn(error, scale)
        weight, rates = self.granule.synapses.effective_weight(), self._rates
        growth = self.granule.correlate(rates) * self.granule.cells.summation.scale
        decay = rates.square().sum((0, 2)).unsqueeze(1) * weight
        share = self.strength * scale / rates.shape[2]
        self.granule.add_to_synapses((decay - growth) * share)
