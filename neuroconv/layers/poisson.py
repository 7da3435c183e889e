"""Poisson dropout: a neuron past its threshold still waits before it fires.

Shapes: B batch, N neurons, T time steps.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from neuroconv.layers.checks import check_choice

DropoutMode = Literal["wait", "independent"]


class PoissonDropout(nn.Module):
    """Silences a neuron for waiting periods K ~ Poisson(mean_wait), and keeps its mean rate.

    Modes:
        wait: draw K, stay silent for K steps, fire, draw again. The essay's (its figure of a
            Poisson(0.5) distribution gives "the waiting time before firing"). In the long run the
            neuron fires in 1 / (1 + mean_wait) of the steps, 0.667 at 0.5.
        independent: at each step, fire if K = 0: a probability of exp(-mean_wait), 0.607 at 0.5.
            This is ordinary dropout of 1 - exp(-mean_wait), 0.393, under another name.

    In training every step is divided by its own probability of firing, so that the expected rate
    is kept from the first step on. In evaluation it is the identity. Draws come from torch's
    default generator of the input's device.

    Args:
        mean_wait: mean of the waiting periods in time steps, the Poisson distribution's lambda.
        mode: "wait" or "independent".

    Shape:
        rate (B, N), (B, N, T) or (B, N, T, ...) -> the same

    Raises:
        ValueError: a mean_wait outside of 0 to 50, or an unknown mode.
    """

    def __init__(self, mean_wait: float = 0.5, mode: DropoutMode = "wait") -> None:
        super().__init__()
        if not isinstance(mean_wait, int | float) or not 0 <= mean_wait <= 50:
            raise ValueError(
                f"mean_wait={mean_wait!r}; expected a number of time steps from 0 to 50 (a neuron "
                "that waits longer hardly ever fires)"
            )
        check_choice("mode", mode, ("wait", "independent"))
        self.mean_wait, self.mode = mean_wait, mode

    def forward(self, rate: Tensor) -> Tensor:
        if rate.dim() < 2:
            raise ValueError(
                f"rate has shape {tuple(rate.shape)}; expected (batch, neurons[, time_steps])"
            )
        if not self.training or self.mean_wait == 0:
            return rate
        time_steps = rate.shape[2] if rate.dim() > 2 else 1
        one_step = rate[:, :, 0] if rate.dim() > 2 else rate
        mean = torch.full_like(one_step, self.mean_wait, dtype=torch.float32)
        fires = []
        waiting = torch.poisson(mean)
        for _ in range(time_steps):
            now = waiting == 0
            fires.append(now)
            if self.mode == "independent":
                waiting = torch.poisson(mean)
            else:
                waiting = torch.where(now, torch.poisson(mean), waiting - 1)
        kept = torch.stack(fires, dim=2) if rate.dim() > 2 else fires[0]
        # In half precision the probability itself would be off by up to 0.4 %, and so the mean.
        exact = torch.promote_types(rate.dtype, torch.float32)
        probability = torch.tensor(
            self.firing_probability(time_steps), dtype=exact, device=rate.device
        )
        if rate.dim() > 2:
            probability = probability.view(-1, *[1] * (rate.dim() - 3))
        return (rate * (kept / probability)).to(rate.dtype)

    def firing_probability(self, time_steps: int) -> list[float]:
        """Probability of firing at each of the first steps of a window that starts with a draw."""
        poisson = [math.exp(-self.mean_wait)]
        for k in range(1, time_steps):
            poisson.append(poisson[-1] * self.mean_wait / k)
        if self.mode == "independent":
            return [poisson[0]] * time_steps
        fires: list[float] = []
        for step in range(time_steps):
            # Either the first wait lasts until now, or a firing at `then` began one that does.
            later = (fires[then] * poisson[step - then - 1] for then in range(step))
            fires.append(poisson[step] + sum(later))
        return fires

    def extra_repr(self) -> str:
        return f"mean_wait={self.mean_wait}, mode={self.mode!r}"
