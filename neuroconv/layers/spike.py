"""The dendritic spike: past a threshold, neighbouring branches are lifted toward the largest.

Shapes: P sites along a dendrite, D dendrites; any axes before them.
"""

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import NonNegative, Rule, Share, Size, checked
from neuroconv.core.cost import Cost
from neuroconv.core.layout import along_axis

Signal = Literal["max", "essay"]


Scalar = Annotated[
    Tensor, Rule("of floats without axes", lambda x: x.is_floating_point() and not x.dim())
]


@checked
def dendritic_spike(
    potential: Tensor,
    strength: Share | Scalar = 1.0,
    threshold: float | Scalar = 0.0,
    *,
    temperature: NonNegative = 0.0,
    window: Size | None = None,
    signal: Signal = "max",
) -> Tensor:
    """Lifts sites toward the maximum near them, where that maximum is above the threshold.

    With m the maximum near a site x, the result is x + strength * gate(m - threshold) * (m - x).

    Args:
        potential: (..., P, D).
        strength, threshold: numbers or scalar tensors; they and the others as in `DendriticSpike`.

    Returns:
        (..., P, D), in the potential's layout in memory.
    """
    if potential.dim() < 2 or not potential.shape[-2]:
        raise ValueError(
            f"potential has shape {tuple(potential.shape)}; expected (..., sites, dendrites) with "
            "at least one site"
        )
    if potential.shape[-2] == 1 or window == 1:
        return potential  # a site without neighbours: nothing to lift, no gradient to redirect

    def stage(sites: Tensor) -> Tensor:  # (before, P, after)
        detached = signal == "essay" and torch.is_grad_enabled()
        source = sites.detach() if detached else sites
        largest, argmax = _maximum(source, window)
        gate = (largest - threshold) / temperature if temperature else largest > threshold
        gate = gate.sigmoid() if temperature else gate
        lifted = _lift(source, largest, gate, strength)
        if not detached:
            return lifted
        columns = 1 if window is None else sites.shape[2]
        index = torch.arange(sites.shape[1] * columns, device=sites.device).view(-1, columns)
        passed = 1 - (argmax == index) * gate.detach().to(sites.dtype)
        # The subtrahend is exactly zero; its gradient is not.
        return lifted - (source - sites) * passed

    return along_axis(potential, -2, stage)


_spike: Any = vars(dendritic_spike)["__wrapped__"]  # for arguments that a constructor has checked


def _maximum(sites: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    """Returns the maximum near each site of (before, P, after), and the first site that holds it.

    Over the whole dendrite both are (before, 1, after), and the argmax is a site's number; over
    windows both are (before, P, after), and the argmax is an index into the P x after plane.
    """
    if window is None:
        largest, argmax = sites.max(1, keepdim=True)
        return largest, argmax
    largest, argmax = F.max_pool2d(
        sites, (window, 1), stride=1, padding=(window // 2, 0), return_indices=True
    )
    first = 1 - window % 2  # torch pads an even window by one too many, before the first site
    return largest[:, first:], argmax[:, first:]


def _lift(sites: Tensor, largest: Tensor, gate: Tensor, strength: float | Tensor) -> Tensor:
    """Moves sites toward the maximum; a fixed strength of 0 or 1 keeps the bits of one of them."""
    if not isinstance(strength, Tensor) and strength == 0:
        return sites
    if gate.dtype != torch.bool:
        return torch.lerp(sites, largest, (strength * gate).to(sites.dtype))
    if isinstance(strength, Tensor):
        largest = torch.lerp(sites, largest, strength.to(sites.dtype))
    elif strength != 1:
        largest = torch.lerp(sites, largest, strength)
    return torch.where(gate, largest, sites)


@checked
class DendriticSpike(nn.Module):
    """Spike of a dendrite: past a threshold, neighbouring branches are lifted toward the largest.

    The essay's analogue of max-pooling: a dendritic spike raises branches around it to nearly the
    level of the largest, in the same shape. At strength 1 with an open gate it is max-pooling,
    to the bit; at strength 0 it is the identity.

    Learning signals, which change the gradient alone:
        max: the gradient of the formula. At strength 1 the largest site gets all of it, as in
            max-pooling, and among equal ones the first.
        essay: the branch that spiked was active just now, so the signal that runs back into the
            tree does not enter it: it gets no gradient (under a soft gate, 1 - gate of it), and
            every other site the gradient of the identity, whatever the strength. A site has spiked
            if it is the maximum of its window, among equal ones the first, and the gate is open.
            Over a whole dendrite, hard and open, this is the complement of max-pooling. A learned
            strength or threshold keeps the formula's gradient. A site without neighbours, in a
            dendrite or a window of one, is left alone, and its gradient is the identity's.

    Args:
        strength: how far toward the maximum, from 0 to 1.
        threshold: where channels open, in the potential's units.
        temperature: 0 is a hard gate, open (1) for m > threshold and else closed (0); above 0 it is
            sigmoid((m - threshold) / temperature), in the potential's units.
        window: sites whose maximum m counts: (window - 1) // 2 before a site and the rest after,
            cut off at the dendrite's ends. None takes the whole dendrite.
        signal: the learning signal, "max" or "essay".
        learn_strength: learn the strength, as the sigmoid of the parameter `pull_logit`.
        learn_threshold: learn the threshold, the parameter `threshold`.

    Shape:
        potential (..., P, D) -> the same: sheets (B, N, T, P, D), maps (B, U, T, H, W)

    Raises:
        ValueError: a number out of range, an unknown signal, a learned strength that starts at 0 or
            1, a learned threshold under a hard gate; at the call, fewer than two axes.
    """

    threshold: float | nn.Parameter

    def __init__(
        self,
        strength: Share = 1.0,
        threshold: float = 0.0,
        *,
        temperature: NonNegative = 0.0,
        window: Size | None = None,
        signal: Signal = "max",
        learn_strength: bool = False,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__()
        if learn_strength and not 0 < strength < 1:
            raise ValueError(
                f"strength={strength!r} with learn_strength=True; expected a start strictly "
                "between 0 and 1, for example 0.9: it is learned as a sigmoid's logit"
            )
        if learn_threshold and not temperature:
            raise ValueError(
                "learn_threshold=True with temperature=0; a hard gate passes no gradient to its "
                "threshold: set temperature above 0"
            )
        self.temperature, self.window, self.signal = temperature, window, signal
        self._start = (strength, threshold)
        # Named as in the checkpoints of version 0.4.0.
        self.pull_logit = nn.Parameter(torch.empty(())) if learn_strength else None
        self.threshold = nn.Parameter(torch.empty(())) if learn_threshold else float(threshold)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets learned parameters to the constructor's strength and threshold."""
        strength, threshold = self._start
        if self.pull_logit is not None:
            nn.init.constant_(self.pull_logit, math.log(strength / (1 - strength)))
        if isinstance(self.threshold, nn.Parameter):
            nn.init.constant_(self.threshold, threshold)

    @property
    def strength(self) -> float | Tensor:
        return self._start[0] if self.pull_logit is None else self.pull_logit.sigmoid()

    def forward(self, potential: Tensor) -> Tensor:
        return _spike(
            potential, self.strength, self.threshold, temperature=self.temperature,
            window=self.window, signal=self.signal,
        )  # fmt: skip

    def closed_form(self, potential: torch.Size) -> tuple[Cost, ...]:
        """Counts the comparisons for the maximum, the operations of the gate, and the lift."""
        sites, points = potential[-2], potential.numel()
        learned = self.pull_logit is not None
        if sites == 1 or self.window == 1:
            return (Cost("dendritic spike", pointwise=learned),)
        if self.window is None:
            flops, gates = points, points // sites
        else:
            even = 1 - self.window % 2
            flops, gates = points // sites * (sites + even) * self.window, points
        moves = learned or self._start[0] > 0
        if self.temperature:
            flops += gates * (3 + moves) + points * moves
        else:
            partial = learned or 0 < self._start[0] < 1
            flops += gates + points * (moves + partial)
        return (Cost("dendritic spike", pointwise=flops + learned),)

    def extra_repr(self) -> str:
        strength, threshold = self._start
        return (
            f"strength={strength}, threshold={threshold}, temperature={self.temperature}, "
            f"window={self.window}, signal={self.signal!r}, "
            f"learn_strength={self.pull_logit is not None}, "
            f"learn_threshold={isinstance(self.threshold, nn.Parameter)}"
        )
