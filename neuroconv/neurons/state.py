"""State over time: a neuron's memory between two stretches, as an argument and a result.

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
    call: Callable[..., Any] | None = None,
) -> tuple[Tensor, NeuronState]:
    """Runs stages one after another; those with a memory take their state and return the next.

    Args:
        stages: by name, in order.
        x: input of the first.
        state: of the stretch before.
        call: runs one stage, `call(stage, *arguments)`; by default the stage itself.
    """
    memory = state._asdict()
    for name, stage in stages.items():
        stream = getattr(stage, "stream", None)
        step, arguments = (stage, (x,)) if stream is None else (stream, (x, memory[name]))
        result = step(*arguments) if call is None else call(step, *arguments)
        if stream is None:
            x = result
        else:
            x, memory[name] = result
    return x, NeuronState(**memory)
