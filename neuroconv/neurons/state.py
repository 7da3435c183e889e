"""The state of a neuron between two stretches of time, as an argument and a result.

Shapes: B batch, N neurons, T time steps.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from neuroconv.layers.poisson import DropoutState


class NeuronState(NamedTuple):
    """The memory of each stage between two stretches of time; None is a neuron at rest.

    Attributes:
        dendrites: charge that lingers on the dendrites, the last (filter time steps - 1) steps: of
            a population's sheet (B, N, T, P, D), of an image layer's maps (B, C, T, H, W).
        soma: summed dendritic current that lingers in the soma, the last (soma time steps - 1)
            steps of (B, N, T, ...).
        output: waiting periods of the output stage.
        unit_dropout: waiting periods of the positions on the sheet, in training.
    """

    dendrites: Tensor | None = None
    soma: Tensor | None = None
    output: Any = None
    unit_dropout: DropoutState | None = None


REST = NeuronState()


def run_stages(
    stages: Mapping[str, Callable[..., Any]],
    x: Tensor,
    state: NeuronState,
    call: Callable[..., Any] = lambda stage, *inputs: stage(*inputs),
) -> tuple[Tensor, NeuronState]:
    """Runs stages by name, in order; those with a memory take their state and return the next."""
    memory = state._asdict()
    for name, stage in stages.items():
        if stream := getattr(stage, "stream", None):
            x, memory[name] = call(stream, x, memory[name])
        else:
            x = call(stage, x)
    return x, NeuronState(**memory)
