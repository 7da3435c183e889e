"""Threshold normalisation: the synaptic potential relative to rest, up to the threshold.

Shapes: B batch, N neurons, T time steps, P sites along a dendrite, D dendrites.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import Count, Positive, Share, Size, checked
from neuroconv.core.checks import NormOver
from neuroconv.core.cost import Cost
from neuroconv.core.layout import along_axis
from neuroconv.kernels.operator import refuse_batch_statistics
from neuroconv.layers.step_norm import StepBatchNorm


@checked
class ThresholdNorm(nn.Module):
    """clamp(batch_norm(x), 0, threshold): nothing below rest, nothing past the threshold.

    Batch normalisation is `nn.BatchNorm1d`'s, for each neuron over all other axes, with its
    running statistics, gain and shift: the module `norm`. In training it is not causal: statistics
    over all steps let later steps change what leaves at earlier ones, except by norm_over="step".

    Args:
        features: neurons N, on axis 1.
        threshold: the ceiling, in standard deviations of the neuron's potential as it starts (the
            gain is learned). Three is a choice, not a measurement.
        empty_positions: the number of last positions of a sheet, dendrite by dendrite, that hold no
            synapse. They do not enter the statistics and leave as zero.
        momentum, eps: as nn.BatchNorm1d's.
        norm_over: statistics in training over the "window", or those of each "step" of axis 2; see
            `StepBatchNorm`.

    Shape:
        x (B, N, ...) -> the same, in its layout in memory; with empty positions a sheet
        (B, N, T, P, D), with the batch innermost in memory (no copy is made) or contiguous

    Raises:
        ValueError: sizes or numbers out of range; at the call, other axes, or in training only one
            value for each neuron.
    """

    def __init__(
        self,
        features: Size,
        threshold: Positive = 3.0,
        *,
        empty_positions: Count = 0,
        momentum: Share = 0.1,
        eps: Positive = 1e-5,
        norm_over: NormOver = "window",
    ) -> None:
        super().__init__()
        self.features, self.threshold, self.empty_positions = features, threshold, empty_positions
        kind = StepBatchNorm if norm_over == "step" else nn.BatchNorm1d
        self.norm = kind(features, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        refuse_batch_statistics(self)
        per_step = getattr(self.norm, "per_step", False)
        if not self.empty_positions:
            return self._normal(x) if per_step else along_axis(x, 1, self._normal)
        sheet = x.permute(1, 4, 3, 2, 0)  # (N, D, P, T, B)
        filled = sheet.flatten(1, 2)[:, : -self.empty_positions]
        if per_step:
            potential = self._normal(filled.permute(3, 0, 2, 1)).permute(1, 3, 2, 0)
        else:
            potential = self._normal(filled.flatten(1).unsqueeze(0)).view(filled.shape)
        padded = F.pad(potential, (0, 0, 0, 0, 0, self.empty_positions))
        result = padded.reshape(sheet.shape).permute(4, 0, 3, 2, 1)
        return result.contiguous() if x.is_contiguous() else result

    def _normal(self, x: Tensor) -> Tensor:
        """Normalises and clamps (before, N, after), or with steps of their own (B, N, T, ...)."""
        return self.norm(x).clamp(0, self.threshold)

    def _check(self, x: Tensor) -> None:
        if x.dim() < 2 or x.shape[1] != self.features:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; expected (batch, {self.features} neurons, ...)"
            )
        if self.empty_positions and (
            x.dim() != 5 or x.shape[3] * x.shape[4] <= self.empty_positions
        ):
            raise ValueError(
                f"x has shape {tuple(x.shape)}; empty_positions={self.empty_positions} needs a "
                "sheet (batch, neurons, time_steps, sites, dendrites) of more positions than that"
            )
        if self.training and self._values(x.shape) < 2 * self.features:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, one value for each neuron; training needs at least "
                "two: enlarge the batch or call eval()"
            )

    def _values(self, x: torch.Size) -> int:
        """Returns the number of values that are normalised."""
        values = math.prod(x)
        empty = self.empty_positions
        return values - values // (x[3] * x[4]) * empty if empty else values

    def closed_form(self, x: torch.Size) -> tuple[Cost, ...]:
        """Counts two FLOPs per value for the running statistics, and one for the bounds."""
        return (Cost("threshold normalisation", pointwise=3 * self._values(x)),)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, empty_positions={self.empty_positions}"
