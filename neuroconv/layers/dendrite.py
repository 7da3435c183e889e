"""Dendrites: the spatiotemporal filter and the dendritic rate.

Shapes: B batch, N neurons, T time steps, P sites along a dendrite, D dendrites; K_T, K_P, K_D the
filter's time steps, branches and dendrites.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import Positive, Size, checked
from neuroconv.core.cost import Cost
from neuroconv.core.shares import draw
from neuroconv.kernels import stages
from neuroconv.kernels.cache import FilterCache
from neuroconv.kernels.conv import dendritic_conv
from neuroconv.kernels.conv.choice import choose_backend
from neuroconv.kernels.conv.costs import (
    filter_macs,
    past_macs,
    problem_flops,
    problem_macs,
    problem_zeros,
)
from neuroconv.kernels.conv.sizes import Backend, ConvProblem, Mode
from neuroconv.layers.cable import Cable
from neuroconv.layers.memory import recall
from neuroconv.layers.summation import Exponent, Law, OldLaw, SummationLaw
from neuroconv.layers.tree_shape import TreeShape


@checked
@dataclass(frozen=True)
class Taps:
    """The taps of a dendritic filter: initial values, whether they are trained, and backend.

    Args:
        cable: fill the filters with this cable's diffusion, at unit gain; None draws them.
        trainable: whether they are trained.
        equalized_lr: hold the taps in units of their initial standard deviation. A step of Adam is
            absolute: one that moves a filter of 60 taps by a twentieth overwrites a filter of
            50,000, whose taps are that much smaller. In these units it moves both alike.
        backend: "auto", "direct", "fft" or "matmul"; see `neuroconv.kernels.conv`.

    Raises:
        ValueError: an unknown backend.
    """

    cable: Cable | None = None
    trainable: bool = True
    equalized_lr: bool = False
    backend: Backend = "auto"


@checked
class DendriticConv(nn.Module):
    """One spatiotemporal filter for each neuron: charge spreads along the branches and lingers.

    Args:
        neurons: number of neurons N.
        tree: the sizes of the input sheet and of the filter, and how the two overlap.
        taps: the filter's initial values, whether it is trained, and its backend.
        bias: a trainable resting potential for each output dendrite.

    Attributes:
        weight: (N, K_T, K_P, K_D), in torch's time-first order.
        bias: (N, D'), or None.

    Shape:
        sheet (B, N, T, P, D) -> potential (B, N, T, P', D')

    Raises:
        ValueError: a number of neurons that is not positive, or a tree without a filter.
    """

    kernel_stage: ClassVar[str] = "dendritic_conv"

    def __init__(
        self, neurons: Size, tree: TreeShape, taps: Taps | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        taps = Taps() if taps is None else taps
        self.neurons, self.tree, self.backend = neurons, tree, taps.backend
        self.weight = nn.Parameter(torch.empty(neurons, *tree.kernel))
        self.bias = nn.Parameter(torch.empty(neurons, tree.out[1])) if bias else None
        time_steps, branches, dendrites = tree.kernel
        fan_in = branches * time_steps * (1 if tree.mode == "per_dendrite" else dendrites)
        self.deviation = math.sqrt(2 / fan_in)
        self.tap_unit = self.deviation if taps.equalized_lr else 1.0
        self._cache = FilterCache()
        self.reset_parameters()
        if taps.cable is not None:
            self.diffuse(taps.cable, unit_gain=True)
        self.weight.requires_grad_(taps.trainable)

    @property
    def sheet_shape(self) -> tuple[int, int]:
        """(sites P, dendrites D) of the input sheet."""
        return self.tree.sheet

    @property
    def mode(self) -> Mode:
        return self.tree.mode

    def reset_parameters(self) -> None:
        """Draws taps by He's rule over those that one output reads; the bias starts at zero."""
        if self.weight.is_meta:  # nothing to draw, and drawing nothing takes a millisecond
            return
        draw(self.weight, partial(nn.init.normal_, std=self.deviation / self.tap_unit))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def diffuse(self, cable: Cable, trainable: bool = True, unit_gain: bool = False) -> None:
        """Sets every neuron's taps to a passive cable's: charge spreads along a dendrite and leaks.

        It does not pass from one dendrite to another. In mode "same" the one column of the filter
        that meets the dendrite itself gets the taps and the others zero. In the other modes every
        column does; "valid" then adds the filtered dendrites up. The bias is left as it is.

        Args:
            cable: constants of the dendrite.
            trainable: learning starts from the taps; else they stay as they are,
                `weight.requires_grad` False, which a checkpoint does not record.
            unit_gain: scale the taps of a dendrite so that they sum to one: a steady, even input
                comes through at its own strength. The scale is then left to the synapses.
        """
        time_steps, branches, across = self.tree.kernel
        taps = cable.taps(branches, time_steps)
        taps = taps / (taps.sum() * self.tap_unit if unit_gain else self.tap_unit)
        middle = (across - 1) // 2
        with torch.no_grad():
            self.weight.zero_()
            columns = self.weight[..., middle : middle + 1] if self.mode == "same" else self.weight
            columns.copy_(taps.unsqueeze(-1))
        self.weight.requires_grad_(trainable)

    def forward(self, sheet: Tensor, steps: int | None = None) -> Tensor:
        """Filters a sheet (B, N, T, P, D); computes the last `steps`, or all of them."""
        if sheet.dim() != 5 or tuple(sheet.shape[3:]) != self.sheet_shape:
            raise ValueError(
                f"sheet has shape {tuple(sheet.shape)}; expected (batch, {self.neurons} neurons, "
                f"time_steps, {self.sheet_shape[0]} sites, {self.sheet_shape[1]} dendrites)"
            )
        cache = None if self.training else self._cache
        return dendritic_conv(
            sheet, self.taps(), self.mode, self.backend, self.bias, steps,
            cache=cache, source=self.weight,
        )  # fmt: skip

    def stream(self, sheet: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Runs `forward` after the steps of the past; also returns the past of the next call."""
        window, past = recall(past, sheet, self.tree.kernel[0])
        return self(window, sheet.shape[2]), past

    def taps(self) -> Tensor:
        """Returns the effective filters, (N, K_T, K_P, K_D)."""
        return self.weight if self.tap_unit == 1 else self.weight * self.tap_unit

    def problem(self, batch: int, time_steps: int, steps: int | None = None) -> ConvProblem:
        """Returns the convolution's sizes for a sheet of this batch and these steps."""
        window = (time_steps, *self.sheet_shape)
        return ConvProblem(window, self.tree.kernel, self.mode, batch, self.neurons, steps)

    def train(self, mode: bool = True) -> Self:
        self._cache.clear()
        return super().train(mode)

    def closed_form(
        self, sheet: torch.Size, synapses: int | None = None, steps: int | None = None
    ) -> tuple[Cost, ...]:
        """Counts the convolution of a sheet (B, N, T, P, D) by the backend that runs it.

        Args:
            synapses: of one neuron, by default one at each position.
            steps: the number of last steps that are computed, by default all.
        """
        problem = self.problem(sheet[0], sheet[2], steps)
        backend = choose_backend(problem, self.backend, device=self.weight.device.type)
        synapses = self.tree.positions if synapses is None else synapses
        cost = Cost(
            "dendrites",
            problem_macs(problem, backend),
            pointwise=problem_flops(problem, backend),
            neurons=self.neurons,
            essay=sheet[0]
            * self.neurons
            * synapses
            * problem.out_steps()
            * math.prod(problem.taps),
            direct=sum(problem_macs(problem, "direct").values()),
            filter_macs=sum(filter_macs(problem, backend).values()),
            past_macs=past_macs(problem, backend),
            zeros=problem_zeros(problem, backend),
        )
        return (cost,)

    def extra_repr(self) -> str:
        return (
            f"{self.neurons}, sheet={self.tree.sheet}, filter={self.tree.filter}, "
            f"mode={self.mode!r}, backend={self.backend!r}, bias={self.bias is not None}"
        )


@checked
class DendriticRate(SummationLaw):
    """Rectifier, then a sum over the sites: one rate for each dendrite and time step.

    Too negative a potential makes no spike; else the rate is proportional to it. Without this
    stage a neuron is linear up to its soma and collapses into a single dot product: `linear=True`
    is that control.

    Args:
        reduction: over sites, "mean", "sum" or "max".
        linear: leave the rectifier out.
        law: the law by which inputs to one dendrite sum, applied to each dendrite's reduction:
            a `SummationLaw`'s. With another than "linear", two inputs to one dendrite give another
            rate than the two by themselves, while `DendriticSummation` still adds up dendrites.
        knee, exponent, learnable: of the law; see `SummationLaw`.

    Shape:
        potential (B, N, T, P, D) -> rate (B, N, T, D)

    Raises:
        ValueError: an unknown reduction or law, a number out of range or that the law does not
            have, or a law with `linear`.
    """

    kernel_stage: ClassVar[str] = "dendritic_rate"

    def __init__(
        self,
        reduction: Literal["mean", "sum", "max"] = "mean",
        linear: bool = False,
        law: Law | OldLaw = "linear",
        *,
        knee: Positive = 1.0,
        exponent: Exponent | None = None,
        learnable: bool = False,
    ) -> None:
        super().__init__(law, knee=knee, exponent=exponent, learnable=learnable)
        if linear and self.law != "linear":
            raise ValueError(
                f"linear=True with law={law!r}; the linear control has neither rectifier nor law: "
                "leave one of the two out"
            )
        self.reduction, self.linear = reduction, linear

    def forward(self, potential: Tensor) -> Tensor:
        return self.law_of(stages.site_rates(potential, self.reduction, self.linear))

    def closed_form(self, potential: torch.Size) -> tuple[Cost, ...]:
        """Counts the rectifier, the reduction over the sites, a mean's factor, and the law."""
        branches, rates = potential.numel(), potential.numel() // potential[3]
        reduced = rates if potential[3] > 1 else 0
        flops = branches * ((not self.linear) + (reduced > 0)) + self.law_flops(rates)
        return (Cost("dendritic rate", pointwise=flops + reduced * (self.reduction == "mean")),)

    def extra_repr(self) -> str:
        law = "" if self.law == "linear" else f", law={self.law!r}{self.law_repr()}"
        return f"reduction={self.reduction!r}, linear={self.linear}{law}"
