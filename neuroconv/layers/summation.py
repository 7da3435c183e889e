"""Summation by the cell's type: laws, and from the dendrites' rates to the soma's current.

Shapes: B batch, N neurons, T time steps, D dendrites.
"""

import math
from typing import Annotated, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import Positive, Rule, checked
from neuroconv.core.cost import Cost

Law = Literal["linear", "sublinear", "supralinear", "sigmoidal"]
OldLaw = Literal["bistable"]
_NEW_NAMES: dict[str, Law] = {"bistable": "sigmoidal"}  # it keeps no memory of its level
Exponent = Annotated[float, Rule("above 1", lambda value: value > 1)]
_EXPONENTS = {"supralinear": 2.0, "sigmoidal": 4.0}


@checked
class SummationLaw(nn.Module):
    """Law of a cell's summation, as the base of the stages that sum.

    `DendriticRate` sums over the sites of a dendrite, `DendriticSummation` over the dendrites: each
    applies a law to its sums s, with the knee k. Every law is 0 at 0:

        linear       s. The essay's for Purkinje cells.
        sublinear    s / (1 + s / k), at most k. The steady potential that a conductance g drives in
                     a passive membrane of leak g_l toward a driving force E, E g / (g + g_l), with
                     s = E g / g_l and k = E: depolarisation spends its own driving force. Measured
                     in the thin dendrites of cerebellar stellate cells (Abrahamsson et al. 2012,
                     doi:10.1016/j.neuron.2012.01.027).
        supralinear  k (s / k)^p, p = 2 unless given. A power law, as threshold and noise give
                     cortical neurons on average (Miller and Troyer 2002, J. Neurophysiol.
                     87:653-659; Priebe and Ferster 2008, doi:10.1016/j.neuron.2008.02.005).
        sigmoidal    2 k s^n / (k^n + s^n), n = 4 unless given. A Hill function: near 0 below the
                     knee and near 2 k above, where it saturates. Inputs to one thin branch of a
                     pyramidal cell sum so (Polsky et al. 2004, doi:10.1038/nn1253), and sigmoidal
                     subunits predict its rate (Poirazi et al. 2003,
                     doi:10.1016/S0896-6273(03)00149-1). With u = s / k it equals the sum where
                     u^n - 2 u^(n-1) + 1 = 0: at s = k, for n = 4 also at 1.839 k (the tribonacci
                     constant). For n > 2 it is above the sum from k to that second point, below
                     2 k, and below the sum elsewhere; for n = 2 nowhere above; for n < 2 above from
                     a point below k to k. The essay's word is "bistable", less or more than the
                     sum by the inputs; but it keeps no memory of the level that it was at.

    The exponents, and the knee of 1, are defaults of this layer and not measurements. For the
    terms linear, sublinear and supralinear see Tran-Van-Minh et al. 2015,
    doi:10.3389/fncel.2015.00067: f(a + b) equal to, less or more than f(a) + f(b).

    Rates are not negative. Dendrites without their rectifier, the linear control, may send a
    negative sum: the linear law passes it on, the others take it as zero.

    Args:
        law: "linear", "sublinear", "supralinear" or "sigmoidal"; "bistable", its old name, is
            taken as "sigmoidal".
        knee: k, in units of s. Not for "linear".
        exponent: p or n, above 1. For "supralinear" and "sigmoidal" alone.
        learnable: learn the knee, as the exponential of `log_knee`, and the exponent where the law
            has one, as 1 + softplus of `exponent_logit`. The population shares them.

    Raises:
        ValueError: an unknown law, a number out of range, or one that the law does not have.
    """

    def __init__(
        self,
        law: Law | OldLaw = "linear",
        *,
        knee: Positive = 1.0,
        exponent: Exponent | None = None,
        learnable: bool = False,
    ) -> None:
        super().__init__()
        law = cast(Law, _NEW_NAMES.get(law, law))
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
        self.law: Law = law
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

    def law_flops(self, sums: int) -> int:
        """Counts the FLOPs of `law_of` on this number of sums."""
        law = {"linear": 0, "sublinear": 5, "supralinear": 4, "sigmoidal": 9}[self.law]
        # On the parameters: exp; softplus plus one; for the sigmoidal law a sign and a factor.
        learned = {"linear": 0, "sublinear": 1, "supralinear": 3, "sigmoidal": 5}[self.law]
        return sums * law + (learned if self.log_knee is not None else 0)

    def law_repr(self) -> str:
        """Returns the law with its numbers, for `extra_repr`."""
        if self.law == "linear":
            return ""
        knee, exponent = self._start
        power = "" if exponent is None else f", exponent={exponent:.6g}"
        learned = ", learnable" if self.log_knee is not None else ""
        return f", knee={knee:.6g}{power}{learned}"


@checked
class DendriticSummation(SummationLaw):
    """Sum of the dendrites' rates, passed through the law by which dendrites sum.

    The law acts across dendrites, on s = scale * sum of the rates. One that acts within each
    dendrite, whose results are then added, is `DendriticRate`'s.

    Args:
        law: a `SummationLaw`'s.
        scale: a constant factor. Populations pass 1 / dendrites, so that a cell of a thousand
            dendrites works in the same range as one of four; later weights absorb it.
        knee, exponent, learnable: of the law; see `SummationLaw`.

    Shape:
        rate (B, N, T, D) -> current (B, N, T)

    Raises:
        ValueError: an unknown law, a number out of range, or one that the law does not have.
    """

    kernel_stage: ClassVar[str] = "dendritic_summation"

    def __init__(
        self,
        law: Law | OldLaw = "linear",
        scale: Positive = 1.0,
        *,
        knee: Positive = 1.0,
        exponent: Exponent | None = None,
        learnable: bool = False,
    ) -> None:
        super().__init__(law, knee=knee, exponent=exponent, learnable=learnable)
        self.scale = scale

    def forward(self, rate: Tensor) -> Tensor:
        return self.law_of(rate.sum(-1) * self.scale)

    def closed_form(self, rate: torch.Size) -> tuple[Cost, ...]:
        """Counts the sum, its factor, and the law's operations on each sum."""
        sums = rate.numel() // rate[-1]
        return (Cost("dendritic summation", pointwise=rate.numel() + sums + self.law_flops(sums)),)

    def extra_repr(self) -> str:
        return f"{self.law}, scale={self.scale:.6g}{self.law_repr()}"
