"""Release or sleep: the essay's branch, after which a neuron that does not release waits.

Shapes: B batch, N neurons, T time steps.
"""

import math

import torch
from torch import Tensor

from neuroconv.core.arguments import NonNegative, Positive, checked
from neuroconv.core.cost import Cost
from neuroconv.layers.poisson import MeanWait, Waiting

_MOST_STEPS = 1_000_000  # of a sleep: the probability of waking after each is kept in a list


@checked
class ReleaseOrWait(Waiting):
    """The essay's branch: `if fire and not dropout: release() else: sleep(0.02)` (Dettmers 2015).

    A neuron that is awake fires if its rate is positive. If it fires and is not dropped, it
    releases its rate and stays awake; else it sleeps, this step included, and then looks again.
    It is dropped if K ~ Poisson(mean_wait) is 1 or more. At the essay's 30 steps a second 20 ms
    end before the next step, so it is plain gating; at 5 ms a step a neuron sleeps for four.

    In training a release is divided by its probability in a neuron that fires at every step, so
    that such a neuron's mean rate is kept from the first step on. In evaluation nothing is
    dropped, and the sleep after not firing remains. Gradients reach the released rates alone.

    Args:
        mean_wait: the Poisson distribution's lambda; 0 drops nothing.
        wait_ms: the sleep in milliseconds, rounded up to whole steps, one at least.
        step_ms: length of a time step in milliseconds.

    Shape:
        rate (B, N, T) -> the same. In (B, N, T, ...) each further position is a cell of its own.

    Raises:
        ValueError: a mean_wait that `PoissonDropout` refuses, a wait_ms that is negative or a
            step_ms that is not positive; at the call, another shape.
    """

    scope = "unit"
    awake, gates = (0, torch.int32), True

    def __init__(
        self, mean_wait: MeanWait = 0.5, wait_ms: NonNegative = 20.0, step_ms: Positive = 1000 / 30
    ) -> None:
        super().__init__(mean_wait)
        if wait_ms / step_ms > _MOST_STEPS:
            raise ValueError(
                f"wait_ms={wait_ms} with step_ms={step_ms}; expected at most {_MOST_STEPS:,} steps"
            )
        self.wait_ms, self.step_ms = wait_ms, step_ms
        # In floating point 2.1 / 0.7 is a little more than 3: still three steps.
        self.wait_steps = max(1, math.ceil(wait_ms / step_ms - 1e-9))
        self.no_wait = math.exp(-mean_wait)
        periods = [0.0] * self.wait_steps
        periods[0] += self.no_wait
        periods[-1] += 1 - self.no_wait
        self.law = (tuple(periods), self.no_wait)

    def _fired(self, rate: Tensor, waiting: Tensor, active: Tensor | None) -> tuple[Tensor, Tensor]:
        ready, released = rate > 0, []
        if self.acts:  # all steps' draws at once, step by step as single calls would draw them
            uniform = torch.rand(rate.shape[2], *waiting.shape, device=rate.device)
            ready &= (uniform < self.no_wait).movedim(0, 2)
        for fires in ready.unbind(2):
            awake = waiting == 0
            releases = awake & fires
            released.append(releases)
            waiting = torch.where(awake & ~releases, self.wait_steps, waiting)
            waiting = (waiting - 1).clamp(min=0)
        return torch.stack(released, 2), waiting

    def closed_form(self, rate: torch.Size) -> tuple[Cost, ...]:
        """Counts a comparison with the threshold and a product for each number."""
        return (Cost("release", pointwise=2 * rate.numel()),)

    def extra_repr(self) -> str:
        return f"mean_wait={self.mean_wait}, wait_ms={self.wait_ms:g}, step_ms={self.step_ms:.6g}"
