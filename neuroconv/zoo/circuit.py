"""Parts of the cerebellum's circuit that are more than one population.

Shapes: B batch, F mossy fibres, N cells, T time steps, K classes.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import NonNegative, Seed, Size, checked
from neuroconv.core.shares import share_of
from neuroconv.layers import Cost, Random, SparseSynapses, TreeShape
from neuroconv.neurons import Golgi, Granule
from neuroconv.neurons.state import REST, NeuronState

# A granule cell has about four dendrites, and a Golgi axon meets it at the glomerulus of each.
_GLOMERULI = 4


class GranularState(NamedTuple):
    """The memory of a granular layer between two stretches of time."""

    granule: NeuronState = REST
    golgi: NeuronState = REST
    last_rate: Tensor | None = None  # (B, N, 1), which the Golgi cells answer next


@checked
class GranularLayer(nn.Module):
    """Granule cells, and the Golgi cells that they excite and that inhibit them one step later.

    Feedback inhibition keeps the granule cells' code sparse: the more of them fire, the more is
    subtracted from all potentials. It acts on the soma's potential, after the dendrites, so that
    only the firing itself has to go step by step. A granule cell is inhibited at four glomeruli, by
    synapses whose sign is held negative; `seed` draws their wiring.

    Shape:
        mossy fibres' activity (B, F, T) -> granule rates (B, N, T)
    """

    def __init__(self, granule: Granule, golgi: Golgi | None = None, seed: Seed = 0) -> None:
        super().__init__()
        self.granule, self.golgi = granule, golgi
        self.inhibition: SparseSynapses | None = None
        if golgi is None:
            return
        if golgi.in_features != granule.out_features:
            raise ValueError(
                f"the Golgi cells have {golgi.in_features} axons and there are "
                f"{granule.out_features} granule cells; expected the same number"
            )
        cells, sheet = golgi.out_features, (1, _GLOMERULI)
        with share_of(granule.out_features) as share:
            tree, random = TreeShape(sheet), Random(seed=seed)
            wiring = random.axons(cells, granule.out_features, tree, share.rows)
            self.inhibition = SparseSynapses(wiring, cells, sheet, signs=-torch.ones(cells))

    def forward(self, mossy: Tensor) -> Tensor:
        if self.golgi is not None:
            return self.stream(mossy)[0]
        return self.granule(mossy)  # the whole window may run as one kernel

    def stream(
        self, mossy: Tensor, state: GranularState | None = None
    ) -> tuple[Tensor, GranularState]:
        """Runs over a stretch, as `Population.stream` does."""
        granule, golgi, last_rate = state or GranularState()
        potential, granule = self.granule.somatic_potential(mossy, granule)
        if self.golgi is None or self.inhibition is None:
            rate, granule = self.granule.fire(potential, granule)
            return rate, GranularState(granule)
        rates = []
        for step in potential.split(1, dim=2):
            if last_rate is not None:
                feedback, golgi = self.golgi.stream(last_rate, golgi)
                step = step + self.inhibition(feedback).mean((3, 4))
            last_rate, granule = self.granule.fire(step, granule)
            rates.append(last_rate)
        return torch.cat(rates, 2), GranularState(granule, golgi, last_rate)

    def trace_axons(self, layer: Callable[..., Tensor], mossy: Tensor) -> Tensor:
        """States the circuit; see `neuroconv.flops.count_axons`. No Golgi cell reads the last step,
        and granule cells read the Golgi cells beside their mossy fibres."""
        rates = self.granule.trace_axons(layer, mossy)
        if self.golgi is not None and self.inhibition is not None:
            feedback = self.golgi.trace_axons(layer, rates[..., :-1])
            layer(feedback, self.granule.out_features, self.inhibition.wiring)
        return rates

    def closed_form(self, mossy: torch.Size) -> tuple[Cost, ...]:
        """Counts the Golgi cells at every step but the last: they answer one step later."""
        batch, _, steps = mossy
        costs = list(self.granule.closed_form(mossy, streamed=self.golgi is not None))
        if self.golgi is not None and self.inhibition is not None:
            last_rate = torch.Size((batch, self.golgi.in_features, 1))
            feedback = torch.Size((batch, self.golgi.out_features, 1))
            # At its glomeruli a granule cell's inhibition is averaged; its soma adds it.
            averaged = batch * self.golgi.in_features * (_GLOMERULI + 1)
            rows: list[Cost] = []
            for step in range(steps - 1):
                rows += self.golgi.closed_form(last_rate, resumed=step > 0, streamed=True)
                rows.append(replace(self.inhibition.closed_form(feedback)[0], stage="inhibition"))
                rows.append(Cost("glomeruli", pointwise=averaged))
            costs += [replace(row, stage=f"golgi {row.stage}") for row in _over_steps(rows)]
        return tuple(costs)


def _over_steps(rows: Iterable[Cost]) -> Iterable[Cost]:
    """Adds up the work of each stage over the steps; neurons and synapses stay the same."""
    stages: dict[str, Cost] = {}
    for row in rows:
        if total := stages.get(row.stage):
            sums = {key: getattr(row, key) for key in ("pointwise", "essay", "direct", "zeros")}
            sums = {key: getattr(total, key) + n for key, n in sums.items() if n is not None}
            row = replace(row, macs=dict(Counter(total.macs) + Counter(row.macs)), **sums)
        stages[row.stage] = row
    return stages.values()


def complex_spike_rate(error: Tensor, resting_rate: float, gain: float) -> Tensor:
    """Returns complex spikes per second: rest, and `gain` for an error of 1; not below zero."""
    return (resting_rate + gain * error).relu()


@checked
class ClimbingFibres(nn.Module):
    """Climbing fibres: each Purkinje cell receives the error of one class, as complex spikes.

    A Purkinje cell has one climbing fibre, whose cell in the inferior olive stands for one class,
    dealt out in turn. It fires at its resting rate while that class is predicted as it should be,
    faster where the class was missed, and falls silent where it was claimed wrongly.

    Args:
        resting_rate: complex spikes per second without an error; 1 in the awake rat (Lang et al.
            1999, abstract, doi:10.1523/JNEUROSCI.19-07-02728.1999).
        gain: spikes per second that a whole error adds; chosen, so that a missed class triples the
            rate and a class that is claimed without doubt is silenced.

    Shape:
        logits (B, K), labels (B,) -> complex spikes per second (B, N), never negative
    """

    olive: Tensor

    def __init__(
        self,
        num_classes: Size,
        purkinje_cells: Size,
        resting_rate: NonNegative = 1.0,
        gain: NonNegative = 2.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.resting_rate, self.gain = num_classes, resting_rate, gain
        olive = torch.arange(purkinje_cells) % num_classes
        self.register_buffer("olive", olive, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        if logits.shape != (len(labels), self.num_classes):
            raise ValueError(
                f"logits have shape {tuple(logits.shape)}; expected ({len(labels)} labels, "
                f"{self.num_classes} classes)"
            )
        target = nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        error = (target - logits.softmax(1)).index_select(1, self.olive)
        return complex_spike_rate(error, self.resting_rate, self.gain)

    def closed_form(self, logits: torch.Size, labels: torch.Size) -> tuple[Cost, ...]:
        """Returns no rows: an image is classified without them."""
        return ()

    def extra_repr(self) -> str:
        return f"resting_rate={self.resting_rate}, gain={self.gain}"
