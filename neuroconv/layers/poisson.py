"""Stochastic axons: waiting periods before a neuron fires, and spike counts.

Shapes: B batch, N neurons, T time steps, R steps that a renewal looks ahead.
"""

import math
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import Positive, Rule, checked
from neuroconv.core.checks import check_floats
from neuroconv.core.cost import Cost
from neuroconv.kernels import renewals
from neuroconv.kernels.constants import numbers

DropoutMode = Literal["wait", "redraw", "independent"]
DropoutScope = Literal["neuron", "unit"]
DropoutClock = Literal["steps", "activity"]

_LONGEST = -math.log(torch.finfo(torch.float32).tiny)
MeanWait = Annotated[
    float,
    Rule(
        f"of time steps from 0 to {_LONGEST:.2f}: rates are divided by exp(-mean_wait), the "
        "probability of firing at once, which beyond that is no normal float32 number",
        lambda value: 0 <= value <= _LONGEST,
    ),
]


class DropoutState(NamedTuple):
    """The waiting periods of neurons, between two stretches of a window.

    Attributes:
        waiting: (B, N, ...) whole time steps that each neuron still waits.
        due: (R,) float64, the probability that the next period is drawn in 0, 1 ... R - 1 steps,
            over all draws up to now: from it follows each step's probability of firing.
        probability: by the clock "activity", (S,) float64: that of each neuron's first S active
            steps, where S time steps have passed; else None.
        active: by the clock "activity", (B, N, ...) active steps of each neuron; else None.
    """

    waiting: Tensor
    due: Tensor
    probability: Tensor | None = None
    active: Tensor | None = None


class Waiting(nn.Module):
    """The base of stages whose neurons wait, but keep their mean rate; streams over stretches."""

    scope: DropoutScope
    clock: DropoutClock = "steps"
    law: renewals.FiringLaw
    awake: ClassVar[tuple[int, torch.dtype]]  # the steps to wait at the start of a window
    gates: ClassVar[bool]  # whether neurons also wait in evaluation

    def __init__(self, mean_wait: float) -> None:
        super().__init__()
        self.mean_wait = mean_wait

    @property
    def acts(self) -> bool:
        """Whether it drops anything: in training, unless `mean_wait` is 0."""
        return self.training and self.mean_wait != 0

    def forward(self, rate: Tensor) -> Tensor:
        return self.stream(rate)[0]

    def stream(
        self, rate: Tensor, state: DropoutState | None = None
    ) -> tuple[Tensor, DropoutState | None]:
        """Runs over a stretch; consecutive stretches equal the whole window, draw for draw.

        Args:
            rate: (B, N, T, ...), any number of steps.
            state: after the stretch before; None begins a window.
        """
        if rate.dim() < 3 or not rate.is_floating_point():
            raise ValueError(
                f"rate of {rate.dtype} has shape {tuple(rate.shape)}; expected floats of (batch, "
                "neurons, time_steps)"
            )
        if rate.shape[2] == 0 or not (self.acts or self.gates):
            return rate, state
        cells = (*rate.shape[:2], *(rate.shape[3:] if self.scope == "unit" else ()))
        active = self._active(rate)
        starts = state is None
        if state is None:
            state = self._first_state(rate, cells)
        elif tuple(state.waiting.shape) != cells:
            raise ValueError(
                f"state.waiting has shape {tuple(state.waiting.shape)}; expected {cells} as the "
                "rate: pass the state after this window's last stretch, or None to begin a window"
            )
        elif (state.active is None) != (active is None):
            raise ValueError(
                f"state is of a stage of another clock, expected clock={self.clock!r}; pass the "
                "state after this window's last stretch, or None to begin a window"
            )
        fired, waiting = self._fired(rate, state.waiting, active)
        if not self.acts:
            return rate * fired, state._replace(waiting=waiting)
        # In half precision the probability itself would be off by up to 0.4 %, and so the mean.
        exact = torch.promote_types(rate.dtype, torch.float32)
        if starts:
            probability, due, scale = renewals.firing_from_start(
                self.law, rate.shape[2], exact, rate.device
            )
        else:
            probability, due = renewals.firing(state.due, self.law, rate.shape[2])
            if state.probability is not None:
                probability = torch.cat([state.probability, probability])
            scale = renewals.reciprocal(probability, exact)
        if active is None or state.active is None:
            scale, state = scale.view(-1, *[1] * (fired.dim() - 3)), DropoutState(waiting, due)
            if rate.dtype != exact:  # in place the exact product is rounded, but never written
                fired, scale = (
                    x.view(*x.shape, *[1] * (rate.dim() - fired.dim())) for x in (fired, scale)
                )
                return (rate * fired).mul_(scale), state
            gate = fired * scale
        else:
            number = state.active.unsqueeze(2) + active.cumsum(2)  # 1 is the first active step
            gate = torch.where(active, fired * scale[(number - 1).clamp(min=0)], 1)
            state = DropoutState(waiting, due, probability, number[:, :, -1])
        gate = gate.view(*gate.shape, *[1] * (rate.dim() - gate.dim()))
        return (rate * gate).to(rate.dtype), state

    def firing_probability(self, time_steps: int) -> list[float]:
        """Returns the probability that a neuron of positive rate fires at a window's steps."""
        first = renewals.first_due(self.law[0], torch.device("cpu"))
        return renewals.firing(first, self.law, time_steps)[0].tolist()

    def _active(self, rate: Tensor) -> Tensor | None:
        """Returns the steps (B, N, T, ...) in which waits pass; None where they pass in all."""
        if self.clock == "steps":
            return None
        active = rate != 0
        return active.flatten(3).any(3) if self.scope == "neuron" and rate.dim() > 3 else active

    def _first_state(self, rate: Tensor, cells: tuple[int, ...]) -> DropoutState:
        steps, dtype = self.awake
        waiting = rate.new_full(cells, steps, dtype=dtype)
        due = renewals.first_due(self.law[0], rate.device)
        if self.clock == "steps":
            return DropoutState(waiting, due)
        return DropoutState(waiting, due, due[:0], waiting.new_zeros(cells, dtype=torch.int64))

    def _fired(self, rate: Tensor, waiting: Tensor, active: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns where (B, N, T, ...) it fires, and the steps still to wait after that."""
        raise NotImplementedError


@checked
class PoissonDropout(Waiting):
    """Dropout of a neuron for waiting periods K ~ Poisson(mean_wait), which keeps its mean rate.

    Modes, with the share of steps in which a neuron fires in the long run (l the mean_wait):
        wait: draw K, stay silent for K steps, fire, draw again: 1 / (1 + l), 0.667 at 0.5. The
            essay's (Dettmers 2015: its figure of a Poisson(0.5) distribution gives "the waiting
            time before firing").
        redraw: draw K; fire if it is 0, else stay silent for K steps; draw again:
            exp(-l) / (exp(-l) + l), 0.548 at 0.5.
        independent: at each step, fire if K = 0: exp(-l), 0.607 at 0.5. This is ordinary dropout
            with probability 1 - exp(-l), 0.393.

    Clocks, by which waits pass:
        steps: in every time step, also while the neuron is silent: a wait may end before the rate
            rises, or have begun before. The default.
        activity: in the steps alone in which the rate is not zero. The first wait begins with the
            first of them, as in the essay: a neuron that draws 2 does not fire for two periods in
            which it could physically fire. In silent steps nothing is drawn or waited for.

    In training every step is divided by its probability of firing, by the clock "activity" that of
    the neuron's n-th active step, so that the expected rate is kept from the first step on. In
    evaluation it is the identity, and returns its state unchanged.
    Draws come from torch's default generator of the input's device: seed each rank of a distributed
    run differently.

    Args:
        mean_wait: mean of the waiting periods in time steps, the Poisson distribution's lambda.
            0 is the identity. A neuron with a long one hardly ever fires at first, and is scaled
            up accordingly: in float16, which ends at 65504, from about 11 on beyond all bounds.
        mode: "wait", "redraw" or "independent".
        scope: of a draw, where axes follow the time steps. "neuron": it silences the neuron in all
            of them; "unit": each further position has its own draws.
        clock: "steps" or "activity". With the scope "neuron" a neuron is active where any of its
            further positions is.

    Shape:
        rate (B, N), (B, N, T) or (B, N, T, ...) -> the same

    Raises:
        ValueError: a mean_wait that is negative or too long for float32 (from 87.4 on), or an
            unknown mode, scope or clock; at the call, another shape.
    """

    awake, gates = (-1, torch.float32), False

    def __init__(
        self,
        mean_wait: MeanWait = 0.5,
        mode: DropoutMode = "wait",
        scope: DropoutScope = "neuron",
        clock: DropoutClock = "steps",
    ) -> None:
        super().__init__(mean_wait)
        self.mode, self.scope, self.clock = mode, scope, clock
        # Below this many steps of waiting a period is drawn: "wait" counts past the firing at 0.
        self.draw_below = {"wait": 0.0, "redraw": 1.0, "independent": math.inf}[mode]
        share = None if mode == "wait" else math.exp(-mean_wait)
        self.law = (renewals.periods(mean_wait, mode), share)
        self.shares = renewals.cumulative(mean_wait)

    def forward(self, rate: Tensor) -> Tensor:
        return self(rate.unsqueeze(2)).squeeze(2) if rate.dim() == 2 else self.stream(rate)[0]

    def _fired(self, rate: Tensor, waiting: Tensor, active: Tensor | None) -> tuple[Tensor, Tensor]:
        steps, cells = rate.shape[2], waiting.shape
        # All steps' draws at once, the steps one after another as single calls would draw them. The
        # mean being the same for all, this takes less than half the time of torch.poisson.
        uniform = torch.rand(steps, *cells, device=rate.device)
        draws = renewals.waits(uniform, numbers(self.shares, torch.float32, rate.device))
        now = torch.arange(steps, dtype=torch.float32, device=rate.device)
        now = now.view(-1, *[1] * len(cells))
        clock: Any = range(steps)
        passed: Any = steps
        if active is not None:
            number = active.movedim(2, 0).cumsum(0)
            # NaN at silent steps, to which no comparison holds: they neither draw nor fire.
            now = torch.where(active.movedim(2, 0), number - 1.0, math.nan)
            clock, passed = now.unbind(), number[-1]
        # Counted from the window's start: the step at which a neuron fires if it draws now.
        draws = draws + now
        fires, firing_steps = waiting, []
        for step, draw in zip(clock, draws.unbind(), strict=True):
            fires = torch.where(fires < step + self.draw_below, draw, fires)
            firing_steps.append(fires)
        return torch.stack(firing_steps, 2) == now.movedim(0, 2), fires - passed

    def closed_form(self, rate: torch.Size) -> tuple[Cost, ...]:
        """Returns no rows: in evaluation it is the identity."""
        return (Cost("dropout"),)

    def extra_repr(self) -> str:
        clock = "" if self.clock == "steps" else f", clock={self.clock!r}"
        return f"mean_wait={self.mean_wait}, mode={self.mode!r}, scope={self.scope!r}{clock}"


@checked
class PoissonSpikes(nn.Module):
    """Spike counts ~ Poisson(rate * dt), with a straight-through gradient.

    In training the counts are drawn, in float32, and the gradient is that of their mean: dt. In
    evaluation the mean itself, rate * dt, is passed on. Rates come after the rectifier and are not
    negative; a negative one counts as none, in both.

    Args:
        dt: length of a time step, in the unit whose inverse the rate is in.

    Shape:
        rate, any shape -> counts, the same

    Raises:
        ValueError: a dt that is not a positive finite number.
    """

    def __init__(self, dt: Positive = 1.0) -> None:
        super().__init__()
        self.dt = dt

    def forward(self, rate: Tensor) -> Tensor:
        check_floats("rate", rate)
        exact = torch.promote_types(rate.dtype, torch.float32)
        mean = torch.where(rate < 0, 0, rate.to(exact)) * self.dt
        if self.training:
            # The difference is exactly zero, so that counts stay whole; it carries the gradient.
            mean = torch.poisson(mean.detach()) + (mean - mean.detach())
        return mean.to(rate.dtype)

    def stream(self, rate: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Runs `forward`: the steps are independent, and the state is None."""
        return self(rate), state

    def closed_form(self, rate: torch.Size) -> tuple[Cost, ...]:
        """Counts a comparison, a selection and the product with dt for each number."""
        return (Cost("spikes", pointwise=3 * rate.numel()),)

    def extra_repr(self) -> str:
        return f"dt={self.dt:g}"
