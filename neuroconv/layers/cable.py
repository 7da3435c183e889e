"""The passive cable: how charge that enters a dendrite spreads along it and leaks out.

    tau dV/dt = lambda^2 d2V/dx2 - V

Sources of the equation and of its Green's function on an infinite cable: C. Koch, Biophysics of
Computation (1999), chapter 2, doi:10.1093/oso/9780195104912.001.0001; W. Gerstner, W. M. Kistler,
R. Naud and L. Paninski, Neuronal Dynamics (2014), section 3.2, doi:10.1017/CBO9781107447615.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroconv.core.arguments import Positive, Size, checked


@checked
@dataclass(frozen=True)
class Cable:
    """A uniform, passive, infinitely long dendrite, sampled at a sheet's sites and time steps.

    Attributes:
        length_constant_um: lambda, in micrometres: a steady potential falls to 1/e at this
            distance from its source.
        time_constant_ms: tau, R_m C_m of the membrane, in milliseconds: an even potential without
            input falls to 1/e in this time.
        site_um: length of dendrite that one site of the sheet stands for, in micrometres.
        step_ms: length of a time step, in milliseconds.

    Raises:
        ValueError: a number, or a size of `taps`, that is not positive and finite.
    """

    length_constant_um: Positive
    time_constant_ms: Positive
    site_um: Positive
    step_ms: Positive

    def green(self, distance_um: Tensor, time_ms: Tensor) -> Tensor:
        """Returns the potential after a unit impulse at distance 0 and time 0, in 1 / micrometre.

        With X = x / lambda and T = t / tau it is exp(-X^2 / 4T - T) / (lambda sqrt(4 pi T)): a
        Gaussian of variance 2 lambda^2 T under which exp(-T) of the impulse is left. Before the
        impulse it is zero. At time 0, where it is Dirac's delta, zero is returned too.

        Shape:
            two real tensors that broadcast -> their broadcast shape, in their floating dtype
        """
        distance, time = distance_um / self.length_constant_um, time_ms / self.time_constant_ms
        after = time > 0
        time = torch.where(after, time, 1)  # so that no gradient meets a division by zero
        height = torch.exp(-distance.square() / (4 * time) - time)
        width = self.length_constant_um * torch.sqrt(4 * math.pi * time)
        return torch.where(after, height / width, 0)

    @checked
    def taps(self, branches: Size, time_steps: Size) -> Tensor:
        """Returns the Green's function as taps of a filter along one dendrite, in torch's order.

        A tap is the share of a unit charge, put on the middle of one site, that lies on the site
        `offset` sites away once `lag` steps have passed: the Green's function integrated over that
        site, exactly, by the error function. It is taken in the middle of each time step, at
        (lag + 1/2) step_ms, since at the beginning of the present one it is still a point.

        The taps of one lag sum to at most exp(-(lag + 1/2) step_ms / time_constant_ms); the rest
        has leaked out or has spread past the filter's ends, and is lost. Over many lags the sum
        may exceed 1, since charge that lingers is seen at each step: about tau / step_ms in all.

        Args:
            branches: taps along the dendrite. Of them (branches - 1) // 2 lie before the middle
                one, as "same" padding has it.
            time_steps: taps in time. The last one applies to the present, lag 0.

        Returns:
            (time_steps, branches), float64.
        """
        return cable_taps(
            self.length_constant_um, self.time_constant_ms, self.site_um, self.step_ms,
            branches, time_steps,
        )  # fmt: skip


def cable_taps(
    length_constant_um: float | Tensor,
    time_constant_ms: float | Tensor,
    site_um: float,
    step_ms: float,
    branches: int,
    time_steps: int,
) -> Tensor:
    """Returns `Cable.taps` as a differentiable function of the two constants.

    Shape:
        numbers, or float64 tensors that broadcast with (time_steps, branches) -> (..., time_steps,
        branches), float64
    """
    offset = torch.arange(branches, dtype=torch.float64) - (branches - 1) // 2
    lag = torch.arange(time_steps - 1, -1, -1, dtype=torch.float64).unsqueeze(1)
    time = (lag + 0.5) * step_ms / time_constant_ms
    sites = 2 * time.sqrt() * length_constant_um / site_um
    # A difference of erfc keeps its digits far out, where erf itself rounds to 1.
    beyond_near_end = torch.erfc((offset.abs() - 0.5) / sites)
    beyond_far_end = torch.erfc((offset.abs() + 0.5) / sites)
    return (beyond_near_end - beyond_far_end) / 2 * torch.exp(-time)
