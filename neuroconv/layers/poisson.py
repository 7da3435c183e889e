"""Stochastic axons: waiting periods before a neuron fires, release or sleep, and spike counts.

Shapes: B batch, N neurons, T time steps, R steps that a renewal looks ahead.
"""

import math
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from neuroconv.core.checks import check_choice, check_number
from neuroconv.core.cost import Cost
from neuroconv.kernels.renewals import constant, cumulative, first_due, periods, renewals, waits

DropoutMode = Literal["wait", "redraw", "independent"]
DropoutScope = Literal["neuron", "unit"]

# Rates are divided by exp(-mean_wait), in float32: below this the divisor is subnormal.
_LEAST_PROBABILITY = torch.finfo(torch.float32).tiny


class DropoutState(NamedTuple):
    """The waiting periods of neurons, between two stretches of a window.

    Attributes:
        waiting: (B, N, ...) whole time steps that each neuron still waits.
        due: (R,) float64, the probability that the next period is drawn in 0, 1 ... R - 1 steps,
            over all draws up to now: from it follows each step's probability of firing.
    """

    waiting: Tensor
    due: Tensor


class _Waiting(nn.Module):
    """The base of stages whose neurons wait, but keep their mean rate; streams over stretches."""

    scope: DropoutScope
    periods: list[float]  # the probabilities of 1, 2, 3 ... steps from a draw to the next
    awake: ClassVar[tuple[int, torch.dtype]]  # the steps to wait at the start of a window
    gates: ClassVar[bool]  # whether neurons also wait in evaluation

    def __init__(self, mean_wait: float) -> None:
        super().__init__()
        if (
            not isinstance(mean_wait, int | float)
            or not 0 <= mean_wait < math.inf
            or math.exp(-mean_wait) < _LEAST_PROBABILITY
        ):
            raise ValueError(
                f"mean_wait={mean_wait!r}; expected a number of time steps from 0 to "
                f"{-math.log(_LEAST_PROBABILITY):.2f}: the probability exp(-mean_wait) of firing "
                "at once divides the rates, and beyond that it is no normal float32 number"
            )
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
        if rate.dim() < 3:
            raise ValueError(
                f"rate has shape {tuple(rate.shape)}; expected (batch, neurons, time_steps)"
            )
        if rate.shape[2] == 0 or not (self.acts or self.gates):
            return rate, state
        cells = (*rate.shape[:2], *(rate.shape[3:] if self.scope == "unit" else ()))
        if state is None:
            steps, dtype = self.awake
            waiting = rate.new_full(cells, steps, dtype=dtype)
            state = DropoutState(waiting, first_due(self.periods, rate.device))
        elif tuple(state.waiting.shape) != cells:
            raise ValueError(
                f"state.waiting has shape {tuple(state.waiting.shape)}; expected {cells} as the "
                "rate: pass the state after this window's last stretch, or None to begin a window"
            )
        fired, waiting = self._fired(rate, state.waiting)
        if not self.acts:
            return rate * fired, DropoutState(waiting, state.due)
        probability, due = self._probability(state.due, rate.shape[2])
        # In half precision the probability itself would be off by up to 0.4 %, and so the mean.
        exact = torch.promote_types(rate.dtype, torch.float32)
        # A step so improbable that it never fires must not turn a silent 0 into 0 * inf.
        scale = probability.reciprocal().clamp(max=torch.finfo(exact).max).to(exact)
        rate = (rate * (fired * scale.view(-1, *[1] * (rate.dim() - 3)))).to(rate.dtype)
        return rate, DropoutState(waiting, due)

    def firing_probability(self, time_steps: int) -> list[float]:
        """Returns the probability that a neuron of positive rate fires at a window's steps."""
        first = first_due(self.periods, torch.device("cpu"))
        return self._probability(first, time_steps)[0].tolist()

    def _fired(self, rate: Tensor, waiting: Tensor) -> tuple[Tensor, Tensor]:
        """Returns where (B, N, T, ...) it fires, and the steps still to wait after that."""
        raise NotImplementedError

    def _probability(self, due: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Returns the (T,) probability of firing at the next steps, and what is due after them."""
        raise NotImplementedError


class PoissonDropout(_Waiting):
    """Dropout of a neuron for waiting periods K ~ Poisson(mean_wait), which keeps its mean rate.

    Modes, with the share of steps in which a neuron fires in the long run (l the mean_wait):
        wait: draw K, stay silent for K steps, fire, draw again: 1 / (1 + l), 0.667 at 0.5. The
            essay's (Dettmers 2015: its figure of a Poisson(0.5) distribution gives "the waiting
            time before firing").
        redraw: draw K; fire if it is 0, else stay silent for K steps; draw again:
            exp(-l) / (exp(-l) + l), 0.548 at 0.5.
        independent: at each step, fire if K = 0: exp(-l), 0.607 at 0.5. This is ordinary dropout
            with probability 1 - exp(-l), 0.393.

    In training every step is divided by its probability of firing, so that the expected rate is
    kept from the first step on. In evaluation it is the identity, and returns its state unchanged.
    Draws come from torch's default generator of the input's device: seed each rank of a distributed
    run differently.

    Args:
        mean_wait: mean of the waiting periods in time steps, the Poisson distribution's lambda.
            0 is the identity. A neuron with a long one hardly ever fires at first, and is scaled
            up accordingly: in float16, which ends at 65504, from about 11 on beyond all bounds.
        mode: "wait", "redraw" or "independent".
        scope: of a draw, where axes follow the time steps. "neuron": it silences the neuron in all
            of them; "unit": each further position has its own draws.

    Shape:
        rate (B, N), (B, N, T) or (B, N, T, ...) -> the same

    Raises:
        ValueError: a mean_wait that is negative or too long for float32 (from 87.4 on), or an
            unknown mode or scope; at the call, another shape.
    """

    awake, gates = (-1, torch.float32), False

    def __init__(
        self, mean_wait: float = 0.5, mode: DropoutMode = "wait", scope: DropoutScope = "neuron"
    ) -> None:
        super().__init__(mean_wait)
        check_choice("mode", mode, ("wait", "redraw", "independent"))
        check_choice("scope", scope, ("neuron", "unit"))
        self.mode, self.scope = mode, scope
        # Below this many steps of waiting a period is drawn: "wait" counts past the firing at 0.
        self.draw_below = {"wait": 0.0, "redraw": 1.0, "independent": math.inf}[mode]
        self.periods = periods(mean_wait, mode)
        self.shares = cumulative(mean_wait)

    def forward(self, rate: Tensor) -> Tensor:
        return self(rate.unsqueeze(2)).squeeze(2) if rate.dim() == 2 else self.stream(rate)[0]

    def _fired(self, rate: Tensor, waiting: Tensor) -> tuple[Tensor, Tensor]:
        steps, cells = rate.shape[2], waiting.shape
        # All steps' draws at once, the steps one after another as single calls would draw them. The
        # mean being the same for all, this takes less than half the time of torch.poisson.
        uniform = torch.rand(steps, *cells, device=rate.device)
        draws = waits(uniform, constant(self.shares, rate, torch.float32))
        # Counted from the window's start: the step at which a neuron fires if it draws now.
        now = torch.arange(steps, dtype=torch.float32, device=rate.device)
        draws += now.view(-1, *[1] * len(cells))
        fires, firing_steps = waiting, []
        for step, draw in enumerate(draws.unbind()):
            fires = torch.where(fires < step + self.draw_below, draw, fires)
            firing_steps.append(fires)
        fired = torch.stack(firing_steps, 2) == now.view(-1, *[1] * (len(cells) - 2))
        return fired.view(*fired.shape, *[1] * (rate.dim() - fired.dim())), fires - steps

    def _probability(self, due: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        drawn, due = renewals(due, self.periods, steps)
        if self.mode == "wait":  # the step after a firing draws, and no other step
            return torch.cat([drawn, due[:1]])[1:], due
        return drawn * math.exp(-self.mean_wait), due

    def closed_form(self, rate: torch.Size) -> tuple[Cost, ...]:
        """Returns no rows: in evaluation it is the identity."""
        return (Cost("dropout"),)

    def extra_repr(self) -> str:
        return f"mean_wait={self.mean_wait}, mode={self.mode!r}, scope={self.scope!r}"


class ReleaseOrWait(_Waiting):
    """The essay's branch: `if fire and not dropout: release() else: sleep(0.02)` (Dettmers 2015).

    A neuron that is awake fires if its rate is positive. If it fires and is not dropped, it
    releases its rate and stays awake; else it sleeps, this step included, and then looks again.
    It is dropped if K ~ Poisson(mean_wait) is 1 or more. At the essay's 30 steps a second 20 ms
    end before the next step, so it is plain gating; at 5 ms a step a neuron sleeps for four.

    In training a release is divided by its probability in a neuron that fires at every step, so
    that such a neuron's mean rate is kept from the first step on. In evaluation nothing is
    dropped, and the sleep after not firing remains. Gradients reach the released rates alone.

    Args:
        mean_wait: the Poisson distribution's lambda; 0 drops nothing.
        wait_ms: the sleep in milliseconds, rounded up to whole steps, one at least.
        step_ms: length of a time step in milliseconds.

    Shape:
        rate (B, N, T) -> the same. In (B, N, T, ...) each further position is a cell of its own.

    Raises:
        ValueError: a mean_wait that `PoissonDropout` refuses, a wait_ms that is negative or a
            step_ms that is not positive; at the call, another shape.
    """

    scope = "unit"
    awake, gates = (0, torch.int32), True

    def __init__(
        self, mean_wait: float = 0.5, wait_ms: float = 20.0, step_ms: float = 1000 / 30
    ) -> None:
        super().__init__(mean_wait)
        check_number("wait_ms", wait_ms, inclusive=True)
        check_number("step_ms", step_ms)
        self.wait_ms, self.step_ms = wait_ms, step_ms
        # In floating point 2.1 / 0.7 is a little more than 3: still three steps.
        self.wait_steps = max(1, math.ceil(wait_ms / step_ms - 1e-9))
        self.no_wait = math.exp(-mean_wait)
        self.periods = [0.0] * self.wait_steps
        self.periods[0] += self.no_wait
        self.periods[-1] += 1 - self.no_wait

    def _fired(self, rate: Tensor, waiting: Tensor) -> tuple[Tensor, Tensor]:
        released = []
        for fires in (rate > 0).unbind(2):
            awake = waiting == 0
            releases = awake & fires
            if self.acts:
                releases = releases & (torch.rand(waiting.shape, device=rate.device) < self.no_wait)
            released.append(releases)
            waiting = torch.where(awake & ~releases, self.wait_steps, waiting)
            waiting = (waiting - 1).clamp(min=0)
        return torch.stack(released, 2), waiting

    def _probability(self, due: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        awake, due = renewals(due, self.periods, steps)
        return awake * self.no_wait, due

    def closed_form(self, rate: torch.Size) -> tuple[Cost, ...]:
        """Counts a comparison with the threshold and a product for each number."""
        return (Cost("release", pointwise=2 * rate.numel()),)

    def extra_repr(self) -> str:
        return f"mean_wait={self.mean_wait}, wait_ms={self.wait_ms:g}, step_ms={self.step_ms:.6g}"


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

    def __init__(self, dt: float = 1.0) -> None:
        super().__init__()
        check_number("dt", dt)
        self.dt = dt

    def forward(self, rate: Tensor) -> Tensor:
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
