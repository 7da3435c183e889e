"""Waiting periods as a renewal process: when the next draw is due.

Shapes: T time steps, R steps that a renewal looks ahead.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels.operator import needs_reference

_MOST_WAITS = 1000  # five times what the longest mean needs, should rounding keep a sum below 1


def periods(mean_wait: float, mode: str) -> list[float]:
    """The probability that 1, 2, 3 ... steps lie between a draw and the next one."""
    if mode == "independent":
        return [1.0]
    poisson = [math.exp(-mean_wait)]
    while len(poisson) <= mean_wait or poisson[-1] > 1e-20:  # what is left out is less than 1e-19
        poisson.append(poisson[-1] * mean_wait / len(poisson))
    if mode == "wait":  # K silent steps and the one that fires
        return poisson
    return [poisson[0] + poisson[1], *poisson[2:]]  # the one that fires, or K silent steps


def cumulative(mean_wait: float) -> list[float]:
    """The probability of a wait of at most 0, 1, 2 ... steps, up to what a float32 takes for 1."""
    term = math.exp(-mean_wait)
    shares = [term]
    while shares[-1] < 1 - 2**-25 and len(shares) < _MOST_WAITS:
        term *= mean_wait / len(shares)
        shares.append(shares[-1] + term)
    return shares


def waits(uniform: Tensor, shares: Tensor) -> Tensor:
    """Waits in whole steps, as floats: a uniform number between the shares of 0 ... k - 1 and of
    0 ... k steps is a wait of k.

    Args:
        uniform: numbers from 0 to 1.
        shares: probability of a wait of at most 0, 1, 2 ... steps.
    """
    if needs_reference():  # `vmap` has no rule for bucketize, and warns
        return (uniform.unsqueeze(-1) >= shares).sum(-1).float()
    return torch.bucketize(uniform, shares, out_int32=True, right=True).float()


def constant(values: Sequence[float], like: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers on a device one by one: a literal would come to be on the CPU and be copied."""
    return torch.stack([like.new_full((), value, dtype=dtype) for value in values])


def first_due(periods: Sequence[float], device: torch.device) -> Tensor:
    """At the start of a window a draw is due at once: (R,)."""
    due = torch.zeros(len(periods), dtype=torch.float64, device=device)
    due[0] = 1.0
    return due


def renewals(due: Tensor, periods: Sequence[float], steps: int) -> tuple[Tensor, Tensor]:
    """(T,) probability of a draw at each of the next steps, and (R,) what is due after them.

    The renewal equation u(t) = sum over d of u(t - d) P(period = d), with what has been sent ahead
    in `due`, so that chunks of a window hand on no more than the longest period.
    """
    law = constant(periods, due, due.dtype)
    ahead = F.pad(due, (0, steps))
    if not steps or torch.compiler.is_compiling():
        for step in range(steps):
            ahead[step + 1 : step + 1 + len(law)].addcmul_(ahead[step], law)
    else:  # views made all at once: a window of thousands of steps is as many small operators
        reached = ahead[1:].unfold(0, len(law), 1).unbind()
        for now, later in zip(ahead.unbind()[:steps], reached, strict=False):
            later.addcmul_(now, law)
    return ahead[:steps], ahead[steps:].clone()
