"""Waiting periods between draws as a renewal process.

Shapes: T time steps, R steps of the longest period.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.core.autocast import widest_float
from neuroconv.kernels.constants import constant, numbers
from neuroconv.kernels.operator import needs_reference

_MOST_WAITS = 1000  # five times what the longest mean needs, should rounding keep a sum below 1
# Probabilities of the periods; the share of draws that fire at once, None if firing comes before.
FiringLaw = tuple[tuple[float, ...], float | None]


def periods(mean_wait: float, mode: str) -> tuple[float, ...]:
    """Returns the probabilities of 1, 2, 3 ... steps from a draw to the next."""
    if mode == "independent":
        return (1.0,)
    poisson = [math.exp(-mean_wait)]
    while len(poisson) <= mean_wait or poisson[-1] > 1e-20:  # the tail is below 1e-19
        poisson.append(poisson[-1] * mean_wait / len(poisson))
    if mode == "wait":  # K silent steps and one that fires
        return tuple(poisson)
    return (poisson[0] + poisson[1], *poisson[2:])  # one that fires, or K silent steps


def cumulative(mean_wait: float) -> tuple[float, ...]:
    """Returns the probabilities of a wait of at most 0, 1, 2 ... steps, up to 1 in float32."""
    term = math.exp(-mean_wait)
    shares = [term]
    while shares[-1] < 1 - 2**-25 and len(shares) < _MOST_WAITS:
        term *= mean_wait / len(shares)
        shares.append(shares[-1] + term)
    return tuple(shares)


def waits(uniform: Tensor, shares: Tensor) -> Tensor:
    """Draws waits in whole steps from numbers from 0 to 1 by inverting `cumulative`."""
    if needs_reference():  # `vmap` has no rule for bucketize, and warns
        return (uniform.unsqueeze(-1) >= shares).sum(-1)
    return torch.bucketize(uniform, shares, out_int32=True, right=True)


@constant
def first_due(periods: tuple[float, ...], device: torch.device) -> Tensor:
    """Returns the due draws at the start of a window, (R,): one at once."""
    due = torch.zeros(len(periods), dtype=widest_float(device), device=device)
    due[:1].fill_(1)  # a literal would be copied to the device from the host
    return due


@constant
def firing_from_start(
    law: FiringLaw, steps: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes `firing` from a window's start, where no data decide, and the `reciprocal`."""
    probability, due = firing(first_due(law[0], device), law, steps)
    return probability, due, reciprocal(probability, dtype)


def firing(due: Tensor, law: FiringLaw, steps: int) -> tuple[Tensor, Tensor]:
    """Returns the probability of firing at the next steps, (T,), and due draws after them, (R,)."""
    drawn, due = renewals(due, law[0], steps)
    return (torch.cat([drawn, due[:1]])[1:] if law[1] is None else drawn * law[1]), due


def reciprocal(probability: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns 1 / probability, finite: a step so improbable that it never fires must not turn a
    silent 0 into 0 * inf."""
    return probability.reciprocal().clamp(max=torch.finfo(dtype).max).to(dtype)


def renewals(due: Tensor, periods: tuple[float, ...], steps: int) -> tuple[Tensor, Tensor]:
    """Computes the probability of a draw at the next steps, (T,), and due draws after them, (R,).

    Solves the renewal equation u(t) = sum over d of u(t - d) P(period = d). The probabilities that
    earlier draws send ahead are in `due`, the only state between chunks of a window.
    """
    law = numbers(periods, due.dtype, due.device)
    ahead = F.pad(due, (0, steps))
    if not steps or torch.compiler.is_compiling():
        for step in range(steps):
            ahead[step + 1 : step + 1 + len(law)].addcmul_(ahead[step], law)
    else:  # all views at once: thousands of steps are thousands of small operators
        reached = ahead[1:].unfold(0, len(law), 1).unbind()
        for now, later in zip(ahead.unbind()[:steps], reached, strict=False):
            later.addcmul_(now, law)
    return ahead[:steps], ahead[steps:].clone()
