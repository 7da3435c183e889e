"""Waiting periods between draws as a renewal process.

Shapes: T time steps, R steps of the longest period.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels.operator import needs_reference

_MOST_WAITS = 1000  # five times what the longest mean needs, should rounding keep a sum below 1


def periods(mean_wait: float, mode: str) -> list[float]:
    """Returns the probabilities of 1, 2, 3 ... steps from a draw to the next."""
    if mode == "independent":
        return [1.0]
    poisson = [math.exp(-mean_wait)]
    while len(poisson) <= mean_wait or poisson[-1] > 1e-20:  # the tail is below 1e-19
        poisson.append(poisson[-1] * mean_wait / len(poisson))
    if mode == "wait":  # K silent steps and one that fires
        return poisson
    return [poisson[0] + poisson[1], *poisson[2:]]  # one that fires, or K silent steps


def cumulative(mean_wait: float) -> list[float]:
    """Returns the probabilities of a wait of at most 0, 1, 2 ... steps, up to 1 in float32."""
    term = math.exp(-mean_wait)
    shares = [term]
    while shares[-1] < 1 - 2**-25 and len(shares) < _MOST_WAITS:
        term *= mean_wait / len(shares)
        shares.append(shares[-1] + term)
    return shares


def waits(uniform: Tensor, shares: Tensor) -> Tensor:
    """Draws waits in whole steps, as floats, from numbers from 0 to 1 by inverting `cumulative`."""
    if needs_reference():  # `vmap` has no rule for bucketize, and warns
        return (uniform.unsqueeze(-1) >= shares).sum(-1).float()
    return torch.bucketize(uniform, shares, out_int32=True, right=True).float()


def constant(values: Sequence[float], like: Tensor, dtype: torch.dtype) -> Tensor:
    """Creates numbers on the device of `like`: a literal would be copied there from the CPU."""
    return torch.stack([like.new_full((), value, dtype=dtype) for value in values])


def first_due(periods: Sequence[float], device: torch.device) -> Tensor:
    """Returns the due draws at the start of a window, (R,): one at once."""
    due = torch.zeros(len(periods), dtype=torch.float64, device=device)
    due[0] = 1.0
    return due


def renewals(due: Tensor, periods: Sequence[float], steps: int) -> tuple[Tensor, Tensor]:
    """Computes the probability of a draw at the next steps, (T,), and due draws after them, (R,).

    Solves the renewal equation u(t) = sum over d of u(t - d) P(period = d). The probabilities that
    earlier draws send ahead are in `due`, the only state between chunks of a window.
    """
    law = constant(periods, due, due.dtype)
    ahead = F.pad(due, (0, steps))
    if not steps or torch.compiler.is_compiling():
        for step in range(steps):
            ahead[step + 1 : step + 1 + len(law)].addcmul_(ahead[step], law)
    else:  # all views at once: thousands of steps are thousands of small operators
        reached = ahead[1:].unfold(0, len(law), 1).unbind()
        for now, later in zip(ahead.unbind()[:steps], reached, strict=False):
            later.addcmul_(now, law)
    return ahead[:steps], ahead[steps:].clone()
