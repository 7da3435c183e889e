"""Dendrites: the spatiotemporal filter and the dendritic rate.

Shapes: B batch, N neurons, T time steps, P sites along a dendrite, D dendrites.
"""

import math
from typing import Literal, Self

import torch
from torch import Tensor, nn

from neuroconv.core.checks import check_choice, check_positive, check_sizes
from neuroconv.core.cost import Cost
from neuroconv.kernels.cache import FilterCache
from neuroconv.kernels.conv import (
    BACKENDS,
    Backend,
    Job,
    Mode,
    Transform,
    dendritic_conv,
    filter_transform,
    job_backend,
    job_flops,
    job_macs,
    joins_tree,
    output_size,
)
from neuroconv.layers.cable import Cable


class DendriticConv(nn.Module):
    """Charge spreads along the branches and lingers: one spatiotemporal filter for each neuron.

    Args:
        neurons: number of neurons N.
        sheet_shape: (sites P, dendrites D) of the sheet that comes in.
        filter_shape: (branches, dendrites, time_steps), in the essay's order. This layer turns it
            into torch's time-first order, and nothing else does.
        mode: "same", "valid" or "per_dendrite"; see `neuroconv.kernels.conv`.
        backend: "auto", "direct", "fft" or "matmul".
        bias: a trainable resting potential for each dendrite that comes out.
        unit_taps: hold the taps in units of their initial standard deviation. A step of Adam is
            absolute: one that moves a filter of 60 taps by a twentieth overwrites a filter of
            50,000, whose taps are that much smaller. In these units it moves both alike.

    Shape:
        sheet (B, N, T, P, D) -> potential (B, N, T, P', D')

    Raises:
        ValueError: a size that is not positive, a filter that does not fit into the sheet, or an
            unknown mode or backend.
    """

    def __init__(
        self,
        neurons: int,
        sheet_shape: tuple[int, int],
        filter_shape: tuple[int, int, int],
        mode: Mode = "same",
        backend: Backend = "auto",
        bias: bool = True,
        unit_taps: bool = False,
    ) -> None:
        super().__init__()
        check_positive(neurons=neurons)
        sites, dendrites = check_sizes("sheet_shape", sheet_shape, ("sites", "dendrites"))
        branches, across, time_steps = check_sizes(
            "filter_shape", filter_shape, ("branches", "dendrites", "time_steps")
        )
        self.neurons, self.mode, self.backend = neurons, mode, backend
        self.sheet_shape = (sites, dendrites)
        self.filter_shape = (branches, across, time_steps)
        self.out_shape = output_size(self.sheet_shape, (branches, across), mode)
        check_choice("backend", backend, BACKENDS)
        self.weight = nn.Parameter(torch.empty(neurons, time_steps, branches, across))
        self.bias = nn.Parameter(torch.empty(neurons, self.out_shape[1])) if bias else None
        fan_in = branches * time_steps * (1 if mode == "per_dendrite" else across)
        self.deviation = math.sqrt(2 / fan_in)
        self.tap_unit = self.deviation if unit_taps else 1.0
        self._cache = FilterCache()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He's initialisation over the taps that one output reads; the bias starts at zero."""
        if self.weight.is_meta:  # nothing to draw, and drawing nothing takes a millisecond
            return
        nn.init.normal_(self.weight, std=self.deviation / self.tap_unit)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def diffuse(self, cable: Cable, hold: bool = False, unit_gain: bool = False) -> None:
        """Sets every neuron's taps to a passive cable's: charge spreads along a dendrite and leaks.

        It does not pass from one dendrite to another. In mode "same" the one column of the filter
        that meets the dendrite itself gets the taps and the others zero. In the other modes every
        column does; "valid" then adds the filtered dendrites up. What spreads past a dendrite's
        ends is lost. The bias is left as it is.

        Args:
            cable: constants of the dendrite, in micrometres and milliseconds.
            hold: keep the taps as they are, `weight.requires_grad` False; else they are where
                learning starts from. A checkpoint does not record it: call this again on a new
                layer.
            unit_gain: scale the taps of a dendrite so that they sum to one: a steady, even input
                comes through at its own strength. The scale is then left to the synapses.
        """
        branches, across, time_steps = self.filter_shape
        taps = cable.taps(branches, time_steps)
        taps = taps / (taps.sum() * self.tap_unit if unit_gain else self.tap_unit)
        middle = (across - 1) // 2
        with torch.no_grad():
            self.weight.zero_()
            columns = self.weight[..., middle : middle + 1] if self.mode == "same" else self.weight
            columns.copy_(taps.unsqueeze(-1))
        self.weight.requires_grad_(not hold)

    def forward(self, sheet: Tensor, steps: int | None = None) -> Tensor:
        """Args: sheet (B, N, T, P, D); steps, how many of the last ones to compute, default all."""
        if sheet.dim() != 5 or tuple(sheet.shape[3:]) != self.sheet_shape:
            raise ValueError(
                f"sheet has shape {tuple(sheet.shape)}; expected (batch, {self.neurons} neurons, "
                f"time_steps, {self.sheet_shape[0]} sites, {self.sheet_shape[1]} dendrites)"
            )
        batch, _, time_steps = sheet.shape[:3]
        asked = time_steps if steps is None else steps
        made = None
        if not self.training:
            transform = self._transform(int(batch), int(time_steps), int(asked))
            made = self._cache.get(
                (self.weight,),
                (transform.backend, time_steps, asked),
                transform.numbers,
                lambda: transform.make(self.taps()),
            ) if transform.numbers else None  # fmt: skip
        return dendritic_conv(
            sheet, self.taps(), self.mode, self.backend, self.bias, steps, transformed=made
        )

    def taps(self) -> Tensor:
        """The filters that act, (N, K_T, K_P, K_D)."""
        return self.weight if self.tap_unit == 1 else self.weight * self.tap_unit

    def job(self, batch: int, time_steps: int, steps: int | None = None) -> Job:
        """What a sheet of so many samples and steps asks for."""
        branches, across, k_time = self.filter_shape
        window, taps = (time_steps, *self.sheet_shape), (k_time, branches, across)
        return Job(window, taps, self.mode, batch, self.neurons, steps)

    def chosen_backend(self, batch: int, time_steps: int, steps: int | None = None) -> Backend:
        """The backend that a sheet of so many samples and steps runs on."""
        job = self.job(batch, time_steps, steps)
        return job_backend(job, self.backend, device=self.weight.device.type)

    def joins(self, batch: int, time_steps: int, axons: int, gradients: bool) -> bool:
        """Whether a tree of such dendrites runs as one stage; see `joins_tree`."""
        job, device = self.job(batch, time_steps), self.weight.device.type
        return joins_tree(job, axons, self.backend, gradients=gradients, device=device)

    def _transform(self, batch: int, time_steps: int, steps: int) -> Transform:
        backend = self.chosen_backend(batch, time_steps, steps)
        job, weight = self.job(batch, time_steps, steps), self.weight
        return filter_transform(job, backend, weight.device.type, weight.dtype)

    def train(self, mode: bool = True) -> Self:
        """As nn.Module's; what evaluation kept of the filters is dropped."""
        self._cache.clear()
        return super().train(mode)

    def closed_form(
        self, sheet: torch.Size, synapses: int | None = None, steps: int | None = None
    ) -> tuple[Cost, ...]:
        """Args: sheet (B, N, T, P, D); synapses of one neuron (default: one at each site); steps,
        how many of the last ones are computed (default: all)."""
        job = self.job(sheet[0], sheet[2], steps)
        backend = self.chosen_backend(sheet[0], sheet[2], steps)
        synapses = math.prod(self.sheet_shape) if synapses is None else synapses
        cost = Cost(
            "dendrites",
            job_macs(job, backend),
            pointwise=job_flops(job, backend),
            neurons=self.neurons,
            essay=sheet[0] * self.neurons * synapses * job.asked * math.prod(job.taps),
            direct=sum(job_macs(job, "direct").values()),
        )
        return (cost,)

    def extra_repr(self) -> str:
        return (
            f"{self.neurons}, sheet_shape={self.sheet_shape}, filter_shape={self.filter_shape}, "
            f"mode={self.mode!r}, backend={self.backend!r}, bias={self.bias is not None}"
        )


class DendriticRate(nn.Module):
    """Rectifies, then reduces over the sites: one number for each dendrite and time step.

    Too negative a potential makes no spike; else the rate is proportional to it. Without this
    stage a neuron is linear up to its soma and collapses into a single dot product: `linear=True`
    is that control.

    Args:
        reduction: over sites, "mean", "sum" or "max".
        linear: leave the rectifier out.

    Shape:
        potential (B, N, T, P, D) -> rate (B, N, T, D)
    """

    def __init__(
        self, reduction: Literal["mean", "sum", "max"] = "mean", linear: bool = False
    ) -> None:
        super().__init__()
        check_choice("reduction", reduction, ("mean", "sum", "max"))
        self.reduction, self.linear = reduction, linear

    def forward(self, potential: Tensor) -> Tensor:
        if potential.stride(0) == 1:
            # The batch is innermost in memory: in that order a sum over sites is ten times faster.
            rate = self._reduce(potential.permute(1, 4, 3, 2, 0), 2)
            return rate.permute(3, 0, 2, 1)
        return self._reduce(potential, 3)

    def _reduce(self, potential: Tensor, sites: int) -> Tensor:
        rate = potential if self.linear else potential.relu()
        if rate.shape[sites] == 1:
            return rate.squeeze(sites)
        if self.reduction == "max":
            return rate.amax(sites)
        total = rate.sum(sites)
        return total if self.reduction == "sum" else total * (1 / rate.shape[sites])

    def closed_form(self, potential: torch.Size) -> tuple[Cost, ...]:
        """The rectifier, the reduction over the sites and, for a mean, its factor."""
        branches = potential.numel()
        reduced = branches // potential[3] if potential[3] > 1 else 0
        flops = branches * ((not self.linear) + (reduced > 0))
        return (Cost("dendritic rate", pointwise=flops + reduced * (self.reduction == "mean")),)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, linear={self.linear}"
