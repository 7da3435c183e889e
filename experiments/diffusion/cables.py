"""Cables: simulated on a fine grid, and as filters whose constants are found by gradient descent.

A filter of `STEPS` x `BRANCHES` taps reaches from one end of the recorded cable to the other and
back to its first step, so that nothing of the response is cut off. R filters are one tensor
(R, STEPS * BRANCHES). All losses are quadratic in the taps: the recordings enter by their Gram
matrix and their products with the potential alone. Everything is float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from neuroconv.layers import cable_taps

SITE_UM, STEP_MS, SITES, STEPS = 100.0, 1.0, 12, 16
BRANCHES = 2 * SITES - 1
Model = Callable[[Tensor, Tensor], Tensor]  # length and time constants (R,) -> filters


def simulate(
    charge: Tensor, length_um: float, time_ms: float, parts: int, margin: int = 8
) -> Tensor:
    """Returns the charge on each site in the middle of each step, exactly in time.

    Args:
        charge: impulses into the middle of sites at the beginning of steps.
        parts: compartments of a site, an odd number.
        margin: sites beyond the recorded ones at either end, which is sealed.

    Shape:
        (N, STEPS, SITES) -> (N, STEPS, SITES)
    """
    identity = torch.eye((SITES + 2 * margin) * parts, dtype=torch.float64)
    shifted = torch.roll(identity, 1, 0)
    shifted[0, -1] = 0
    neighbours = shifted + shifted.T
    second = neighbours - torch.diag(neighbours.sum(0))  # no current leaves the ends
    rate = ((length_um * parts / SITE_UM) ** 2 * second - identity) / time_ms
    half_step = torch.matrix_exp(rate * STEP_MS / 2)
    middles = (margin + torch.arange(SITES)) * parts + parts // 2
    state, recorded = charge.new_zeros(len(charge), len(identity)), []
    for step in range(STEPS):
        state[:, middles] += charge[:, step]
        state = state @ half_step
        by_site = state.unflatten(1, (-1, parts)).sum(2)
        recorded.append(by_site[:, margin : margin + SITES])
        state = state @ half_step
    return torch.stack(recorded, 1)


def cable(length_um: Tensor, time_ms: Tensor) -> Tensor:
    """Returns the filters of infinite cables."""
    constants = length_um[:, None, None], time_ms[:, None, None]
    return cable_taps(*constants, SITE_UM, STEP_MS, BRANCHES, STEPS).flatten(1)


def euler(length_um: Tensor, time_ms: Tensor, parts: int = 1) -> Tensor:
    """Returns those of Euler's explicit scheme, two steps to a time step, `parts` to a site."""
    state = torch.zeros(len(length_um), (BRANCHES + 2 * STEPS) * parts, dtype=torch.float64)
    state[:, state.shape[1] // 2] = 1
    spread = (length_um * parts / SITE_UM).square()[:, None]
    recorded = []
    for step in range(2 * STEPS - 1):
        ends = F.pad(state[:, None], (1, 1), mode="replicate")[:, 0]
        second = ends[:, 2:] - 2 * state + ends[:, :-2]
        state = state + STEP_MS / 2 / time_ms[:, None] * (spread * second - state)
        if step % 2 == 0:
            recorded.append(state.unflatten(1, (-1, parts)).sum(2)[:, STEPS:-STEPS])
    return torch.stack(recorded[::-1], 1).flatten(1)


def windows(charge: Tensor) -> Tensor:
    """Returns what a filter reads for each sample: (N, STEPS, SITES) -> (samples, taps)."""
    padded = F.pad(charge, (SITES - 1, SITES - 1, STEPS - 1, 0))
    return padded.unfold(1, STEPS, 1).unfold(2, BRANCHES, 1).flatten(3).flatten(0, 2)


def draw_charge(recordings: int, generator: torch.Generator) -> Tensor:
    """Returns impulses of normal size at a quarter of all sites and steps (N, STEPS, SITES)."""
    shape = recordings, STEPS, SITES
    size = torch.randn(shape, generator=generator, dtype=torch.float64)
    return size * (torch.rand(shape, generator=generator) < 0.25)


def information(constants: Tensor, seen: Tensor) -> Tensor:
    """Returns Fisher's information (2, 2) about the constants' logarithms, at unit noise."""
    slopes = torch.autograd.functional.jacobian(
        lambda logs: cable(*logs.exp()[:, None])[0], constants.log()
    )
    return (seen @ slopes).T @ (seen @ slopes)


def fit_constants(model: Model, gram: Tensor, cross: Tensor, steps: int) -> Tensor:
    """Descends from one site and ten steps, on their logarithms, to the constants of R recordings.

    Shape:
        gram (taps, taps), cross (taps, R) -> (R, 2)
    """
    logs = torch.tensor([[SITE_UM, 10 * STEP_MS]], dtype=torch.float64).log()
    logs = logs.repeat(cross.shape[1], 1).requires_grad_()
    optimizer = torch.optim.Adam([logs], lr=0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        optimizer.zero_grad()
        taps = model(*logs.exp().unbind(1))
        ((taps @ gram * taps).sum() - 2 * (taps * cross.T).sum()).backward()
        optimizer.step()
    return logs.detach().exp()


def fit_filter(gram: Tensor, cross: Tensor, steps: int) -> Tensor:
    """Descends from zero to the taps of a free filter, with Nesterov's momentum: (taps,)."""
    rate = 1 / torch.linalg.eigvalsh(gram)[-1]
    taps = ahead = torch.zeros_like(cross)
    for step in range(steps):
        before, taps = taps, ahead - rate * (gram @ ahead - cross)
        ahead = taps + step / (step + 3) * (taps - before)
    return taps
