"""Dendritic summation: from the dendrites' rates to the soma's current, by the cell's type.

Shapes: B batch, N neurons, T time steps, D dendrites.
"""

import math
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.checks import check_choice, check_number
from neuroconv.core.cost import Cost

Law = Literal["linear", "sublinear", "supralinear", "bistable"]
LAWS: tuple[str, ...] = get_args(Law)
_EXPONENTS = {"supralinear": 2.0, "bistable": 4.0}


class DendriticSummation(nn.Module):
    """Sum of the dendrites' rates, passed through the law of the cell's type.

    With s = scale * sum of the rates and k the knee, every law is 0 at 0:

        linear       s. The essay's for Purkinje cells.
        sublinear    s / (1 + s / k), at most k. The steady potential that a conductance g drives in
                     a passive membrane of leak g_l toward a driving force E, E g / (g + g_l), with
                     s = E g / g_l and k = E: depolarisation spends its own driving force. Measured
                     in the thin dendrites of cerebellar stellate cells (Abrahamsson et al. 2012,
                     doi:10.1016/j.neuron.2012.01.027).
        supralinear  k (s / k)^p, p = 2 unless given. A power law, as threshold and noise give
                     cortical neurons on average (Miller and Troyer 2002, J. Neurophysiol.
                     87:653-659; Priebe and Ferster 2008, doi:10.1016/j.neuron.2008.02.005).
        bistable     2 k s^n / (k^n + s^n), n = 4 unless given. A Hill function: near 0 below the
                     knee and near 2 k above, where it saturates; it equals the sum at s = k.
                     Less than the sum for small inputs and for very large ones, more than it
                     between (for n > 2). Sigmoidal subunits predict a pyramidal cell's rate
                     (Poirazi et al. 2003, doi:10.1016/S0896-6273(03)00149-1). It has the two levels
                     of a bistable dendrite, not its memory of the current one.

    The exponents, and the knee of 1, are defaults of this layer and not measurements. For the
    terms linear, sublinear and supralinear see Tran-Van-Minh et al. 2015,
    doi:10.3389/fncel.2015.00067: f(a + b) equal to, less or more than f(a) + f(b).

    Rates are not negative. Dendrites without their rectifier, the linear control, may send a
    negative sum: the linear law passes it on, the others take it as zero.

    Args:
        law: "linear", "sublinear", "supralinear" or "bistable".
        scale: a constant factor. Populations pass 1 / dendrites, so that a cell of a thousand
            dendrites works in the same range as one of four; later weights absorb it.
        knee: k, in units of s. Not for "linear".
        exponent: p or n, above 1. For "supralinear" and "bistable" alone.
        learnable: learn the knee, as the exponential of `log_knee`, and the exponent where the law
            has one, as 1 + softplus of `exponent_logit`. The population shares them.

    Shape:
        rate (B, N, T, D) -> current (B, N, T)

    Raises:
        ValueError: an unknown law, a number out of range, or one that the law does not have.
    """

    kernel_stage: ClassVar[str] = "dendritic_summation"

    def __init__(
        self,
        law: Law = "linear",
        scale: float = 1.0,
        *,
        knee: float = 1.0,
        exponent: float | None = None,
        learnable: bool = False,
    ) -> None:
        super().__init__()
        check_choice("law", law, LAWS)
        check_number("scale", scale)
        check_number("knee", knee)
        if law == "linear" and (learnable or knee != 1):
            raise ValueError(
                f"law='linear' with knee={knee}, learnable={learnable}; a sum has no knee and "
                "nothing to learn: leave both out or choose another law"
            )
        if exponent is None:
            exponent = _EXPONENTS.get(law)
        elif law not in _EXPONENTS:
            raise ValueError(
                f"exponent={exponent!r} with law={law!r}; it is for {' and '.join(_EXPONENTS)}: "
                "leave it out"
            )
        if exponent is not None:
            check_number("exponent", exponent, low=1)
        self.law, self.scale = law, scale
        self._start = (knee, exponent)
        self.log_knee = nn.Parameter(torch.empty(())) if learnable else None
        learns_exponent = learnable and exponent is not None
        self.exponent_logit = nn.Parameter(torch.empty(())) if learns_exponent else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets learned parameters to the constructor's knee and exponent."""
        knee, exponent = self._start
        if self.log_knee is not None:
            nn.init.constant_(self.log_knee, math.log(knee))
        if self.exponent_logit is not None and exponent is not None:
            excess = exponent - 1  # the inverse of softplus
            nn.init.constant_(self.exponent_logit, excess + math.log(-math.expm1(-excess)))

    @property
    def knee(self) -> float | Tensor:
        return self._start[0] if self.log_knee is None else self.log_knee.exp()

    @property
    def exponent(self) -> float | Tensor | None:
        if self.exponent_logit is None:
            return self._start[1]
        return 1 + F.softplus(self.exponent_logit)

    def forward(self, rate: Tensor) -> Tensor:
        return self.law_of(rate.sum(-1) * self.scale)

    def law_of(self, total: Tensor) -> Tensor:
        """Applies the law alone to sums s of any shape."""
        if self.law == "linear":
            return total
        knee, exponent = self.knee, self.exponent
        knees = total.relu() / knee
        if exponent is None:
            return knees / (1 + knees) * knee
        if self.law == "supralinear":
            return knees.pow(exponent) * knee
        # The Hill function without intermediate values above one, so that none overflows. At one,
        # minimum and maximum halve the gradient between them, which makes it the right one.
        unit = knees.new_ones(())
        rising = torch.minimum(knees, unit).pow(exponent)
        falling = torch.maximum(knees, unit).pow(-exponent)
        return rising / (rising + falling) * (2 * knee)

    def closed_form(self, rate: torch.Size) -> tuple[Cost, ...]:
        """Counts the sum, its factor, and the law's operations on each sum."""
        sums = rate.numel() // rate[-1]
        return (Cost("dendritic summation", pointwise=rate.numel() + sums + self.law_flops(sums)),)

    def law_flops(self, sums: int) -> int:
        """Counts the FLOPs of `law_of` on this number of sums."""
        law = {"linear": 0, "sublinear": 5, "supralinear": 4, "bistable": 9}[self.law]
        # On the parameters: exp; softplus plus one; for the bistable law a sign and a factor.
        learned = {"linear": 0, "sublinear": 1, "supralinear": 3, "bistable": 5}[self.law]
        return sums * law + (learned if self.log_knee is not None else 0)

    def extra_repr(self) -> str:
        if self.law == "linear":
            return f"linear, scale={self.scale:.6g}"
        knee, exponent = self._start
        power = "" if exponent is None else f", exponent={exponent:.6g}"
        learned = ", learnable" if self.log_knee is not None else ""
        return f"{self.law}, scale={self.scale:.6g}, knee={knee:.6g}{power}{learned}"
